"""The documentation's pages: what in them is filled in, and what in them runs.

MkDocs calls `on_page_markdown` (see ``hooks`` in mkdocs.yml); `make_figures.py` and the tests read
the same pages through the same functions, so that what is shown is what was run.

Three comments in a page stand for something else:

- ``<!-- example: line -->``: the gallery's example of that name, its prose as prose, its cells as
  code, each with the pictures that it shows; in a page one folder below docs/.
- ``<!-- other examples -->``: all examples that no page names.
- ``<!-- help -->``: what every command prints with ``--help``.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from contextlib import chdir, redirect_stdout
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "src"))

_FENCE = re.compile(r"^([ ]*)```(\w+)[^\n]*\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)
_EXAMPLE = re.compile(r"<!-- example: (\w+) -->")
_SHOWN = re.compile(r"^\s*show\(.*, f?\"([^\"]+)\"\)$", re.MULTILINE)
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+\.(?:png|gif))\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page as MkDocs is to render it."""
    made = markdown
    if "<!-- other examples -->" in made:
        others = "\n\n".join(f"<!-- example: {name} -->" for name in other_examples())
        made = made.replace("<!-- other examples -->", others)
    made = _EXAMPLE.sub(lambda found: example_as_markdown(found[1]), made)
    return made.replace("<!-- help -->", help_of_commands()) if "<!-- help -->" in made else made


def pages() -> list[Path]:
    """All pages, in the order of their names."""
    return sorted(DOCS.rglob("*.md"))


def written(page: Path) -> str:
    """What a page says, its comments as they are."""
    return page.read_text(encoding="utf-8")


def blocks(markdown: str) -> list[tuple[str, str]]:
    """The blocks of a page in turn: the language, and what stands in it."""
    return [(name, dedent(code)) for _, name, code in _FENCE.findall(markdown)]


def commands(markdown: str) -> list[str]:
    """The lines of a page that call downslope in a shell."""
    shell = "".join(code for name, code in blocks(markdown) if name == "sh")
    lines = shell.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.startswith("downslope ")]


def carry_out(page: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Run a page's Python blocks in that folder, one after another, with shared names.

    The folder gets the examples' data first, where a reader in a clone has it.

    Returns:
        for each block its code, what it printed, and what the page shows as printed ("" if the
        next block is no ``text``).
    """
    shutil.copytree(ROOT / "examples" / "data", folder / "examples" / "data", dirs_exist_ok=True)
    found = [*blocks(written(page)), ("", "")]
    names: dict[str, object] = {"__name__": "page"}
    made = []
    with chdir(folder):
        for (language, code), (following, shown) in pairwise(found):
            if language != "python":
                continue
            printed = io.StringIO()
            with redirect_stdout(printed):
                exec(compile(code, str(page.relative_to(ROOT)), "exec"), names)
            made.append((code, printed.getvalue(), shown if following == "text" else ""))
    return made


def pictures(markdown: str) -> list[str]:
    """The PNG and GIF files that a page shows, as it names them."""
    return _PICTURE.findall(markdown)


def drawn(folder: Path) -> list[Path]:
    """The pictures that lie in a folder."""
    return sorted(path for path in folder.glob("*") if path.suffix in (".png", ".gif"))


def figures_folder(page: Path) -> Path:
    """Where the pictures lie that a page's own code makes."""
    return DOCS / "figures" / page.relative_to(DOCS).with_suffix("")


def other_examples() -> list[str]:
    """The gallery's examples that no page names."""
    from downslope.gallery import list_examples

    named = {name for page in pages() for name in _EXAMPLE.findall(page.read_text("utf-8"))}
    return [name for name, _ in list_examples() if name not in named]


def example_as_markdown(name: str) -> str:
    """An example of the gallery: markdown cells as prose below the page's headings, the rest code.

    Cells begin with ``# %%`` or ``# %% [markdown]``; what stands above the first says how to run
    the script, and is left out. A script without cells is one block of code.
    """
    return "\n\n".join(
        _prose(cell) if is_prose else _code(cell, name) for is_prose, cell in cells(name)
    )


def cells(name: str) -> list[tuple[bool, str]]:
    """An example's cells: whether it is prose, and what stands in it."""
    from downslope.gallery import example_path

    script = example_path(name).read_text(encoding="utf-8")
    parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    found = [
        ("[markdown]" in kind, cell.strip())
        for kind, cell in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return found or [(False, script.strip())]


def pictures_of_example(name: str, cell: str) -> list[Path]:
    """The kept pictures that a cell shows: ``show(figure, "name")``, or ``f"{part}_name"``."""
    folder = DOCS / "figures" / "gallery" / name
    patterns = [re.sub(r"\{.*?\}", "*", shown) for shown in _SHOWN.findall(cell)]
    return [path for pattern in patterns for path in sorted(folder.glob(f"{pattern}.png"))]


def _code(cell: str, name: str) -> str:
    shown = [
        f"![{path.stem.replace('_', ' ')}](../{path.relative_to(DOCS).as_posix()})"
        for path in pictures_of_example(name, cell)
    ]
    return "\n\n".join([f"```python\n{cell}\n```", *shown])


def _prose(cell: str) -> str:
    lines = [re.sub(r"^# ?", "", line) for line in cell.splitlines()]
    return "\n".join(re.sub(r"^(#+ )", r"##\1", line) for line in lines)


def help_of_commands() -> str:
    """What ``downslope COMMAND --help`` prints, command by command, in 80 columns."""
    import typer
    from typer.testing import CliRunner

    from downslope.cli import app

    names = list(typer.main.get_command(app).commands)
    made = []
    for name in names:
        done = CliRunner().invoke(app, [name, "--help"], prog_name="downslope", terminal_width=80)
        assert done.exit_code == 0, done.output
        made.append(f"## {name}\n\n```text\n{done.output.strip()}\n```")
    return "\n\n".join(made)

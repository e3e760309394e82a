"""Make a notebook out of each example: ``python scripts/make_notebooks.py`` writes them all.

The examples are the source. Their cells begin with ``# %%``; those of prose with
``# %% [markdown]``. What stands before the first cell is left out. Two kinds of cells are tagged:

- "script": how a script writes its pictures; a notebook shows them in its place (`SHOW`).
- "parameters": what a script takes from its arguments; a notebook has the value by default.

No outputs are stored, and cells have numbers for names: the same example makes the same bytes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downslope.gallery import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "notebooks"

SHOW = """\
from io import BytesIO

from IPython.display import Image, display


def show(figure, name):
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    display(Image(buffer.getvalue(), alt=name, width=int(100 * figure.get_figwidth())))"""

_MARK = re.compile(r'^# %%(?P<markdown> \[markdown\])?(?: tags=\["(?P<tag>\w+)"\])?$')
_ARGUMENT = re.compile(r" = \w+\(sys\.argv\[\d\]\) if len\(sys\.argv\) > \d else (.+)$", re.M)
_OF_SCRIPTS = {"import sys": "sys.", "from pathlib import Path": "Path("}


@dataclass(frozen=True)
class Cell:
    """A cell of an example: prose or code, and its tag if it has one."""

    markdown: bool
    tag: str | None
    text: str


def cells(source: str) -> list[Cell]:
    """The cells of an example's source, in order."""
    found: list[tuple[re.Match[str], list[str]]] = []
    for line in source.splitlines():
        mark = _MARK.match(line)
        if mark:
            found.append((mark, []))
        elif line.startswith("# %%"):
            raise ValueError(f"this begins no cell that is known: {line}")
        elif found:
            found[-1][1].append(line)
    return [
        Cell(
            markdown=bool(mark["markdown"]),
            tag=mark["tag"],
            text=_prose(lines) if mark["markdown"] else "\n".join(lines).strip("\n"),
        )
        for mark, lines in found
    ]


def _prose(lines: list[str]) -> str:
    written = [line for line in lines if line.strip()]
    wrong = [line for line in written if line != "#" and not line.startswith("# ")]
    if wrong:
        raise ValueError(f"a line of prose begins with '# ', got: {wrong[0]}")
    return "\n".join(line[2:] for line in written)


def for_notebooks(given: list[Cell]) -> list[Cell]:
    """The same cells without what only a script needs."""
    made = [
        Cell(False, c.tag, _ARGUMENT.sub(r" = \1", c.text)) if c.tag == "parameters" else c
        for c in given
        if c.tag != "script"
    ]
    code = "\n".join(c.text for c in made if not c.markdown)
    unused = {line for line, use in _OF_SCRIPTS.items() if use not in code}
    first = next(place for place, c in enumerate(made) if not c.markdown)
    kept = [line for line in made[first].text.splitlines() if line not in unused]
    made[first] = Cell(False, made[first].tag, "\n".join(kept).strip("\n"))
    made.insert(first + 1, Cell(False, None, SHOW))
    return made


def notebook(source: str, name: str) -> dict[str, Any]:
    """A notebook as nbformat 4.5 has it.

    Args:
        source: of the example.
        name: of its file, for the line that says where the notebook comes from.
    """
    made = []
    for number, cell in enumerate(for_notebooks(cells(source))):
        text = cell.text
        if number == 0:
            text += f"\n\n*(Made from `examples/{name}`, which runs as a script, too.)*"
        one: dict[str, Any] = {
            "cell_type": "markdown" if cell.markdown else "code",
            "id": f"cell-{number:02}",
            "metadata": {} if cell.tag is None else {"tags": [cell.tag]},
            "source": text.splitlines(keepends=True),
        }
        if not cell.markdown:
            one |= {"execution_count": None, "outputs": []}
        made.append(one)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": made,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def as_text(made: dict[str, Any]) -> str:
    """A notebook as its file holds it."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def notebooks() -> dict[Path, str]:
    """The file of each notebook, and what it must hold."""
    made = {}
    for short, (name, _) in EXAMPLES.items():
        source = (ROOT / "examples" / name).read_text(encoding="utf-8")
        made[FOLDER / f"{short}.ipynb"] = as_text(notebook(source, name))
    return made


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in notebooks().items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print("wrote", path.relative_to(ROOT))


if __name__ == "__main__":
    main()

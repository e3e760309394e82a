"""The documentation: its code runs, prints and draws what the pages show, and the site builds."""

import doctest
import html
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import downslope as ds
from downslope import cli
from downslope.gallery import list_examples

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import docs_pages  # noqa: E402

PAGES = {str(page.relative_to(docs_pages.DOCS)): page for page in docs_pages.pages()}
WITH_CODE = [
    name
    for name, page in PAGES.items()
    if any(language == "python" for language, _ in docs_pages.blocks(docs_pages.written(page)))
]
WITH_COMMANDS = [
    name for name, page in PAGES.items() if docs_pages.commands(docs_pages.written(page))
]
SAME = doctest.OutputChecker()
LENIENT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def test_there_are_pages():
    assert len(PAGES) >= 23
    assert len(WITH_CODE) >= 18
    assert len(WITH_COMMANDS) >= 6


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_prints_and_draws_what_the_page_shows(name, tmp_path):
    page = PAGES[name]
    for code, printed, shown in docs_pages.carry_out(page, tmp_path):
        if printed or shown:
            assert SAME.check_output(shown, printed, LENIENT), (
                f"{code}\nprints\n{printed}\nand the page shows\n{shown}"
            )
    drawn = {path.name for path in docs_pages.drawn(tmp_path)}
    kept = {path.name for path in docs_pages.drawn(docs_pages.figures_folder(page))}
    again = "make them again with: python scripts/make_figures.py " + name
    assert drawn == kept, again
    shown = {Path(path).name for path in docs_pages.pictures(docs_pages.written(page))}
    assert shown == kept
    assert all(path.stat().st_size > 5_000 for path in docs_pages.drawn(tmp_path))


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_the_commands(name, tmp_path, monkeypatch, capsys):
    docs_pages.carry_out(PAGES["tutorials/index.md"], tmp_path)  # has no code: brings the data
    monkeypatch.chdir(tmp_path)
    for command in docs_pages.commands(docs_pages.written(PAGES[name])):
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as left:
            cli.main()
        told = capsys.readouterr()
        assert left.value.code in (0, None), (command, told.err)
        assert told.out.strip()


def test_every_link_leads_somewhere():
    for name, page in PAGES.items():
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", docs_pages.written(page))
        for link in links:
            if "://" not in link:
                assert (page.parent / link).exists(), f"{name} names {link}"


def test_an_example_becomes_prose_and_code(tmp_path, monkeypatch):
    path = tmp_path / "some.py"
    path.write_text(
        '"""Run me."""\n\n# %% [markdown]\n# # Why\n#\n# Words.\n\n# %% tags=["script"]\nx = 1\n'
        '# %%\nshow(draw(x), "one")\nshow(more, f"{name}_end")\n'
    )
    monkeypatch.setattr("downslope.gallery.example_path", lambda name: path)
    monkeypatch.setattr(docs_pages, "DOCS", tmp_path)
    folder = tmp_path / "figures" / "gallery" / "some"
    folder.mkdir(parents=True)
    for name in ("one", "a_end", "b_end", "unshown"):
        (folder / f"{name}.png").touch()
    made = docs_pages.on_page_markdown("<!-- example: some -->")
    assert made.startswith("### Why\n\nWords.\n\n```python\nx = 1\n```\n\n```python\nshow(")
    assert re.findall(r"!\[(.+)\]\((.+)\)", made) == [
        ("one", "../figures/gallery/some/one.png"),
        ("a end", "../figures/gallery/some/a_end.png"),
        ("b end", "../figures/gallery/some/b_end.png"),
    ]


def test_a_script_without_cells_is_code(tmp_path, monkeypatch):
    path = tmp_path / "some.py"
    path.write_text("x = 1\n")
    monkeypatch.setattr("downslope.gallery.example_path", lambda name: path)
    assert docs_pages.example_as_markdown("some") == "```python\nx = 1\n```"


def test_every_example_is_on_a_page_with_its_pictures():
    markdown = "".join(page.read_text(encoding="utf-8") for page in PAGES.values())
    assert markdown.count("<!-- other examples -->") == 1
    others = docs_pages.other_examples()
    for name, _ in list_examples():
        assert (f"<!-- example: {name} -->" in markdown) != (name in others)
        for is_prose, cell in docs_pages.cells(name):
            if not is_prose and re.search(r"^\s*show\(", cell, re.MULTILINE):
                again = f"make them with: python scripts/make_figures.py gallery/{name}"
                assert docs_pages.pictures_of_example(name, cell), again


def test_commands_may_take_several_lines():
    page = "```sh\nmake demo\ndownslope show a \\\n    --top 3\n```\n\n"
    page += "    ```sh\n    downslope x\n    ```\n"
    assert docs_pages.commands(page) == ["downslope show a --top 3", "downslope x"]


def test_docstrings_are_made_plainer():
    pytest.importorskip("griffe", reason="the reference needs pip install -e '.[docs]'")
    from docs_docstrings import apart, fenced

    assert fenced("One.\n\n>>> 1 + 1\n2\n\nTwo.") == "One.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nTwo."
    assert fenced("  >>> a") == "  ```pycon\n  >>> a\n  ```"
    assert apart("Args:\n    a, b: numbers,\n        both.\n    c: no.") == (
        "Args:\n    a: numbers,\n        both.\n    b: numbers,\n        both.\n    c: no."
    )


class Assets(HTMLParser):
    """What a browser fetches by itself when it opens a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag != "a":
            self.found += [given[name] for name in ("src", "srcset", "data") if given.get(name)]
        if tag == "link":
            self.found.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    for needed in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(needed, reason="the site needs pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return folder


class TestSite:
    def test_every_page_is_there(self, site):
        for name in PAGES:
            assert (site / name).with_suffix(".html").is_file()

    def test_nothing_is_fetched_from_elsewhere(self, site):
        for page in site.rglob("*.html"):
            assets = Assets()
            assets.feed(page.read_text(encoding="utf-8"))
            assert assets.found
            assert [name for name in assets.found if re.match(r"(https?:)?//", name)] == []
        for style in site.rglob("*.css"):
            assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text("utf-8"))

    def test_every_public_name_is_in_the_reference(self, site):
        words = (site / "reference" / "index.html").read_text(encoding="utf-8")
        packages = {"explain", "problems"}
        for name in set(ds.__all__) - packages:
            assert f'id="downslope.{name}"' in words, name
        assert 'id="downslope.problems.make"' in words
        assert "&gt;&gt;&gt;" not in re.sub(r"<pre>.*?</pre>", "", words, flags=re.DOTALL)

    def test_every_command_is_in_the_reference(self, site):
        words = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
        told = html.unescape(re.sub(r"<[^>]+>", "", words))
        for command in cli.app.registered_commands:
            name = command.name or command.callback.__name__
            assert f"Usage: downslope {name} " in told
        assert "/site-packages/" not in told

"""The README's commands and examples run as they stand."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A new user's folder, with the data where the README says."""
    shutil.copytree(ROOT / "examples" / "data", tmp_path / "examples" / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_examples(folder):
    names: dict[str, object] = {}
    assert len(PYTHON) >= 4
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), names)
    assert (folder / "losses.png").stat().st_size > 10_000
    assert (folder / "line-study" / "model.safetensors").exists()


def test_the_commands(folder):
    commands = [line for line in SHELL if line.startswith("downslope ")]
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command, comments=True)
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len((folder / "predictions.csv").read_text().splitlines()) == 443
    assert any((folder / "pictures").glob("*.png"))


def test_make_targets_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {line.split()[1] for line in SHELL if line.startswith("make ")}
    assert named == {"demo", "test", "test-all", "bench", "docs"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_shown_demo_is_the_one_that_make_runs():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    words = re.search(r"^DEMO := (.*)$", makefile, re.MULTILINE)
    assert words is not None
    assert "$ downslope fit " + " ".join(words[1].split()) in README
    assert (ROOT / "docs" / "demo.png").stat().st_size > 50_000

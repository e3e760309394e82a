"""The notebooks are what the script makes of the examples, are valid, and run."""

import json
from pathlib import Path

import pytest

from downslope.gallery import EXAMPLES

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "notebooks"
QUICK = ("slope", "momentum")
"""Carried out by default; the others, whose code runs as scripts then, are slow tests."""


@pytest.fixture
def make(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import make_notebooks

    return make_notebooks


def test_the_notebooks_are_what_the_script_makes(make):
    made = make.notebooks()
    assert set(made) == set(FOLDER.glob("*.ipynb"))
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, "run python scripts/make_notebooks.py"


@pytest.mark.parametrize("name", EXAMPLES)
def test_holds_the_example_s_code_and_no_outputs(name):
    held = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = ["".join(c["source"]) for c in held["cells"] if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] for c in held["cells"] if c["cell_type"] == "code")
    assert len({c["id"] for c in held["cells"]}) == len(held["cells"])
    for source in code:
        compile(source, name, "exec")
        assert "sys.argv" not in source and "OUT_DIR" not in source
    script = (ROOT / "examples" / EXAMPLES[name][0]).read_text(encoding="utf-8")
    missing = [
        line for line in script[script.index("# %%") :].splitlines()
        if line and not line.startswith(("#", "import sys", "from pathlib"))
        and line not in "\n".join(code).splitlines()
        and "OUT_DIR" not in line and "argv" not in line
    ]  # fmt: skip
    assert not missing
    first = "".join(held["cells"][0]["source"])
    assert first.startswith("# ") and EXAMPLES[name][0] in first


def test_nbformat_finds_them_valid():
    nbformat = pytest.importorskip("nbformat", reason="the dev extra brings it")
    for name in EXAMPLES:
        held = nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
        nbformat.validate(held)
        assert (held.nbformat, held.nbformat_minor) == (4, 5)


@pytest.mark.parametrize(
    "source",
    ["# %% [raw]\nx = 1\n", "# %% tags=['script']\nx = 1\n", "# %% [markdown]\nx = 1\n"],
)
def test_cells_that_cannot_be_read_are_told(make, source):
    with pytest.raises(ValueError, match="begins"):
        make.cells(source)


def test_only_what_scripts_need_is_left_out(make):
    source = (
        '"""Words."""\n\n# %% [markdown]\n# # Title\n#\n# Prose.\n\n'
        "# %%\nimport sys\nfrom pathlib import Path\n\nimport torch\n\n"
        '# %% tags=["parameters"]\nSIDE = int(sys.argv[2]) if len(sys.argv) > 2 else 256\n\n'
        '# %% tags=["script"]\nOUT_DIR = Path(sys.argv[1])\n\n# %%\nprint(torch, SIDE)\n'
    )
    texts = [c.text for c in make.for_notebooks(make.cells(source))]
    assert texts == ["# Title\n\nProse.", "import torch", make.SHOW, "SIDE = 256",
                     "print(torch, SIDE)"]  # fmt: skip


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EXAMPLES]
)
def test_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="the dev extra brings it")
    nbformat = pytest.importorskip("nbformat", reason="the dev extra brings it")
    pytest.importorskip("ipykernel", reason="the dev extra brings it")
    import downslope

    monkeypatch.setenv("PYTHONPATH", str(Path(downslope.__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    held = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for cell in held.cells:
        if "parameters" in cell.metadata.get("tags", []):
            assert cell.source == "RESOLUTION = 256"
            cell.source = "RESOLUTION = 16"
    client = nbclient.NotebookClient(
        held, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [o for c in held.cells if c.cell_type == "code" for o in c.outputs]
    script = (ROOT / "examples" / EXAMPLES[name][0]).read_text(encoding="utf-8")
    pictures = [o for o in outputs if o.output_type == "display_data"]
    assert all("image/png" in o.data for o in pictures)
    calls = sum(line.lstrip().startswith("show(") for line in script.splitlines())
    assert len(pictures) >= calls >= 2
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not list(tmp_path.iterdir())  # a notebook writes nothing

"""`downslope tune` as a user meets it, and ``--lr auto`` of `downslope fit`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import downslope as ds
from downslope import cli, cli_values
from downslope.cli_tune import EPILOG, ROWS, tune
from downslope.errors import InputError

DIABETES = Path(__file__).parents[1] / "examples" / "data" / "diabetes.csv"
QUICK = ["--target", "progression", "--epochs", "3", "--optimizer", "SGD"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=EPILOG)(tune)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "80"})


def test_what_is_printed_fits_in_80_columns():
    done = run(DIABETES, *QUICK, "--model", "mlp:4")
    assert done.exit_code == 0, done.output
    for words in ("SGD: take lr=", "validation loss", "Stable:", "Flat:", "median", "← take this"):
        assert words in " ".join(done.output.split()), words
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("none" in line or " of " in line for line in lines) <= ROWS + 10


def test_json_holds_what_tune_returns():
    done = run(DIABETES, *QUICK, "--batch-size", "16,64", "--seeds", "4", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    problem = ds.Problem.from_table(DIABETES, "progression")
    found = ds.tune(problem, torch.optim.SGD, epochs=3, batch_size=[16, 64], seed=range(4),
                    order="shuffle", progress=False)  # fmt: skip
    assert told["lr"] == found.lr and told["stable"] == list(found.stable)
    assert told["settings"]["batch_size"] == found.settings["batch_size"]
    assert told["score"] == pytest.approx(found.score)
    assert told["seeds"] == 4 and told["runs"] == len(found.runs)
    assert len(told["curve"]) == found.curve.height and told["notes"] == list(found.notes)


def test_ranges_and_lists():
    done = run(DIABETES, *QUICK, "--lr", "1e-3:1", "--set", "momentum=0,0.9", "--json")
    told = json.loads(done.stdout)
    assert 1e-3 <= told["lr"] <= 1 and told["settings"]["momentum"] in (0, 0.9)
    done = run(DIABETES, *QUICK, "--lr", "0.01", "--set", "weight_decay=1e-6:1e-2", "--seeds", "3")
    assert done.exit_code == 0 and "weight_decay=" in done.output


def test_no_stable_rate_ends_with_status_1(tmp_path):
    """A model whose loss is no number from the first step on."""
    path = tmp_path / "broken.py"
    path.write_text(
        "import torch\n"
        "class Broken(torch.nn.Module):\n"
        "    def __init__(self, inputs, outputs):\n"
        "        super().__init__()\n"
        "        self.w = torch.nn.Parameter(torch.zeros(inputs, outputs))\n"
        "    def forward(self, x):\n"
        "        return (x @ self.w).abs().sqrt() + x[:, :1]\n"
    )
    done = run(DIABETES, *QUICK, "--model", f"{path}:Broken")
    assert done.exit_code == 1, done.output
    assert "no stable rate" in done.output and "No stable rate" in done.output
    told = run(DIABETES, *QUICK, "--model", f"{path}:Broken", "--json")
    assert told.exit_code == 1 and json.loads(told.stdout)["lr"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--lr", "fast"], "--lr takes auto"),
        (["--lr", "1:0.1"], "lower to a higher"),
        (["--set", "momentum"], "NAME=VALUE"),
        (["--set", "momentum=0:a"], "NAME=LOW:HIGH"),
        (["--set", "batch_size=8"], "batch_size is set by the option --batch-size"),
        (["--set", "lr=0.1"], "the option --lr"),
        (["--set", "seed=1"], "the option --seeds"),
        (["--set", "engine=fused"], "the option --engine"),
        (["--set", "order=cyclic"], "the option --order"),
        (["--set", "epochs=5"], "the option --epochs"),
        (["--set", "optimizer=Adam"], "the option --optimizer"),
        (["--set", "problem=1"], "in Python alone"),
        (["--set", "progress=0"], "in Python alone"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--set", "momentun=0.9"], "did you mean 'momentum'"),
        (["--optimizer", "sdg"], "did you mean 'SGD'"),
        (["--task", "regresion"], "did you mean 'regression'"),
    ],
)
def test_wrong_use(arguments, words):
    done = run(DIABETES, *QUICK, *arguments)
    assert isinstance(done.exception, InputError) and words in str(done.exception)
    assert not done.output


def test_its_help_needs_no_torch():
    code = (
        "import sys, typer; from downslope.cli_tune import tune; app = typer.Typer();"
        "app.command()(tune)\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "auto" in done.stdout, done.stderr


def test_fit_takes_the_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", DIABETES, *QUICK, "--lr", "auto", "--batch-size", "16,64", "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", ["downslope", *map(str, arguments), "--json"])
    for _ in range(2):  # the second time the study is there
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
    runs = ds.load(tmp_path / "diabetes-study")
    problem = ds.Problem.from_table(DIABETES, "progression")
    for size in (16, 64):
        found = ds.tune(problem, torch.optim.SGD, epochs=3, batch_size=size, progress=False)
        assert set(runs.where(batch_size=size).table["lr"]) == {found.lr}
    assert np.isfinite(runs.score).all()


def test_words_as_values():
    assert cli_values.rates("auto") == "auto"
    assert cli_values.rates("1e-4:1") == ds.Range(1e-4, 1)
    assert cli_values.rates("0.1, 0.2") == [0.1, 0.2]
    made = cli_values.searched(["momentum=0:0.9", "weight_decay=1e-6:1", "betas=0.9/0.99"])
    assert made["momentum"] == ds.Range(0, 0.9, log=False)
    assert made["weight_decay"] == ds.Range(1e-6, 1) and made["betas"] == (0.9, 0.99)


def test_fit_prints_what_the_word_stands_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", str(DIABETES), *QUICK, "--lr", "auto", "--seeds", "2"]
    done = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    problem = ds.Problem.from_table(DIABETES, "progression")
    found = ds.tune(problem, torch.optim.SGD, epochs=3, batch_size=32, progress=False)
    told = " ".join(done.output.split())
    assert f"lr='auto' is {found.lr:.4g} for SGD with" in told
    assert all(" ".join(note.split()) in told for note in found.notes)


def test_a_name_of_an_option_ends_with_status_2(monkeypatch, capsys):
    words = ["tune", str(DIABETES), *QUICK, "--set", "batch_size=8"]
    monkeypatch.setattr(sys, "argv", ["downslope", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "--batch-size" in capsys.readouterr().err

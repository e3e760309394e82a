"""The command line as a user meets it: exit statuses, sentences, files, JSON."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest

from downslope import cli

DIABETES = Path(__file__).parents[1] / "examples" / "data" / "diabetes.csv"
QUICK = ["--lr", "0.001,0.01", "--seeds", "2", "--epochs", "5"]


@dataclass
class Done:
    stdout: str
    stderr: str


def downslope(*arguments, cwd, status=0):
    """What the command does, in this process: torch is imported once for all tests."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["downslope", *map(str, arguments)]),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    assert (ended.value.code or 0) == status, err.getvalue() + out.getvalue()
    return Done(out.getvalue(), err.getvalue())


def test_as_a_process(tmp_path):
    """The exit statuses and streams as a shell sees them."""

    def run(*arguments):
        command = [sys.executable, "-m", "downslope", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    done = run("fit", DIABETES, "--target", "progression", *QUICK)
    assert done.returncode == 0 and "plain least squares" in done.stdout and not done.stderr
    assert run("show", "diabetes-study").returncode == 0
    wrong = run("show", "none")
    assert wrong.returncode == 2 and not wrong.stdout
    assert wrong.stderr == "error: there is no study at 'none'\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A fit of the diabetes table, in a folder of its own."""
    folder = tmp_path_factory.mktemp("fit")
    arguments = [DIABETES, "--target", "progression", "--model", "mlp:4", *QUICK]
    done = downslope("fit", *arguments, "--out", "s", cwd=folder)
    return folder, done


def test_fit_prints_and_writes_what_it_promises(study):
    folder, done = study
    for words in (
        "266 rows to train, 88 to choose the run, 88 to test it",
        "bmi                number, standardised",
        "Best setting of each optimizer",
        "median validation RMSE",
        "none of 4 runs diverged",
        "plain least squares",
        "root mean squared error",
        "in units of progression",
    ):
        assert words in done.stdout
    names = {p.name for p in (folder / "s").iterdir()}
    assert {"study.json", "schema.json", "model.safetensors", "figure.png"} <= names
    assert (folder / "s" / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_scores_are_those_of_an_independent_computation(study):
    """The plain fit against scikit-learn on the same rows; the model's through `predict`."""
    from sklearn.linear_model import LinearRegression

    from downslope.tables import split_rows

    folder, _ = study
    again = ["fit", DIABETES, "--target", "progression", "--model", "mlp:4", *QUICK]
    said = json.loads(downslope(*again, "--out", "s", "--json", cwd=folder).stdout)
    frame = pl.read_csv(DIABETES)
    split = split_rows(frame.height, 0)
    X, y = frame.drop("progression").to_numpy(), frame["progression"].to_numpy()
    plain = LinearRegression().fit(X[split.train], y[split.train]).predict(X[split.test])
    rmse = np.sqrt(np.mean((plain - y[split.test]) ** 2))
    assert said["test"]["plain"]["rmse"] == pytest.approx(rmse, rel=1e-4)
    frame[split.test].drop("progression").write_csv(folder / "new.csv")
    given = downslope("predict", "s", "new.csv", "--json", cwd=folder).stdout
    predicted = np.array(json.loads(given)["predicted_progression"])
    rmse = np.sqrt(np.mean((predicted - y[split.test]) ** 2))
    assert said["test"]["chosen"]["rmse"] == pytest.approx(rmse, rel=1e-4)


def test_predict_writes_a_table(study):
    folder, _ = study
    downslope("predict", "s", DIABETES, "--out", "p.parquet", cwd=folder)
    assert pl.read_parquet(folder / "p.parquet").shape == (442, 1)
    lines = downslope("predict", "s", DIABETES, cwd=folder).stdout.splitlines()
    assert lines[0] == "predicted_progression" and len(lines) == 443


def test_show_ranks_and_speaks_json(study):
    folder, _ = study
    said = downslope("show", "s", cwd=folder).stdout
    assert "4 best of 4 settings" in said and "Adam" in said
    rows = json.loads(downslope("show", "s", "--json", cwd=folder).stdout)["runs"]
    assert len(rows) == 8 and {"run", "lr", "status", "final_validation_loss"} <= set(rows[0])


def test_diverged_runs_are_counted_with_their_rates(tmp_path):
    arguments = [DIABETES, "--target", "progression", "--optimizer", "SGD", "--lr", "0.01,1,10"]
    done = downslope(
        "fit", *arguments, "--seeds", "2", "--epochs", "30", "--out", "s", cwd=tmp_path
    )
    said = " ".join(done.stdout.split())
    assert "SGD: 4 of 6 runs diverged, at rates 1 to 10 (none up to 0.01)" in said


def test_nothing_finite_is_a_failure_that_says_so(tmp_path):
    arguments = [DIABETES, "--target", "progression", "--optimizer", "SGD", "--lr", "1000"]
    done = downslope("fit", *arguments, "--out", "s", cwd=tmp_path, status=1)
    assert "no run has a finite loss" in done.stdout
    assert not (tmp_path / "s" / "model.safetensors").exists()


def test_a_classifier(tmp_path):
    from sklearn.datasets import load_wine

    frame = load_wine(as_frame=True).frame
    frame["target"] = frame["target"].map({0: "red[bold]", 1: "white", 2: "rosé"})
    frame.to_parquet(tmp_path / "wine.parquet")
    done = downslope("fit", "wine.parquet", "--target", "target", *QUICK, cwd=tmp_path)
    assert "plain logistic regression" in done.stdout and "accuracy" in done.stdout
    done = downslope("predict", "wine-study", "wine.parquet", "--json", cwd=tmp_path)
    predicted = json.loads(done.stdout)["predicted_target"]
    assert set(predicted) <= {"red[bold]", "white", "rosé"}
    assert np.mean(np.array(predicted) == frame["target"].to_numpy()) > 0.8


def test_a_class_from_a_file(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "class Wide(nn.Sequential):\n"
        "    def __init__(self, inputs, outputs):\n"
        "        super().__init__(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))\n"
    )
    arguments = [DIABETES, "--target", "progression", "--model", "nets.py:Wide", *QUICK]
    downslope("fit", *arguments, "--out", "s", cwd=tmp_path)
    done = downslope("predict", "s", DIABETES, cwd=tmp_path, status=2)
    assert "--model file.py:ClassName" in done.stderr
    downslope("predict", "s", DIABETES, "--model", "nets.py:Wide", cwd=tmp_path)
    wrong = downslope("predict", "s", DIABETES, "--model", "mlp:3", cwd=tmp_path, status=2)
    assert "other parameters" in wrong.stderr


GOOD = "a,b,price\n" + "".join(f"{i},{i * i % 7},{3 * i + 1}\n" for i in range(20))

BAD_TABLES = {
    "empty": ("", "empty"),
    "header_only": ("a,b,price\n", "row"),
    "one_row": ("a,b,price\n1,2,3\n", "row"),
    "text_target": (GOOD + "1,2,dear\n", "dear"),
    "all_missing": ("a,b,price\n" + "".join(f"{i},,{i}\n" for i in range(9)), "'b'"),
    "duplicates": (GOOD.replace("a,b", "a,a", 1), "'a'"),
    "ragged": (GOOD + "1,2\n", "line 22"),
}

BAD_OPTIONS = {
    "unknown_target": (["--target", "prize"], "did you mean 'price'?"),
    "unknown_model": (["--model", "mpl:3"], "did you mean 'mlp'?"),
    "bad_width": (["--model", "mlp:x"], "'x'"),
    "unknown_optimizer": (["--optimizer", "Adan"], "did you mean 'Adam'?"),
    "unknown_loss": (["--loss", "mso"], "did you mean 'mse'?"),
    "unknown_hyperparameter": (["--optimizer", "SGD", "--set", "momentun=1"], "'momentum'"),
    "not_all_have_it": (["--set", "momentum=0.9"], "Adam has no hyperparameter 'momentum'"),
    "negative_lr": (["--lr=-0.1"], "lr=-0.1"),
    "no_lr": (["--lr", ","], "empty list"),
    "lr_form": (["--lr", "1:2"], "LOW:HIGH:COUNT"),
    "too_many": (["--lr", "1e-4:1:200000", "--batch-size", "1,2,3,4,5,6,7,8,9,10"], "12,000,000"),
    "no_such_engine": (["--engine", "staked"], "did you mean 'stacked'?"),
    "bad_missing": (["--missing", "men"], "did you mean 'mean'?"),
    "bad_batch": (["--batch-size", "0"], "batch_size"),
    "bad_epochs": (["--epochs=-1"], "epochs"),
    "bad_seeds": (["--seeds", "0"], "--seeds"),
}


def _refused(done, words):
    assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables(tmp_path, name):
    text, words = BAD_TABLES[name]
    (tmp_path / "t.csv").write_text(text)
    done = downslope("fit", "t.csv", "--target", "price", cwd=tmp_path, status=2)
    _refused(done, words)
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(tmp_path, name):
    options, words = BAD_OPTIONS[name]
    (tmp_path / "t.csv").write_text(GOOD)
    target = [] if "--target" in options else ["--target", "price"]
    done = downslope("fit", "t.csv", *target, *options, cwd=tmp_path, status=2)
    _refused(done, words)
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_other_wrong_uses(study, tmp_path):
    folder, _ = study
    _refused(downslope("fit", "none.csv", "--target", "y", cwd=tmp_path, status=2), "none.csv")
    _refused(downslope("show", "none", cwd=tmp_path, status=2), "no study")
    _refused(downslope("gallery", "lime", cwd=tmp_path, status=2), "did you mean 'line'?")
    other = [DIABETES, "--target", "progression", "--model", "linear", *QUICK, "--out", "s"]
    _refused(downslope("fit", *other, cwd=folder, status=2), "parameters' names, shapes")
    pl.read_csv(DIABETES).drop("bmi").write_csv(tmp_path / "n.csv")
    lacking = downslope("predict", folder / "s", "n.csv", cwd=tmp_path, status=2)
    _refused(lacking, "'bmi'")
    assert downslope("fit", cwd=tmp_path, status=2).stderr.startswith("Usage")


def test_lr_zero_is_allowed_as_in_torch(tmp_path):
    (tmp_path / "t.csv").write_text(GOOD)
    options = ["--lr", "0", "--optimizer", "SGD", "--epochs", "1", "--seeds", "1"]
    downslope("fit", "t.csv", "--target", "price", *options, cwd=tmp_path)


def test_an_interrupted_fit_goes_on_with_the_same_command(tmp_path):
    arguments = [DIABETES, "--target", "progression", "--model", "mlp:8", "--engine", "looped"]
    arguments += ["--optimizer", "SGD", "--lr", "1e-4:0.1:20", "--seeds", "4", "--epochs", "40"]
    command = [sys.executable, "-m", "downslope", "fit", *map(str, arguments), "--out", "s"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("s/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "were not carried out" in said
    kept = len(list(tmp_path.glob("s/*.parquet")))
    assert 0 < kept < 5
    said = downslope("fit", *arguments, "--out", "s", cwd=tmp_path).stdout
    assert "80 runs" in said


def test_help_needs_no_torch():
    code = (
        "import sys; import downslope.cli; sys.exit(bool({'torch', 'llvmlite'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_cache_is_shown_and_cleared(tmp_path, monkeypatch):
    from downslope.engines.fused import cache

    monkeypatch.setenv("DOWNSLOPE_CACHE", str(tmp_path / "programs"))
    cache.write(cache.Entry.of("a program"), b"x" * 2**20)
    (tmp_path / "programs" / "mine.txt").write_text("kept")
    shown = downslope("cache", cwd=tmp_path).stdout
    assert str(tmp_path / "programs") in shown and "1.0 of 256 MiB" in shown
    found = json.loads(downslope("cache", "--json", cwd=tmp_path).stdout)
    assert found["folder"] == str(tmp_path / "programs") and found["programs"] == 1
    assert 2**20 < found["bytes"] < 2**20 + 200 and found["limit_bytes"] == 256 * 2**20
    assert "1 files removed, 1.0 MiB" in downslope("cache", "--clear", cwd=tmp_path).stdout
    found = json.loads(downslope("cache", "--clear", "--json", cwd=tmp_path).stdout)
    assert found["programs"] == 0 and found["removed"] == {"files": 0, "bytes": 0}
    assert [path.name for path in (tmp_path / "programs").iterdir()] == ["mine.txt"]

    monkeypatch.setenv("DOWNSLOPE_CACHE_LIMIT", "much")
    _refused(downslope("cache", cwd=tmp_path, status=2), "'much'")
    monkeypatch.setenv("DOWNSLOPE_CACHE", "off")
    monkeypatch.delenv("DOWNSLOPE_CACHE_LIMIT")
    assert "not kept" in downslope("cache", cwd=tmp_path).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no modes there")
def test_cache_says_why_a_folder_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("DOWNSLOPE_CACHE", str(tmp_path / "open"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "others can write" in downslope("cache", cwd=tmp_path).stdout
    assert "others can write" in downslope("cache", "--clear", cwd=tmp_path, status=1).stderr


def test_every_command_has_help_with_an_example(tmp_path):
    for command in ("fit", "predict", "show", "gallery", "cache"):
        assert "Example: downslope" in downslope(command, "--help", cwd=tmp_path).stdout

"""`downslope compare` as a user meets it: exit statuses, sentences, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from downslope import cli_compare
from downslope.errors import InputError

DIABETES = Path(__file__).parents[1] / "examples" / "data" / "diabetes.csv"
QUICK = ["--budget", "3", "--steps", "20", "--seeds", "6"]

app = typer.Typer(pretty_exceptions_enable=False)
app.command(epilog=cli_compare.EPILOG)(cli_compare.compare)


def compare(*arguments, status=0):
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=status == 2)
    if status == 2 and done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, InputError), repr(done.exception)
        return str(done.exception)
    assert done.exit_code == status, done.output
    return done.stdout


def test_the_report(tmp_path):
    out = compare("--problem", "booth", "--problem", "wine", "--optimizer", "sgd,momentum", *QUICK)
    assert max(map(len, out.splitlines())) <= 80
    for words in ("booth", "wine", "SGD", "momentum", "Summary", "Conditions", "3 trials"):
        assert words in out


def test_json_twice_is_the_same():
    arguments = ["--problem", "quadratic-10", "--optimizer", "sgd", "--optimizer", "adam", *QUICK,
                 "--json"]  # fmt: skip
    first = compare(*arguments)
    found = json.loads(first)
    assert compare(*arguments) == first
    assert [row["optimizer"] for row in found["table"]] == ["SGD", "Adam"]
    assert len(found["results"]) == 2 * 2 * 6 and found["sentences"] and found["conditions"]
    assert found["table"][0]["n"] == 6


def test_ten_problems_by_default():
    found = json.loads(compare("--optimizer", "sgd", "--budget", 1, "--seeds", 2, "--steps", 2,
                               "--json"))  # fmt: skip
    assert len({row["problem"] for row in found["table"]}) == 10


def test_a_table():
    asked = ["--table", DIABETES, "--target", "progression", "--optimizer", "adam"]
    found = json.loads(compare(*asked, "--epochs", 2, "--budget", 2, "--seeds", 6, "--json"))
    assert found["table"][0]["problem"] == "diabetes.csv"
    assert any("validation loss" in note for note in found["notes"])


def test_rates_and_baseline():
    found = json.loads(compare("--problem", "booth", "--optimizer", "sgd,adam", "--lr", "0.01:0.1",
                               "--baseline", "adam", *QUICK, "--json"))  # fmt: skip
    assert all(0.01 <= row["lr"] <= 0.1 for row in found["sensitivity"])
    assert {row["baseline"] for row in found["targets"]} == {"Adam"}


def test_the_list():
    assert "rosenbrock" in compare("--list") and "* wine" in compare("--list")
    assert max(map(len, compare("--list").splitlines())) <= 80
    assert json.loads(compare("--list", "--json"))["booth"]["optimum"] == 0


def test_nothing_finite_is_a_failure():
    out = compare("--problem", "wood", "--optimizer", "sgd", "--lr", "1e3:1e4", *QUICK, status=1)
    assert "diverged in 6 of 6 runs" in out.replace("\n", " ").replace("  ", " ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--problem", "boot"], "did you mean 'booth'"),
        (["--optimizer", "sdg"], "did you mean 'SGD'"),
        (["--table", "houses.csv"], "--table and --target go together"),
        (["--lr", "fast"], "--lr takes LOW:HIGH"),
        (["--lr", "1:0.1"], "from a lower to a higher"),
        (["--problem", "booth", "--problem", "booth"], "given twice"),
        (["--problem", "booth", "--epochs", "2", "--steps", "3"], "one of them"),
        (["--problem", "wine", "--batch-size", "many"], "batch_size must be"),
    ],
)
def test_wrong_use(arguments, said):
    assert said in compare(*arguments, status=2)


def test_help_names_an_example():
    assert "downslope compare" in compare("--help")


def test_nothing_heavy_is_imported_beforehand():
    code = (
        "import sys, downslope.cli_compare\n"
        "print([name for name in ('torch', 'polars', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

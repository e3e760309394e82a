"""Findings: runs of known verdict, the line tutorial, what may not be claimed or changed."""

import json

import known_runs
import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional

import downslope as ds
from downslope.explain.english import SENTENCES
from downslope.explain.findings import VERDICTS, Advice, Finding
from downslope.explain.words import say


@pytest.mark.parametrize("most", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_known_verdicts(most, capsys):
    """All that is said of runs of known verdict, in one test: to explain the whole set takes two
    minutes, so that by default one run of each rule is looked at."""
    every = known_runs.all_cases()
    assert len(every) >= 200
    found, held = [], []
    for runs, cases in known_runs.together(known_runs.first_of_each_rule(every, most)):
        for case, finding in zip(cases, runs.explain(), strict=True):
            found.append((case, finding))
            if finding.advice is not None and finding.confidence != "unknown":
                held.append(finding.try_it().held)
    pairs = [((c.verdict, c.cause), (f.verdict, f.cause)) for c, f in found]
    with capsys.disabled():
        print("\n" + known_runs.confusion(pairs))
        print(f"advice followed: {sum(held)} of {len(held)} held")
    assert np.mean([true == judged for true, judged in pairs]) >= 0.95
    # Every verdict that can be constructed is there.
    assert {case.verdict for case, _ in found} == set(VERDICTS) - {"unknown"}
    assert len(held) > 0.5 * len(found) and np.mean(held) >= 0.9
    for case, finding in found:
        if finding.confidence == "certain":
            assert (case.verdict, case.cause) == (finding.verdict, finding.cause), finding.sentence
        check_whole(case, finding)


def check_whole(case, finding):
    """A finding that can be read: nothing is left open in it, and nothing claimed without cause."""
    assert finding.verdict in VERDICTS
    assert finding.confidence in ("certain", "likely", "unknown")
    assert "{" not in finding.sentence and finding.sentence.endswith((".", "!"))
    assert "nan" not in finding.sentence.lower() or case.name == "not finite", finding.sentence
    assert all(isinstance(e.where, str) and e.where for e in finding.evidence.values())
    if finding.cause == "unknown":
        assert finding.confidence == "unknown"


# -- the line tutorial -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def line():
    rng = np.random.default_rng(0)
    X = np.arange(-50, 50) / 10
    y = -5 * X + 0.4 * rng.normal(size=100)
    start = {"w": torch.tensor(-10.0, dtype=torch.float64),
             "b": torch.tensor(-20.0, dtype=torch.float64)}  # fmt: skip
    return ds.Problem.from_function(
        lambda x, w, b: w * x + b, X=X, y=y, loss=nn.MSELoss(), start=start
    )


@pytest.mark.parametrize(
    ("settings", "verdict", "cause", "numbers"),
    [
        ({"lr": 0.1}, "converging", "budget-too-short", {}),
        ({"lr": 0.119}, "ringing", "rate-near-threshold", {"factor of an update": -0.98381}),
        ({"lr": 0.121}, "diverged", "rate-above-threshold", {"threshold": 0.119971}),
        ({"lr": 0.01, "batch_size": 1, "order": "cyclic"}, "noise-floor", "gradient-noise", {}),
        ({"lr": 0.01, "batch_size": 1}, "noise-floor", "gradient-noise", {}),
        ({"lr": 0.05, "batch_size": 1, "order": "cyclic"}, "noise-floor", "gradient-noise",
         {"gain within an epoch": 6.3}),
        ({"lr": 0.05, "batch_size": 1}, "noise-floor", "gradient-noise", {}),
        ({"lr": 0.1, "batch_size": 1, "order": "cyclic"}, "diverged", "fixed-order-amplification",
         {"gain within an epoch": 3.018e7, "largest curvature of a sample": 52,
          "safe in every order": 0.03846}),
        ({"lr": 0.1, "batch_size": 1}, "diverged", "rate-above-sample-threshold",
         {"mean-square threshold": 0.064183, "full batch's threshold": 0.119971}),
    ],
)  # fmt: skip
def test_line(line, settings, verdict, cause, numbers):
    runs = ds.descend(line, optim.SGD, epochs=20, progress=False, **settings)
    finding = ds.explain(runs[0])
    assert (finding.verdict, finding.cause) == (verdict, cause), finding.sentence
    for name, value in numbers.items():
        assert finding.evidence[name].value == pytest.approx(value, rel=1e-2)
    if finding.advice is not None:
        assert finding.try_it().held


def test_line_in_words(line):
    runs = ds.descend(line, optim.SGD, lr=0.1, batch_size=1, order="cyclic", epochs=20,
                      progress=False)  # fmt: skip
    sentence = runs.explain()[0].sentence
    for words in (
        "Diverged at step 10.",
        "Sample 0 (x = \N{MINUS SIGN}5) alone bends the loss by 52",
        "certain to be safe below 0.03846",
        "Full batches are stable up to 0.12",
        "the rate was 0.1",
        "Try lr = 0.01923.",
    ):
        assert words in sentence


def test_line_without_a_limit(line):
    """With ``divergence=None`` the stored order comes to a bounded plateau of enormous losses."""
    runs = ds.descend(line, optim.SGD, lr=0.1, batch_size=1, order="cyclic", epochs=20,
                      divergence=None, progress=False)  # fmt: skip
    assert runs.status[0] == 0
    finding = runs.explain()[0]
    assert (finding.verdict, finding.cause) == ("diverged", "fixed-order-amplification")


# -- what may not be claimed -----------------------------------------------------------------------


def test_without_a_problem(line, tmp_path):
    runs = ds.descend(line, optim.SGD, lr=[0.1, 0.2], epochs=40, divergence=1e3, progress=False)
    runs.save(tmp_path / "study")
    alone = ds.load(tmp_path / "study").explain()
    assert [f.verdict for f in alone] == ["unknown", "diverged"]
    for finding in alone:
        assert finding.cause == "unknown" and finding.advice is None
        assert "loaded without their problem" in finding.sentence
        with pytest.raises(ds.DownslopeError, match="no advice"):
            finding.try_it()
    whole = ds.load(tmp_path / "study", problem=line).explain()
    assert [f.cause for f in whole] == [f.cause for f in runs.explain()]


def test_random_losses():
    """A loss that differs from call to call is seen, whoever draws; nothing is claimed then."""
    generator = np.random.default_rng(0)

    def noisy(x):
        return (x - 2) ** 2 + 0.1 * float(generator.normal())

    problem = ds.Problem.from_function(noisy, start=5.0)
    runs = ds.descend(problem, optim.SGD, lr=0.1, steps=30, engine="looped", progress=False)
    finding = runs.explain()[0]
    assert (finding.verdict, finding.cause) == ("unknown", "random-loss")
    assert "random from call to call" in finding.sentence and finding.advice is None

    X, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.ones(20, 1)
    always = ds.Problem.from_model(
        nn.Linear(3, 1),
        X,
        y,
        objective=lambda m, x, y: ((functional.dropout(m(x)) - y) ** 2).mean(),
    )
    before = torch.get_rng_state()
    runs = ds.descend(always, optim.SGD, lr=0.1, steps=30, progress=False)
    assert runs.explain()[0].cause == "random-loss"
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_is_changed(line):
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))
    kept = {n: v.clone() for n, v in model.state_dict().items()}
    X = torch.linspace(-1, 1, 20)[:, None]
    problem = ds.Problem.from_model(model, X, X**2, loss=nn.MSELoss())
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    runs = ds.descend(problem, optim.SGD, lr=[0.01, 100.0], steps=40, progress=False)
    loss, steps = runs.loss.copy(), runs.steps.copy()
    findings = runs.explain()
    assert len(findings) == 2 and all(isinstance(f, Finding) for f in findings)
    assert np.array_equal(loss, runs.loss, equal_nan=True) and np.array_equal(steps, runs.steps)
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[name])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])


def test_wrong_use(line):
    with pytest.raises(ds.InputError, match="takes a Run or Runs"):
        ds.explain(3)
    runs = ds.descend(line, optim.SGD, lr=0.1, steps=0, progress=False)
    assert runs.explain()[0].verdict == "unknown"
    assert runs.where(lr=7.0).explain() == []
    with pytest.raises(ds.InputError, match="keep="):
        runs.curvature()
    many = ds.descend(line, optim.SGD, lr=[0.1], seed=range(20_001), steps=1, progress=False)
    with pytest.raises(ds.InputError, match="20,000 runs at once"):
        many.explain()


def test_only_the_user_can_follow():
    finding = Finding(0, "unknown", "unknown", "…", {}, "likely", Advice({}, "stable", "Mend it."))
    with pytest.raises(ds.DownslopeError, match="only you can follow"):
        finding.try_it()


# -- other optimizers ------------------------------------------------------------------------------


def test_edge_of_stability_of_adam_and_rmsprop():
    """Cohen et al. 2022: the preconditioned curvature comes to 38 / η and 2 / η, whatever η."""
    x = torch.linspace(-1, 1, 30)[:, None]
    y = torch.sign(torch.sin(4 * x))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    problem = ds.Problem.from_model(net, x, y, loss=nn.MSELoss())
    runs = ds.descend(
        problem,
        [ds.Grid(optim.Adam, lr=[0.01, 0.1]), ds.Grid(optim.RMSprop, lr=[0.001, 0.01])],
        steps=4000,
        progress=False,
    )
    for run, finding, limit in zip(runs, runs.explain(), (38, 38, 2, 2), strict=True):
        assert finding.verdict == "edge-of-stability", finding.sentence
        expected = limit / run.row["lr"]
        assert finding.evidence["curvature"].value == pytest.approx(expected, rel=0.15)


def test_curvature_along(line):
    runs = ds.descend(line, optim.SGD, lr=[0.05, 0.3], steps=40, every=5, divergence=1e4,
                      keep=("loss", "parameters"), progress=False)  # fmt: skip
    table = runs.curvature(places=3)
    assert table.height == 6 and table["run"].to_list() == [0, 0, 0, 1, 1, 1]
    hessian = np.linalg.eigvalsh([[16.67, -0.1], [-0.1, 2.0]])
    assert np.allclose(table["largest_curvature"], hessian[1], rtol=1e-9)
    assert np.allclose(table["least_curvature"], hessian[0], rtol=1e-9)
    assert table["step"].to_list()[:3] == [0, 20, 40]
    assert table["step"].to_list()[5] == int(runs.first_bad_step[1]) - 1  # the last good one
    assert table["loss"][0] == pytest.approx(float(runs.loss[0, 0]))


# -- the catalogue ---------------------------------------------------------------------------------


def test_catalogue():
    assert say("advice.lr", lr=-0.25) == "Try lr = \N{MINUS SIGN}0.25."
    with pytest.raises(ds.InputError, match="language must be one of"):
        say("advice.lr", "xx", lr=1.0)
    for verdict in VERDICTS:
        assert verdict in SENTENCES


def test_command_line(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from downslope.cli import app

    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{i / 10},{3 * i / 10 + (i % 3) / 10}" for i in range(60))
    (tmp_path / "t.csv").write_text("a,b\n" + rows + "\n")
    runner = CliRunner()
    words = "fit t.csv --target b --lr 0.01,0.1,10 --optimizer sgd --seeds 1 --epochs 15"
    fit = runner.invoke(app, [*words.split(), "--out", "study"])
    assert fit.exit_code == 0, fit.output
    assert "the best run" in fit.output and "an instructive failure" in fit.output
    assert "Diverged at step" in " ".join(fit.output.split())
    one = runner.invoke(app, ["explain", "study", "--run", "2", "--try", "--json"])
    found = json.loads(one.output)
    assert found["without_problem"] is None
    assert found["findings"][0]["verdict"] == "diverged"
    assert found["findings"][0]["trial"]["held"]
    (tmp_path / "t.csv").rename(tmp_path / "elsewhere.csv")
    blind = runner.invoke(app, ["explain", "study"])
    assert blind.exit_code == 0 and "--table" in blind.output + blind.stderr
    seeing = runner.invoke(app, ["explain", "study", "--table", "elsewhere.csv", "--all"])
    assert "as asked" in seeing.output

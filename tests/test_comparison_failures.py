"""A broken optimizer, failures and warnings are told as they are; wrong use is one sentence."""

from dataclasses import replace
from io import StringIO
from math import inf

import numpy as np
import polars as pl
import pytest
import torch
from comparisons import QUICK, Broken, Plain
from rich.cells import cell_len
from rich.console import Console
from torch import nn, optim

import downslope as ds
from downslope.low_discrepancy import spread
from downslope.search_spaces import space_of, spaces_of
from downslope.views import comparison_tables
from downslope.views.comparison_curves import rate_curves


@pytest.fixture(scope="module")
def broken():
    problems = ["booth", "matyas", "quadratic-10", "powell-singular"]
    return ds.compare(problems, [Plain, Broken], seeds=6, **{**QUICK, "budget": 4})


def test_a_broken_optimizer_is_reported_as_it_is(broken):
    bad = {"quadratic-10", "powell-singular"}
    for row in broken.table.filter(pl.col("optimizer") == "Broken").to_dicts():
        if row["problem"] in bad:
            assert row["diverged"] == 6 and row["median"] == inf and row["place"] == 2
            assert row["reached"] == 0 and row["steps_to_target"] is None
            assert row["first_bad_step"] >= 1
        else:
            assert row["diverged"] == 0 and np.isfinite(row["median"])
    lost = broken.results.filter((pl.col("optimizer") == "Broken") & pl.col("problem").is_in(bad))
    assert lost.height == 2 * 2 * 6, "nothing is dropped"
    assert (lost["status"] == "diverged").all() and lost["final_loss"].null_count() == lost.height
    assert lost["first_bad_step"].null_count() == 0
    won = broken.wins.filter((pl.col("optimizer") == "Plain") & pl.col("problem").is_in(bad))
    assert (won["share"] == 1).all()
    last = broken.profiles.filter((pl.col("optimizer") == "Broken") & (pl.col("share") == 0.99))
    assert last["problems"].max() <= 0.5
    kinds = broken.failures.filter(pl.col("optimizer") == "Broken")
    assert sorted(kinds["kind"].unique()) == ["default", "trials", "tuned"]
    summary = broken.summary()
    assert "Broken (tuned) diverged in 12 of 24 runs, on 2 of 4 problems" in summary
    assert "Plain (tuned) diverged" not in summary
    assert "Broken: every trial diverged on a tuning seed on quadratic-10" in summary
    assert "went through torch.optim itself" in summary
    assert "∞" in str(broken) and "never" in str(broken)


def test_a_broken_baseline_passes_the_targets_on():
    found = ds.compare("quadratic-10", [Broken, Plain], seeds=6, **{**QUICK, "budget": 4})
    assert found.targets["baseline"].unique().to_list() == ["Plain"]
    assert any("Broken made no progress" in note for note in found.notes)
    alone = ds.compare("quadratic-10", Broken, seeds=6, **{**QUICK, "budget": 2})
    assert alone.targets["target"].null_count() == alone.targets.height
    assert any("there is no target" in note for note in alone.notes)
    assert (alone.profiles["problems"] == 0).all()


def test_the_edge_of_a_space_is_a_warning():
    low = ds.Space(optim.SGD, lr=ds.Range(1e-6, 1e-5))
    found = ds.compare("quadratic-10", low, **QUICK)
    edge = max(trial["lr"] for trial in low.trials(6, 0))
    assert found.table["lr"].to_list() == [edge]
    assert any("edge" in note and f"lr = {edge:.4g}, the highest of 6" in note
               for note in found.notes)  # fmt: skip
    wide = ds.compare("quadratic-10", ds.Space(optim.SGD, lr=ds.log_range(1e-6, 1e6, 9)), budget=40,
                      steps=40, progress=False)  # fmt: skip
    assert not any("edge" in note for note in wide.notes)


def test_a_lucky_choice_is_said():
    """On a parabola the loss after one step grows with the start: choose near, report far."""
    far = ds.problems.make("matyas", drawn=True)
    losses = {seed: float(far.fresh(seed)().detach()) for seed in range(40)}
    ordered = sorted(losses, key=losses.get)
    one = ds.Space(optim.SGD, lr=[1e-9])
    found = ds.compare({"m": far}, one, budget=1, steps=1, tuning_seeds=ordered[:3],
                       seeds=ordered[3:13], progress=False)  # fmt: skip
    assert any("on m the chosen setting's median is higher" in note for note in found.notes)
    found = ds.compare({"m": far}, one, budget=1, steps=1, tuning_seeds=ordered[-3:],
                       seeds=ordered[3:13], progress=False)  # fmt: skip
    assert not any("lucky" in note for note in found.notes)


def test_a_problem_without_randomness_is_one_run():
    problem = ds.Problem.from_function(lambda x: (x**2).sum(), start=[1.0, 2.0])
    found = ds.compare({"bowl": problem}, ["sgd", "adam"], **QUICK)
    assert found.table["n"].to_list() == [1, 1] and found.table["place"].to_list() == [None, None]
    assert any("bowl the seed changes nothing" in note for note in found.notes)
    assert "no claim" in found.sentences[0] and "on 0 of 1 problem" in found.sentences[0]


def test_few_seeds_are_said_and_nothing_is_claimed():
    found = ds.compare("booth", ["sgd", "adam"], seeds=4, **QUICK)
    assert any("n = 4 fresh seeds are few" in note for note in found.notes)
    assert "there is no interval: no claim" in found.sentences[0]
    assert found.table["coverage"].is_nan().all()


def test_a_claim_is_made_where_intervals_are_apart():
    slow = ds.Space(optim.SGD, lr=ds.Range(1e-7, 1e-6), label="crawl")
    found = ds.compare(["booth", "matyas"], [slow, "sgd"], **QUICK)
    assert found.sentences[0].startswith("SGD's median is lower than crawl's on 2 of 2 problems")
    same = ds.Space(optim.SGD, label="twin")
    found = ds.compare(["booth", "matyas"], ["sgd", same], **QUICK)
    assert (
        "on 0 of 2 problems, higher on 0; on 2 the intervals overlap: no claim"
        in found.sentences[0]
    )
    assert (found.wins["ties"] == found.wins["n"]).all()


def test_epochs_validation_clipping_and_schedule():
    torch.manual_seed(0)
    X = torch.randn(60, 3)
    problem = ds.Problem.from_model(
        lambda: nn.Linear(3, 1), X, X.sum(1, keepdim=True), loss=nn.MSELoss()
    )
    halving = ds.Schedule(optim.lr_scheduler.StepLR, step_size=2)
    asked = {"epochs": 4, "batch_size": 16, "validation": 0.25, "clip_norm": 1.0,
             "schedule": halving, "progress": False}  # fmt: skip
    found = ds.compare([problem], ["sgd", "adam"], budget=5, **asked)
    assert found.table["problem"].to_list() == ["problem", "problem"]
    assert any("validation loss is compared" in note for note in found.notes)
    assert any("longer than 1; schedule: Schedule(StepLR" in line for line in found.conditions)
    row = found.results.filter(pl.col("optimizer") == "Adam").row(0, named=True)
    run = ds.descend(problem, "Adam", lr=row["lr"], seed=row["seed"], **asked)
    final = run.table["final_validation_loss"][0]
    assert row["final_loss"] == pytest.approx(final, rel=1e-5)
    assert found.targets["every"][0] == 1


def test_global_state_and_model_are_left_alone():
    net = nn.Linear(2, 1)
    before = {n: p.clone() for n, p in net.state_dict().items()}
    X = torch.ones(8, 2)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    problem = ds.Problem.from_model(net, X, X[:, :1], loss=nn.MSELoss())
    ds.compare(problem, "sgd", seeds=6, **QUICK)
    assert all(torch.equal(before[n], p) for n, p in net.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()


def test_a_loader_dropout_and_no_default():
    """What runs through torch.optim itself, in the user's own way: works, and is said."""

    class Needs(Plain):
        def __init__(self, params, lr):
            super().__init__(params, lr)

    torch.manual_seed(0)
    X = torch.randn(24, 3)
    rows = torch.utils.data.TensorDataset(X, X.sum(1, keepdim=True))
    loader = torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True)
    drop = ds.Problem.from_model(
        lambda: nn.Sequential(nn.Dropout(0.1), nn.Linear(3, 1)), loader, loss=nn.MSELoss()
    )
    found = ds.compare({"drop": drop}, [Needs, "sgd"], epochs=2, budget=3, seeds=6, progress=False)
    assert found.results.filter(pl.col("optimizer") == "Needs")["setting"].unique().to_list() == [
        "tuned"
    ]
    assert any("Needs has no default setting" in note for note in found.notes)
    assert any("Needs went through torch.optim itself" in note for note in found.notes)
    again = ds.compare({"drop": drop}, [Needs, "sgd"], epochs=2, budget=3, seeds=6, progress=False)
    assert again.results.equals(found.results)


def test_an_interruption_ends_it(monkeypatch):
    def interrupted(*arguments, **options):
        return replace(ds.descend(*arguments, **options), interrupted=3)

    monkeypatch.setattr("downslope.comparing.runs.descend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ds.compare("booth", "sgd", **QUICK)


def test_rate_curves_by_hand():
    frame = pl.DataFrame(
        {"problem": "p", "optimizer": "o", "lr": [3.0, 1.0, 2.0, 4.0, 5.0],
         "median": [1001.0, 1.001, 1.0, 2.0, inf], "diverged": [0, 0, 0, 1, 3],
         "chosen": [False, False, True, False, False]}
    )  # fmt: skip
    assert rate_curves(frame) == [("p", [("o", 1.0, "▁▁█××", 5.0)])]
    frame = frame.with_columns(median=pl.Series([1001.0, 2.0, 1.0, 2.0, inf]))
    assert rate_curves(frame) == [("p", [("o", 1.0, "▅▁█××", 5.0)])]
    many = pl.DataFrame({"problem": "p", "optimizer": "o", "lr": np.arange(1.0, 201),
                         "median": np.arange(1.0, 201), "diverged": 0,
                         "chosen": np.arange(200) == 0})  # fmt: skip
    _, low, line, high = rate_curves(many)[0][1][0]
    assert (low, high, len(line)) == (1.0, 200.0, 48)
    assert line[0] == "▁" and line[-1] == "█" and sorted(line) == list(line)
    some = many.with_columns(diverged=pl.Series([int(k in (51, 101)) for k in range(200)]),
                             chosen=pl.Series([k == 100 for k in range(200)]))  # fmt: skip
    line = rate_curves(some, 10)[0][1][0][2]
    assert [k for k, mark in enumerate(line) if mark == "×"] == [2], "the chosen one goes before"


def test_bands_count_what_diverged(broken):
    band = broken.bands.filter(
        (pl.col("problem") == "quadratic-10") & (pl.col("optimizer") == "Broken")
    )
    assert band["diverged"].to_list() == sorted(band["diverged"]) and band["diverged"][-1] == 6
    assert np.isfinite(band["median"][0]) and band["median"][-1] == inf


def test_the_text_shows_budgets_rates_and_all_that_was_chosen():
    space = ds.Space("sgd", momentum=[0.0, 0.9])
    found = ds.compare("quadratic-10", [space, "adam"], **QUICK)
    text = str(found)
    assert f"chosen for SGD: lr={found.table['lr'][0]:.6g}, momentum=" in text
    assert "chosen for Adam" not in text
    lines = text.splitlines()
    at = lines.index("Expected best against budget")
    assert lines[at + 1].split() == ["trials", "1", "2", "4", "6"]
    best = found.expected_best.filter(pl.col("optimizer") == "SGD")["median"].to_list()
    assert lines[at + 3].split() == ["SGD", *(f"{best[k - 1]:.2g}" for k in (1, 2, 4, 6))]
    curve = lines[lines.index("Rate curves") + 2].split()
    rates = [trial["lr"] for trial in space.trials(6, 0)]
    assert (curve[1], curve[3]) == (f"{min(rates):.1g}", f"{max(rates):.1g}")


@pytest.mark.parametrize("width", [50, 80, 120])
def test_wide_characters_and_long_names_stay_in_their_columns(width):
    labels = ["随机梯度下降法很长的名字啊", "a very long label of an optimizer indeed"]
    spaces = [ds.Space("sgd", label=labels[0]), ds.Space("adam", label=labels[1])]
    named = {"一个很长的中文名字的问题" * 6: ds.problems.make("booth", drawn=True), "x" * 130: BOWL}
    found = ds.compare(named, spaces, **QUICK)
    written = StringIO()
    comparison_tables.print_comparison(
        found.table, found.sensitivity, found.expected_best, found.sentences, found.notes,
        found.conditions, Console(file=written, width=width, color_system=None),
    )  # fmt: skip
    lines = written.getvalue().splitlines()
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    if width > 50:
        assert any(line.startswith(("1 随机", "2 随机", "– 随机")) for line in lines)
    assert any(line.startswith("xxx") and line.rstrip().endswith("…") for line in lines)
    if width == 50:
        rows = " ".join(" ".join(lines).split())
        assert "1 随机梯度下降法" in rows or "– 随机梯度下降法" in rows
        assert "median" in rows and "div. 0/10" in rows


def test_losses_near_zero_are_told_apart_by_their_ratio():
    """float32, losses of 1e6 at the start and 1e-8 or 1e-6 at the end: seventy times apart."""
    torch.manual_seed(1)
    X = torch.randn(200, 5)
    problem = ds.Problem.from_model(
        lambda: nn.Linear(5, 1), X, 1000 * X @ torch.randn(5, 1), loss=nn.MSELoss()
    )
    heavy = ds.Space("sgd", label="heavy", momentum=0.5)
    found = ds.compare(problem, ["sgd", heavy], steps=40, budget=16, progress=False)
    rows = found.table.sort("median").to_dicts()
    assert rows[1]["low"] > 5 * rows[0]["high"] and [row["place"] for row in rows] == [1, 2]
    assert any("resolution, 1e-06 of the larger loss" in line for line in found.conditions)


def test_a_difference_in_the_last_digits_is_none():
    found = ds.compare("styblinski-tang", ["sgd", "momentum"], budget=16, progress=False)
    medians = found.table["median"].to_list()
    assert 0 < abs(medians[0] - medians[1]) < 1e-9 and found.table["place"].to_list() == [1, 1]
    assert "equal within resolution" in found.sentences[0]
    assert (found.wins["ties"] == found.wins["n"]).all()
    assert any("1e-06 of the way from the start" in line for line in found.conditions)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_few_trials_cover_the_space(seed):
    """The first b^j of the draws lie one in each of b^j equal parts, in one dimension and in two;
    more draws only add to fewer, and are another seed's others."""
    for place, base in enumerate((2, 3, 5)):
        for size in (base, base**2, base**3):
            drawn = spread(size, place, seed)
            assert sorted(int(size * one) for one in drawn) == list(range(size))
            assert drawn == spread(1000, place, seed)[:size] != spread(size, place, seed + 1)
    first, second = (np.array(spread(72, place, seed)) for place in (0, 1))
    cells = 9 * (8 * first).astype(int) + (9 * second).astype(int)
    assert sorted(cells) == list(range(72))
    for budget in range(4, 9):
        rates = np.log10([t["lr"] for t in space_of("sgd").trials(budget, seed)])
        gaps = np.diff(sorted([-5, *rates, 1]))
        assert gaps.max() <= 2 * 6 / 4, "no more than two of the first four quarters"


def test_a_schedule_that_sets_the_rate_leaves_nothing_to_tune():
    schedule = ds.Schedule(optim.lr_scheduler.OneCycleLR, per="step", max_lr=0.1)
    found = ds.compare("quadratic-10", ["sgd", "adam"], schedule=schedule, **QUICK)
    for label in ("SGD", "Adam"):
        assert f"{label}: the schedule sets the rate: nothing was tuned" in found.summary()
    assert not any("edge" in note for note in found.notes)
    for frame in (found.table, found.results, found.sensitivity):
        assert frame["lr"].null_count() == frame.height
    heavy = ds.Space("adam", eps=[1e-8, 1e-3])
    found = ds.compare("quadratic-10", heavy, schedule=schedule, **QUICK)
    assert "Adam: the schedule sets the rate: eps alone was searched" in found.summary()
    falling = ds.Schedule(optim.lr_scheduler.StepLR, step_size=10)
    found = ds.compare("quadratic-10", ["sgd"], schedule=falling, **QUICK)
    assert "nothing was tuned" not in found.summary() and found.table["lr"].null_count() == 0


def test_copies_of_one_run_are_no_sample():
    """A factory whose start is the same for each seed, all rows at once: n = 1, as for a start
    that is given; with batches drawn the seeds differ."""

    class Zero(nn.Linear):
        def reset_parameters(self):
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    X = torch.arange(12.0).reshape(6, 2) / 10
    problem = ds.Problem.from_model(lambda: Zero(2, 1), X, X[:, :1] + 1, loss=nn.MSELoss())
    for tuning_seeds in (3, 1):
        found = ds.compare(problem, ["sgd", "adam"], tuning_seeds=tuning_seeds, **QUICK)
        assert found.table["n"].to_list() == [1, 1] and found.table["low"].is_nan().all()
        assert any("the seed changes nothing" in note for note in found.notes)
    drawn = ds.compare(problem, ["sgd", "adam"], batch_size=2, **QUICK)
    assert drawn.table["n"].to_list() == [10, 10] and drawn.results.height == 40


def test_one_run_that_diverged_is_said_in_the_singular():
    never = ds.Problem.from_function(lambda x: torch.log(x - 2), start=1.0)
    said = ds.compare(never, "sgd", **QUICK).summary()
    assert "diverged in 1 of 1 run, on 1 of 1 problem, before the first step" in said


def test_numpy_numbers_and_a_baseline_by_any_of_its_words():
    heavy = ds.Space("rmsprop", label="mine")
    asked = {"steps": np.int64(9), "budget": np.int32(2), "seeds": np.arange(3, 9),
             "tuning_seeds": np.int64(3), "search_seed": 1, "progress": False}  # fmt: skip
    for baseline, label in (("adam", "Adam"), (optim.Adam, "Adam"), ("RMSprop", "mine"),
                            (heavy, "mine"), ("SGD", "SGD")):  # fmt: skip
        found = ds.compare("booth", ["sgd", "adam", heavy], baseline=baseline, **asked)
        assert {row for row in found.targets["baseline"]} == {label}
    assert found.results["seed"].unique().sort().to_list() == list(range(3, 9))


# -- wrong use -------------------------------------------------------------------------------------


BOWL = ds.Problem.from_function(lambda x: x**2, start=1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"problems": "rosenbrok"}, "did you mean 'rosenbrock'"),
        ({"problems": []}, "problems is empty"),
        ({"problems": 3}, "problems are downslope.Problem"),
        ({"problems": ["booth", "booth"]}, "two problems are called 'booth'"),
        ({"problems": BOWL}, "give epochs= or steps="),
        ({"epochs": 3, "steps": 3}, "one of them"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"optimizers": []}, "optimizers is an empty list"),
        ({"optimizers": "momentun"}, "did you mean 'momentum'"),
        ({"optimizers": ["sgd", "SGD"]}, "two optimizers are called 'SGD'"),
        ({"optimizers": optim.LBFGS}, "as often as it likes"),
        ({"optimizers": ["sgd"], "baseline": "sdg"}, "did you mean 'SGD'"),
        ({"budget": 0}, "budget must be a whole number of at least 1"),
        ({"seeds": 0}, "seeds must be a whole number"),
        ({"seeds": [1, 1]}, "different seeds"),
        ({"seeds": [2, 7]}, "share 2"),
        ({"validation": 0.2}, "none of the problems has data"),
        ({"target": 1.5}, "target must be a share"),
        ({"engine": "fast"}, "engine must be one of"),
        ({"clip_norm": [1.0, 2.0]}, r"clip_norm holds for all runs .* got \[1.0, 2.0\]"),
        ({"clip_norm": 0}, "give one number above 0, or None, got 0"),
        ({"divergence": [1e3, 1e4]}, "divergence holds for all runs"),
        ({"problems": "wine", "order": ["shuffle", "cyclic"]}, "order must be one of"),
        ({"problems": "wine", "order": "shufle"}, "did you mean 'shuffle'"),
        ({"lr": ds.Range(1e-3, 1)}, r"the space of its optimizer, as in Space\('sgd', lr"),
        ({"budgt": 4}, "did you mean 'budget'"),
        ({"baseline": "adam", "optimizers": ["adam", ds.Space("adam", label="ADAM")]},
         "may be Adam and ADAM"),
        ({"steps": np.float64(3)}, "steps must be a whole number"),
    ],
)  # fmt: skip
def test_wrong_use(arguments, said):
    with pytest.raises(ds.InputError, match=said):
        ds.compare(**{"problems": "booth", "progress": False, **arguments})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ds.Space(optim.SGD, lr=0.1), "nothing to search"),
        (lambda: ds.Space(optim.SGD, momentun=0.9), "did you mean 'momentum'"),
        (lambda: ds.Space(optim.SGD, maximize=True), "turn the sign of the loss"),
        (lambda: ds.Space(optim.SGD, batch_size=3), "give it to compare"),
        (lambda: ds.Space(optim.SGD, lr={"0.*": [1, 2]}), "by parameter-name pattern"),
        (lambda: ds.Space(optim.SGD, label=5), "a label is a word or some, got 5"),
        (lambda: ds.Range(0, 1), "above 0"),
        (lambda: ds.Range(2, 1, log=False), "from a lower to a higher"),
    ],
)  # fmt: skip
def test_wrong_spaces(make, said):
    with pytest.raises(ds.InputError, match=said):
        make()


def test_spaces_cannot_be_changed():
    space = spaces_of(["nesterov"])[0]
    assert space.fixed == {"momentum": 0.9, "nesterov": True}
    with pytest.raises(AttributeError):
        space.label = "other"
    with pytest.raises(TypeError):
        space.fixed["momentum"] = 0.5

"""What a watch measured against numbers by hand, its verdicts, and its study."""

import copy
import io

import numpy as np
import polars as pl
import pytest
import torch
from loops import bits, data, hooks_on, net, train
from torch import nn, optim

import downslope as ds
from downslope.loops.judge import judge

# -- numbers ---------------------------------------------------------------------------------------


def test_the_table_against_numbers_by_hand():
    model = net()
    twin = copy.deepcopy(model)
    optimizer = optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.2}, {"params": model[2].parameters()}], lr=0.1
    )
    with ds.watch(model, optimizer) as watch:
        train(watch, model, optimizer, steps=3)
    X, y = data()
    for row in watch.table.iter_rows(named=True):
        loss = nn.functional.mse_loss(twin(X), y)
        made = torch.autograd.grad(loss, list(twin.parameters()))
        moves = [0.2 * g for g in made[:2]] + [0.1 * g for g in made[2:]]
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-6)
        lengths = [float(torch.cat([t.flatten() for t in ts]).norm()) for ts in (made, moves)]
        assert [row["gradient_norm"], row["update_norm"]] == pytest.approx(lengths, rel=1e-5)
        assert (row["lr"], row["lr_1"]) == (0.2, 0.1)
        with torch.no_grad():
            for parameter, move in zip(twin.parameters(), moves, strict=True):
                parameter -= move


def quadratic(curvatures):
    """½ Σ λᵢ θᵢ², as a model whose output is the loss."""

    class Bowl(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.ones(len(curvatures)))

        def forward(self):
            return (torch.tensor(curvatures) * self.place**2).sum() / 2

    return Bowl()


@pytest.mark.parametrize(
    ("kind", "settings", "limit"),
    [
        (optim.SGD, {"lr": 0.1}, 2.0),
        (optim.SGD, {"lr": 0.1, "momentum": 0.9}, 3.8),
        (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, 3.8 / 2.8),
        (optim.SGD, {"lr": 0.1, "weight_decay": 1.0}, 2.0 * 6 / 7),
    ],
)
def test_sharpness_and_the_limit_on_a_quadratic(kind, settings, limit):
    model = quadratic([1.0, 6.0, 2.0])
    optimizer = kind(model.parameters(), **settings)
    with ds.watch(model, optimizer, probe=model, probe_every=1) as watch:
        optimizer.zero_grad()
        watch.loss(model()).backward()
        optimizer.step()
    row = watch.table.row(0, named=True)
    assert row["sharpness"] == pytest.approx(6.0, rel=1e-5)
    assert row["rate_over_limit"] == pytest.approx(0.1 * 6 / limit, rel=1e-5)


def test_adam_is_measured_with_its_preconditioner():
    model = quadratic([1.0, 6.0, 2.0])
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    with ds.watch(model, optimizer, probe=model, probe_every=1) as watch:
        optimizer.zero_grad()
        watch.loss(model()).backward()
        optimizer.step()
    # After one step from θ = 1, √v̂ = |g| = λ and 1 − β₁ = 0.1, so P^-1 H = 10 in each direction.
    assert watch.table["rate_over_limit"][0] == pytest.approx(0.1 * 10 / 38, rel=1e-4)


def test_groups_with_rates_of_their_own_share_one_limit():
    X, y = data()
    model = net().double()
    groups = [{"params": model[0].parameters(), "lr": 0.3}, {"params": model[2].parameters()}]
    optimizer = optim.SGD(groups, lr=0.1)
    probe = lambda: nn.functional.mse_loss(model(X.double()), y.double())  # noqa: E731
    with ds.watch(model, optimizer, probe=probe) as watch:
        optimizer.zero_grad()
        watch.loss(probe()).backward()
        optimizer.step()
    named = dict(model.named_parameters())
    flat = torch.cat([p.detach().flatten() for p in named.values()])

    def loss(at):
        parts = at.split([p.numel() for p in named.values()])
        shaped = {n: v.reshape(p.shape) for (n, p), v in zip(named.items(), parts, strict=True)}
        made = torch.func.functional_call(model, shaped, (X.double(),))
        return nn.functional.mse_loss(made, y.double())

    hessian = torch.autograd.functional.hessian(loss, flat)
    rates = torch.cat([torch.full((p.numel(),), 0.3 if n[0] == "0" else 0.1) for n, p in
                       named.items()]).double().sqrt()  # fmt: skip
    dense = torch.linalg.eigvalsh(hessian)[-1]
    scaled = torch.linalg.eigvalsh(rates[:, None] * hessian * rates)[-1]
    assert watch.table["sharpness"][0] == pytest.approx(float(dense), rel=1e-3)
    assert watch.table["rate_over_limit"][0] == pytest.approx(float(scaled) / 2, rel=1e-3)


def test_noise_scale_against_single_rows():
    X, y = data(64)
    model = nn.Linear(4, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    parts = [(X[i : i + 4], y[i : i + 4]) for i in range(0, 64, 4)]
    probes = [lambda x=x, t=t: nn.functional.mse_loss(model(x), t) for x, t in parts]
    with ds.watch(model, optimizer, probe=probes, probe_rows=4) as watch:
        train(watch, model, optimizer, steps=1)
    rows = []
    for x, target in zip(X, y, strict=True):
        loss = nn.functional.mse_loss(model(x[None]), target[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())]))
    rows = torch.stack(rows).double()
    blocks = rows.reshape(16, 4, -1).mean(1)
    # An unbiased variance of blocks of 4 is a quarter of a row's.
    noise = 4 * blocks.var(0, unbiased=True).sum()
    signal = (blocks.mean(0) ** 2).sum() - noise / 64
    assert watch.table["noise_scale"][0] == pytest.approx(float(noise / signal), rel=1e-4)


# -- verdicts --------------------------------------------------------------------------------------


def descended(rate, steps=60, curvatures=(1.0, 6.0), probe_every=5, **more):
    model = quadratic(list(curvatures))
    optimizer = optim.SGD(model.parameters(), lr=rate)
    with ds.watch(model, optimizer, probe=model, probe_every=probe_every, **more) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            watch.loss(model()).backward()
            optimizer.step()
    return watch


def test_a_rate_above_the_threshold_is_named_and_the_advice_holds():
    watch = descended(0.4)
    finding = watch.findings[0]
    assert (finding.verdict, finding.cause, finding.confidence) == (
        "diverged",
        "rate-above-threshold",
        "certain",
    )
    assert finding.evidence["rate over its limit, at most"].value == pytest.approx(1.2, rel=1e-3)
    assert descended(finding.advice.change["lr"]).findings[0].verdict == "converging"
    losses = watch.table["loss"].to_numpy()
    first = int((losses > 1e8 * losses[0]).argmax()) + 1
    assert watch.runs.first_bad_step[0] == finding.evidence["first bad step"].value == first


def test_a_quadratic_at_a_sound_rate_converges():
    finding = descended(0.1).findings[0]
    assert (finding.verdict, finding.confidence) == ("converging", "certain")


def table_of(losses, **columns):
    steps = len(losses)
    blank = dict.fromkeys(
        ("gradient_norm", "update_norm", "lr", "sharpness", "rate_over_limit", "noise_scale"),
        [None] * steps,
    )
    given = {"loss": [None if v is None else float(v) for v in losses], **columns}
    series = [pl.Series(n, v, dtype=pl.Float64) for n, v in {**blank, **given}.items()]
    return pl.DataFrame([pl.Series("step", range(1, steps + 1), dtype=pl.Int64), *series])


def verdict_of(losses, **columns):
    return judge(table_of(losses, **columns), probe_rows=32)


GENERATOR = np.random.default_rng(3)
NOISE = GENERATOR.normal(size=400)
FALLEN = 0.5 + 2 * np.exp(-np.arange(400) / 30)


@pytest.mark.parametrize(
    ("verdict", "losses", "columns"),
    [
        ("unknown", [], {}),
        ("unknown", [None] * 50, {}),
        ("unknown", [3.0, 2.0, 1.0], {}),
        ("converging", 2 - np.arange(400) / 400 + 0.1 * NOISE, {}),
        ("plateau", FALLEN + 0.02 * NOISE, {}),
        ("noise-floor", FALLEN + 0.02 * NOISE, {"noise_scale": [None] * 399 + [900.0]}),
        ("plateau", FALLEN + 0.02 * NOISE, {"noise_scale": [None] * 399 + [5.0]}),
        ("stuck", 2.3 + 0.1 * NOISE, {}),
        ("stuck", np.full(40, 2.3), {"gradient_norm": [0.0] * 40}),
        ("unknown", 1 + np.linspace(0, 1, 400) ** 2 + 0.05 * NOISE, {}),
        ("diverged", 1 + np.exp(np.arange(100) / 20) + 0.05 * NOISE[:100], {}),
        ("diverged", [2.0, 3.0, 9.0, np.inf, np.nan], {}),
        ("diverged", [np.nan] * 5, {}),
        ("diverged", [1.0] * 20, {"gradient_norm": [1.0] * 19 + [np.nan]}),
        ("edge-of-stability", FALLEN + 0.1 * NOISE, {"rate_over_limit": [0.98, 1.03] * 200}),
        ("ringing", FALLEN + 0.3 * (-1.0) ** np.arange(400), {"rate_over_limit": [0.7] * 400}),
        (
            "converged",
            0.25 + np.exp(-np.arange(400) / 9),
            {"gradient_norm": np.exp(-np.arange(400) / 9)},
        ),
    ],
)
def test_verdicts_of_curves_made_by_hand(verdict, losses, columns):
    if "rate_over_limit" in columns:
        columns = {"sharpness": [2.0] * 400, "lr": [1.0] * 400, **columns}
    finding = verdict_of(losses, **columns)
    assert finding.verdict == verdict, finding.sentence
    if verdict == "unknown":
        assert finding.confidence == "unknown"


def test_a_loss_that_is_maximised_is_judged_the_other_way_round():
    model = quadratic([-1.0, -6.0])
    optimizer = optim.SGD(model.parameters(), lr=0.1, maximize=True)
    with ds.watch(model, optimizer, probe=model) as watch:
        for _ in range(20):
            optimizer.zero_grad()
            watch.loss(model()).backward()
            optimizer.step()
    finding = watch.findings[0]
    assert finding.verdict == "converging" and "sign turned" in finding.sentence
    assert finding.evidence["loss at first"].value > 0
    assert watch.table["rate_over_limit"].null_count() == 20
    assert watch.runs.best.loss[-1] == watch.table["loss"][-1]


def test_noise_alone_is_never_called_a_change():
    """The first kind of error stays rare: 300 curves without any trend."""
    generator = np.random.default_rng(0)
    told = [verdict_of(1 + generator.normal(size=60)).verdict for _ in range(300)]
    assert sum(v not in ("unknown", "stuck") for v in told) <= 3


@pytest.mark.parametrize(("given", "step"), [("loss", 4), ("gradient", 4)])
def test_the_loop_is_stopped_before_the_bad_update(given, step):
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    X, y = data()
    seen = []
    with (
        pytest.warns(ds.StoppedWarning, match="step 4"),
        ds.watch(model, optimizer, stop=True) as watch,
    ):
        for number in range(10):
            seen.append(bits(model))
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(X), y)
            if number == 3 and given == "loss":
                loss = loss * torch.nan
            watch.loss(loss).backward()
            if number == 3 and given == "gradient":
                model[0].bias.grad[0] = torch.inf
            optimizer.step()
    assert watch.stopped == step and len(seen) == 4
    assert bits(model) == seen[-1]
    assert watch.findings[0].evidence["first bad step"].value == step
    assert watch.findings[0].verdict == "diverged"
    assert hooks_on(model) == hooks_on(optimizer) == 0


def test_without_stop_the_loop_goes_on_and_the_finding_tells():
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with ds.watch(model, optimizer) as watch:
        for number in range(6):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(data()[0]), data()[1])
            watch.loss(loss * (torch.nan if number == 3 else 1)).backward()
            optimizer.step()
    assert watch.stopped is None and watch.table.height == 6
    assert watch.runs.table["first_bad_step"][0] == 4
    assert watch.runs.table["status"][0] == "diverged"


def test_a_batch_that_is_left_out_is_no_divergence():
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    X, y = data()
    with ds.watch(model, optimizer) as watch:
        for number in range(40):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(X), y) * (torch.nan if number == 5 else 1)
            watch.loss(loss)
            if not loss.isfinite():
                continue
            loss.backward()
            optimizer.step()
    finding = watch.findings[0]
    assert finding.verdict == "converging" and "1 were not finite" in finding.sentence
    assert watch.runs.first_bad_step[0] == -1


# -- studies, figures, words -----------------------------------------------------------------------


def test_a_watch_is_a_study_like_any_other(tmp_path):
    watch = descended(0.1, steps=20)
    runs = watch.runs
    assert runs.table.select("optimizer", "status", "steps").row(0) == ("SGD", "finished", 20)
    assert runs.table["lr"][0] == 0.1 and runs.plot.losses() is not None
    (alone,) = runs.explain()
    assert alone.cause == "unknown" and "downslope.load" not in alone.sentence
    assert "watched in a training loop" in alone.sentence and "watch.findings" in alone.sentence
    watch.save(tmp_path / "study")
    loaded = ds.load(tmp_path / "study")
    assert loaded.table.equals(runs.table)
    np.testing.assert_array_equal(loaded.batch_loss, runs.batch_loss)
    np.testing.assert_array_equal(loaded.gradient_norm, runs.gradient_norm)
    for name, value in watch.model.state_dict().items():
        assert torch.equal(loaded.best.parameters[name], value)
    assert loaded.explain()[0].sentence == alone.sentence
    with pytest.raises(ds.InputError, match="watched in a training loop"):
        loaded.plot.fit()
    for wanted in ("replay", "model"):
        with pytest.raises(ds.DownslopeError, match="watched in a training loop"):
            _ = loaded.best.replay() if wanted == "replay" else loaded.best.model
    problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
    with pytest.raises(ds.DownslopeError, match="has no problem"):
        ds.load(tmp_path / "study", problem=problem)
    with pytest.raises(ds.DownslopeError, match="there already"):
        watch.save(tmp_path / "study")


def test_a_diverged_watch_is_saved_too(tmp_path):
    watch = descended(0.4)
    watch.save(tmp_path / "study")
    loaded = ds.load(tmp_path / "study")
    bad = watch.runs.first_bad_step[0]
    assert loaded.table["status"][0] == "diverged" and loaded.first_bad_step[0] == bad
    assert (
        np.isfinite(loaded.loss[0, : bad - 1]).all() and np.isnan(loaded.loss[0, bad - 1 :]).all()
    )


def test_figure_data_and_figure():
    watch = descended(0.1, steps=40)
    drawn = watch.figure_data
    assert [line.name for line in drawn.sharpness] == ["largest curvature", "2 / rate"]
    np.testing.assert_allclose(drawn.sharpness[1].values, 20.0)
    np.testing.assert_array_equal(drawn.loss[0].values, watch.table["loss"].to_numpy())
    assert drawn.bad_step is None and descended(0.4).figure_data.bad_step is not None
    figure = watch.plot()
    assert len(figure.axes) == 5
    figure.savefig(io.BytesIO(), format="png")
    assert len(descended(0.1, steps=0).plot().axes) == 3


def test_what_is_printed(capsys):
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with ds.watch(model, optimizer) as watch:
        train(watch, model, optimizer)
    assert capsys.readouterr().out == ""
    assert str(watch).startswith("Converging") and "12 steps" in repr(watch)
    with ds.watch(model, optimizer, report=True) as watch:
        for _ in range(3):
            optimizer.step()
    said = capsys.readouterr().out
    assert "no loss" in said and "were not looked at" in said


def test_the_loss_by_its_module_leaves_evaluations_out():
    model, loss_fn = net(), nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    X, y = data()
    given = []
    with ds.watch(model, optimizer, loss_fn=loss_fn) as watch:
        for _ in range(4):
            with torch.no_grad():
                loss_fn(model(X), y + 100)
            optimizer.zero_grad()
            loss = loss_fn(model(X), y)
            given.append(float(loss.detach()))
            loss.backward()
            optimizer.step()
    assert watch.table["loss"].to_list() == pytest.approx(given)


def test_a_layer_that_cannot_be_differentiated_twice_is_said():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return 2 * x * gradient

    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    parts = [data()[0][:16], data()[0][16:]]
    probes = [lambda x=x: Once.apply(model(x)).mean() for x in parts]
    with ds.watch(model, optimizer, probe=probes, probe_every=4) as watch:
        train(watch, model, optimizer)
    assert watch.table["sharpness"].null_count() == 12
    assert watch.table["noise_scale"].null_count() == 9
    assert any("curvature cannot be measured" in note for note in watch.notes)


def test_many_parameters_have_their_norms_measured_now_and_then():
    model = nn.Linear(200, 200)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with ds.watch(model, optimizer) as watch:
        for _ in range(11):
            optimizer.zero_grad()
            watch.loss(model(torch.ones(2, 200)).mean()).backward()
            optimizer.step()
    assert watch.table["update_norm"].is_not_null().to_list() == [True, *[False] * 9, True]
    assert watch.table["loss"].null_count() == 0

"""Loops as they are must give no fault, planted faults must be found, and nothing may change."""

import copy
import io
import random

import numpy as np
import polars as pl
import pytest
import torch
from loops import FAULTS, IMPOSSIBLE, LOOPS, unwatched
from torch import nn, optim

import downslope as ds
from downslope.loops.faults import FAULTS as KNOWN
from downslope.loops.judge import judge
from downslope.loops.tape import Column

CAUSES = {("linear", "parameters-not-held"): "another-model"}
"""Where the optimizer holds none of the model's parameters, the finding says so."""


def bits(model):
    return {n: t.detach().numpy().tobytes() for n, t in model.state_dict().items()}


def carried_out(name, plant, look):
    model, watch = LOOPS[name](plant, look)
    return bits(model), torch.get_rng_state().numpy().tobytes(), watch


CASES = [(n, p) for n in LOOPS for p in (None, *FAULTS) if (n, p) not in IMPOSSIBLE]


# Torch warns of two of the faults itself.
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.parametrize(("name", "plant"), CASES)
def test_the_planted_fault_and_no_other(name, plant):
    weights, drawn, watch = carried_out(name, plant, ds.watch)
    bare_weights, bare_drawn, _ = carried_out(name, plant, unwatched)
    assert weights == bare_weights and drawn == bare_drawn
    verdict, *found = watch.findings
    assert verdict.cause not in KNOWN
    wanted = [] if plant is None else [CAUSES.get((name, plant), plant)]
    assert [finding.cause for finding in found] == wanted, str(watch)
    for finding in found:
        assert finding.confidence in ("certain", "likely")
        assert finding.evidence and finding.advice.sentence in finding.sentence
        with pytest.raises(ds.DownslopeError, match="only you can follow"):
            finding.try_it()
    assert hooks_on(watch.model) == hooks_on(watch.optimizer) == 0


def hooks_on(thing):
    """How many hooks hang on a model's modules and parameters, or on an optimizer."""
    if isinstance(thing, optim.Optimizer):
        return len(thing._optimizer_step_pre_hooks) + len(thing._optimizer_step_post_hooks)
    hooks = sum(len(m._forward_hooks) for m in thing.modules())
    hooks += sum(len(p._backward_hooks or {}) for p in thing.parameters())
    return hooks + sum(len(p._post_accumulate_grad_hooks or {}) for p in thing.parameters())


# -- loops that only look faulty -------------------------------------------------------------------


def data(rows=32, columns=4):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(rows, columns, generator=generator)
    return X, X.sum(1, keepdim=True).sin()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def causes(watch):
    return [finding.cause for finding in watch.findings[1:]]


def train(watch, model, optimizer, steps=12, loss_of=nn.functional.mse_loss):
    X, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        watch.loss(loss_of(model(X), y)).backward()
        optimizer.step()


def adversarial(look):
    """Two models that are trained in turn; each one's loss passes through the other."""
    torch.manual_seed(0)
    maker, judge = nn.Linear(2, 1), nn.Linear(1, 1)
    ours, theirs = (optim.Adam(m.parameters(), 0.05) for m in (maker, judge))
    score = nn.functional.binary_cross_entropy_with_logits
    with look(maker, ours) as one, look(judge, theirs) as other:
        for _ in range(12):
            real, fake = torch.randn(16, 1) + 3, maker(torch.randn(16, 2))
            theirs.zero_grad()
            loss = score(judge(real), torch.ones(16, 1))
            loss = loss + score(judge(fake.detach()), torch.zeros(16, 1))
            other.loss(loss).backward()
            theirs.step()
            ours.zero_grad()
            one.loss(score(judge(fake), torch.ones(16, 1))).backward()
            ours.step()
    return nn.ModuleList([maker, judge]), [one, other]


def closures(look):
    model = net()
    optimizer = optim.LBFGS(model.parameters(), max_iter=4)
    X, y = data()
    with look(model, optimizer) as watch:

        def closure():
            optimizer.zero_grad()
            loss = watch.loss(nn.functional.mse_loss(model(X), y))
            loss.backward()
            return loss

        for _ in range(5):
            optimizer.step(closure)
    return model, [watch]


def by_hand(look):
    """Gradients from autograd.grad, put into place; a warm-up written by hand."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    X, y = data()
    with look(model, optimizer) as watch:
        for step in range(12):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * (step + 1)
            loss = watch.loss(nn.functional.mse_loss(model(X), y))
            parameters = list(model.parameters())
            made = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, made, strict=True):
                parameter.grad = gradient
            optimizer.step()
    return model, [watch]


def scaled(look):
    """A gradient scaler that skips the first step, as it does with its first scale."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    X, y = data()
    with look(model, optimizer, scheduler=scheduler) as watch:
        for _ in range(12):
            optimizer.zero_grad()
            loss = watch.loss(nn.functional.mse_loss(10 * model(X), y))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
    assert look is unwatched or watch.table["lr"][0] < 1e-3  # the first step was skipped
    return model, [watch]


def partly_frozen(look):
    """The head alone is trained; batch statistics of the frozen part stand still on purpose."""
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()), nn.Linear(8, 1)
    model = nn.Sequential(body.requires_grad_(False), head)
    optimizer = optim.AdamW(head.parameters(), lr=0.01)
    body.eval()
    with look(model, optimizer) as watch:
        train(watch, model, optimizer)
    model.eval()
    return model, [watch]


def pairwise(look):
    """A ranking loss compares all with all: (n, 1) against (1, n), both predictions."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.05)

    def ranked(scores, y):
        wanted = torch.sign(y - y.T)
        return (nn.functional.softplus(-wanted * (scores - scores.squeeze(1)))).mean()

    with look(model, optimizer) as watch:
        train(watch, model, optimizer, loss_of=ranked)
    return model, [watch]


def survival(look):
    """Cox's partial likelihood: risk sets are n × n."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.05)

    def cox(risk, y):
        at_risk = (y <= y.T).float()
        return -(risk.squeeze(1) - ((at_risk * risk.squeeze(1).exp()).sum(1)).log()).mean()

    with look(model, optimizer) as watch:
        train(watch, model, optimizer, loss_of=cox)
    return model, [watch]


def adapted(look):
    """Low-rank adaptation: one factor starts at zero, so that the other's first gradient is."""
    torch.manual_seed(0)
    down, up = nn.Linear(4, 2, bias=False), nn.Linear(2, 1, bias=False)
    nn.init.zeros_(up.weight)
    model = nn.Sequential(down, up)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with look(model, optimizer) as watch:
        train(watch, model, optimizer)
    return model, [watch]


class Checkpointed(nn.Module):
    """Forgets its intermediate results; the outer graph does not show its parameters."""

    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=True)


def checkpointed(look):
    model = Checkpointed()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with look(model, optimizer) as watch:
        train(watch, model, optimizer)
    return model, [watch]


class Tied(nn.Module):
    """Words in, words out, by the same weights; few of them are met in a batch."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.out = nn.Linear(4, 9, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(self.words(x))


def tied(look):
    torch.manual_seed(0)
    model = Tied()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    with look(model, optimizer) as watch:
        for _ in range(12):
            words = torch.randint(0, 9, (6,))
            optimizer.zero_grad()
            watch.loss(nn.functional.cross_entropy(model(words), words)).backward()
            optimizer.step()
    return model, [watch]


def sparse(look):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 3, sparse=True))
    optimizer = optim.SparseAdam(model.parameters(), lr=0.01)
    with look(model, optimizer) as watch:
        for _ in range(12):
            optimizer.zero_grad()
            watch.loss(model(torch.randint(0, 50, (6,))).pow(2).mean()).backward()
            optimizer.step()
    return model, [watch]


def with_target(look):
    """A slow copy inside the model follows it, and is not the optimizer's."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"online": net(), "target": net()})
    optimizer = optim.Adam(model["online"].parameters(), lr=0.01)
    X, y = data()
    with look(model, optimizer) as watch:
        for _ in range(12):
            with torch.no_grad():
                goal = y + 0.5 * model["target"](X)
            optimizer.zero_grad()
            watch.loss(nn.functional.huber_loss(model["online"](X), goal)).backward()
            optimizer.step()
            pairs = zip(model["target"].parameters(), model["online"].parameters(), strict=True)
            for slow, fast in pairs:
                slow.data.lerp_(fast.data, 0.1)
    return model, [watch]


def both_halves(look):
    """One model, two optimizers, one watch: the other's parameters change all the same."""
    model = net()
    first = optim.SGD(model[0].parameters(), lr=0.05)
    second = optim.Adam(model[2].parameters(), lr=0.01)
    X, y = data()
    with look(model, first) as watch:
        for _ in range(12):
            model.zero_grad()
            watch.loss(nn.functional.mse_loss(model(X), y)).backward()
            first.step()
            second.step()
    return model, [watch]


def painted(look):
    """An image is trained through a model that stands still."""
    model = net()
    X = data()[0].clone().requires_grad_()
    optimizer = optim.Adam([X], lr=0.1)
    model.requires_grad_(False)
    with look(model, optimizer) as watch:
        for _ in range(12):
            optimizer.zero_grad()
            watch.loss(model(X).mean()).backward()
            optimizer.step()
    return nn.ParameterList([X]), [watch]


def warmed_up(look):
    """Rates by hand at first, then those of a scheduler that was resumed."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": 7, "_step_count": 8})
    X, y = data()
    with look(model, optimizer) as watch:
        for step in range(12):
            if step < 5:
                optimizer.param_groups[0]["lr"] = 0.02 * (step + 1)
            optimizer.zero_grad()
            watch.loss(nn.functional.mse_loss(model(X), y)).backward()
            optimizer.step()
            if step >= 5:
                scheduler.step()
    return model, [watch]


def scheduled_inside(look):
    """Schedulers that are made in the block, one after the other, and set the first rate."""
    model = net()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    X, y = data()
    with look(model, optimizer) as watch:
        parts = [
            optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4),
            optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
        ]
        scheduler = optim.lr_scheduler.SequentialLR(optimizer, parts, [4])
        for _ in range(12):
            optimizer.zero_grad()
            watch.loss(nn.functional.mse_loss(model(X), y)).backward()
            optimizer.step()
            scheduler.step()
    return model, [watch]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("made", ["before", "inside"])
@pytest.mark.parametrize("given", [True, False])
def test_a_scheduler_whose_rate_does_not_move_yet_is_seen(made, given):
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    make = lambda: optim.lr_scheduler.StepLR(optimizer, 10)  # noqa: E731
    scheduler = make() if made == "before" else None
    more = {"scheduler": scheduler} if given and scheduler is not None else {}
    X, y = data()
    with ds.watch(model, optimizer, **more) as watch:
        scheduler = scheduler or make()
        for _ in range(5):
            optimizer.zero_grad()
            watch.loss(nn.functional.mse_loss(model(X), y)).backward()
            scheduler.step()
            optimizer.step()
    assert causes(watch) == ["scheduler-first"]


LEGITIMATE = (warmed_up, scheduled_inside, adversarial, closures, by_hand, scaled, partly_frozen,
              pairwise, survival, adapted, checkpointed, tied, sparse, with_target, both_halves,
              painted)  # fmt: skip


@pytest.mark.parametrize("loop", LEGITIMATE, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_no_false_alarm_and_nothing_changed(loop):
    model, watches = loop(ds.watch)
    bare, _ = loop(unwatched)
    assert bits(model) == bits(bare)
    for watch in watches:
        assert causes(watch) == [], str(watch)
        assert watch.table.height >= 5


# -- the measurement never changes a run -----------------------------------------------------------


class Restless(nn.Module):
    """Everything a probe could disturb: dropout, running statistics, a buffer that is replaced."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return self.net(x)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.RMSprop])
def test_a_probe_leaves_no_trace(kind):
    def run(probed):
        torch.manual_seed(0)
        random.seed(0)
        model = Restless()
        optimizer = kind(model.parameters(), lr=0.01)
        X, y = data()

        def probe():
            noise = random.random() + torch.rand(()) + np.random.rand()
            return nn.functional.mse_loss(model(X[:8]), y[:8]) + 0 * float(noise)

        more = {"probe": probe, "probe_every": 3} if probed else {}
        with ds.watch(model, optimizer, **more) as watch:
            train(watch, model, optimizer)
        state = (torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.rand())
        return bits(model), state, watch

    np.random.seed(0)
    weights, state, watch = run(probed=True)
    np.random.seed(0)
    bare, bare_state, _ = run(probed=False)
    assert weights == bare and state == bare_state
    assert watch.table["sharpness"].drop_nulls().len() == 4
    assert watch.table["rate_over_limit"].drop_nulls().len() == 4
    assert causes(watch) == []


def test_an_exception_in_the_loop_passes_and_hooks_go():
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyError), ds.watch(model, optimizer) as watch:
        train(watch, model, optimizer, steps=5)
        raise KeyError("theirs")
    assert hooks_on(model) == hooks_on(optimizer) == 0
    assert watch.table.height == 5


def test_a_step_that_fails_leaves_no_half_row():
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def fails():
        raise ValueError("theirs")

    with ds.watch(model, optimizer) as watch:
        train(watch, model, optimizer, steps=2)
        with pytest.raises(ValueError, match="theirs"):
            optimizer.step(fails)
        train(watch, model, optimizer, steps=2)
    assert watch.table["step"].to_list() == [1, 2, 3, 4]


def test_copies_and_files_of_the_model_are_free_of_the_watch():
    model, loss_fn = net(), nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with ds.watch(model, optimizer, loss_fn=loss_fn) as watch:
        twin = copy.deepcopy(model)
        twin(data()[0]).sum().backward()
        file = io.BytesIO()
        torch.save(model, file)
        train(watch, model, optimizer, steps=2)
    file.seek(0)
    assert bits(torch.load(file, weights_only=False)) == bits(twin)
    assert watch.table["loss"].null_count() == 0


def test_watches_within_each_other_see_the_same():
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with ds.watch(model, optimizer) as outer, ds.watch(model, optimizer) as inner:
        train(inner, model, optimizer)
    assert inner.table.drop("loss").equals(outer.table.drop("loss"))
    assert causes(inner) == causes(outer) == []


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
    assert [finding.cause for finding in runs.explain()] == ["unknown"]
    watch.save(tmp_path / "study")
    loaded = ds.load(tmp_path / "study")
    assert loaded.table.equals(runs.table)
    np.testing.assert_array_equal(loaded.batch_loss, runs.batch_loss)
    np.testing.assert_array_equal(loaded.gradient_norm, runs.gradient_norm)
    for name, value in watch.model.state_dict().items():
        assert torch.equal(loaded.best.parameters[name], value)
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


# -- wrong use -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": 3}, "model must be a torch.nn.Module, got int"),
        ({"optimizer": optim.SGD}, "must be an instance of torch.optim.Optimizer, got the class"),
        ({"loss_fn": nn.functional.mse_loss}, "call watch.loss"),
        ({"probe": 3}, "probe must be a function"),
        ({"probe": []}, "probe must be a function"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"probe_every": 1.5}, "probe_every must be a whole number"),
        ({"scheduler": "cosine"}, "scheduler must be one of torch.optim.lr_scheduler"),
    ],
)
def test_wrong_use_is_one_sentence(change, words):
    model = net()
    given = {"model": model, "optimizer": optim.SGD(model.parameters(), lr=0.1), **change}
    with pytest.raises(ds.InputError, match=words):
        ds.watch(given.pop("model"), given.pop("optimizer"), **given)


def test_a_loss_given_after_its_step_is_that_steps():
    tables = []
    for late in (False, True):
        model = net()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        X, y = data()
        with ds.watch(model, optimizer) as watch:
            for _ in range(20):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(X), y)
                if not late:
                    watch.loss(loss)
                loss.backward()
                optimizer.step()
                if late:
                    watch.loss(loss.item())
        tables.append(watch.table)
    assert tables[0].equals(tables[1]) and tables[0]["loss"].null_count() == 0


@pytest.mark.parametrize("order", ["cleared before the step", "no backward"])
def test_gradients_that_are_gone_when_the_step_is_made(order):
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    X, y = data()
    with ds.watch(model, optimizer) as watch:
        for _ in range(5):
            loss = watch.loss(nn.functional.mse_loss(model(X), y))
            if order != "no backward":
                loss.backward()
            optimizer.zero_grad()
            optimizer.step()
    assert causes(watch) == ["no-gradients"]
    assert watch.findings[1].confidence == "certain"


def test_evaluation_left_on_after_the_first_look():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with ds.watch(model, optimizer) as watch:
        train(watch, model, optimizer, steps=30)
        model.eval()
        train(watch, model, optimizer, steps=20)
    (finding,) = watch.findings[1:]
    assert finding.cause == "evaluation-mode"
    assert "20 of 50 steps (from step 31)" in finding.sentence
    assert "1 (Dropout)" in finding.sentence


class Far(torch.Tensor):
    """A number that says it is on another device, and counts how often it is waited for."""

    device = property(lambda self: torch.device("cuda"))


def test_numbers_of_another_device_are_read_in_blocks():
    column = Column()
    for number in range(600):
        column.append(torch.tensor(float(number)).as_subclass(Far) if number % 3 else None)
        assert len(column.waiting) < 256
    assert column.waiting
    assert column.values() == [float(n) if n % 3 else None for n in range(600)]
    assert not column.waiting


def test_wrong_losses_and_blocks():
    model = net()
    watch = ds.watch(model, optim.SGD(model.parameters(), lr=0.1))
    for early in ("findings", "table", "runs"):
        with pytest.raises(ds.DownslopeError, match="nothing was watched yet"):
            getattr(watch, early)
    with watch:
        with pytest.raises(ds.InputError, match=r"shape \(32, 1\)"):
            watch.loss(model(data()[0]))
        with pytest.raises(ds.InputError, match="got str"):
            watch.loss("0.3")
        watch.loss(0.3)
    with pytest.raises(ds.DownslopeError, match="one block"), watch:
        pass
    assert watch.findings[0].verdict == "unknown"
    with pytest.raises(ds.DownslopeError, match="no run"):
        _ = watch.runs

"""Loops as they are must give no fault, and planted faults must be found."""

import pytest
import torch
from loops import FAULTS, IMPOSSIBLE, LOOPS, bits, causes, data, hooks_on, net, train, unwatched
from torch import nn, optim

import downslope as ds
from downslope.loops.faults import FAULTS as KNOWN

CAUSES = {("linear", "parameters-not-held"): "another-model"}
"""Where the optimizer holds none of the model's parameters, the finding says so."""


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


# -- loops that only look faulty -------------------------------------------------------------------


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

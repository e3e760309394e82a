"""Watching leaves no trace; what is used wrongly is said in one sentence."""

import copy
import io
import random

import numpy as np
import pytest
import torch
from loops import bits, causes, data, hooks_on, net, train
from torch import nn, optim

import downslope as ds
from downslope.loops.tape import Column


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

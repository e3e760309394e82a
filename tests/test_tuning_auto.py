"""``lr="auto"`` in `descend`."""

import pytest
import torch
from torch import nn, optim

import downslope as ds
from downslope.errors import StudyError
from downslope.problem import Problem

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def network():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(96, 2, generator=generator)
    y = X.sum(1, keepdim=True).sin() + 0.1 * torch.randn(96, 1, generator=generator)

    def make():
        return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))

    return Problem.from_model(make, X, y, loss=nn.MSELoss())


def test_the_table_shows_what_tune_finds(network):
    options = {"epochs": 4, "batch_size": 16, "momentum": 0.5, **QUIET}
    runs = ds.descend(network, optim.SGD, lr="auto", seed=range(2), **options)
    found = ds.tune(network, optim.SGD, **options)
    assert runs.table["lr"].to_list() == [found.lr] * 2
    one = ds.descend(network, optim.SGD, lr="auto", seed=1, **options)
    assert one.table["lr"][0] == found.lr  # whichever seeds stand beside it


def test_every_setting_gets_its_own_rate_in_the_order_given(network):
    options = {"epochs": 3, **QUIET}
    runs = ds.descend(
        network,
        [ds.Grid(optim.SGD, lr=["auto", 0.01], momentum=[0, 0.9]), ds.Grid(optim.Adam, lr=1e-3),
         ds.Grid(optim.RMSprop)],
        lr="auto", batch_size=[8, 48], seed=range(2), **options,
    )  # fmt: skip
    plain = ds.descend(
        network,
        [ds.Grid(optim.SGD, lr=[0.02, 0.01], momentum=[0, 0.9]), ds.Grid(optim.Adam, lr=1e-3),
         ds.Grid(optim.RMSprop, lr=0.5)],
        batch_size=[8, 48], seed=range(2), **options,
    )  # fmt: skip
    others = ["run", "optimizer", "momentum", "batch_size", "seed"]
    assert runs.settings.select(others).equals(plain.settings.select(others))
    given = plain.settings["lr"].is_in([0.01, 1e-3])
    assert (runs.settings["lr"] == plain.settings["lr"]).filter(given).all()
    for momentum in (0, 0.9):
        for size in (8, 48):
            found = ds.tune(network, optim.SGD, momentum=momentum, batch_size=size, **options)
            some = runs.where(optimizer="SGD", momentum=momentum, batch_size=size)
            assert some.table["lr"].to_list()[:2] == [found.lr] * 2
            assert some.table["lr"].to_list()[2:] == [0.01] * 2
    rms = ds.tune(network, optim.RMSprop, batch_size=8, **options)
    assert set(runs.where(optimizer="RMSprop", batch_size=8).table["lr"]) == {rms.lr}


def test_rows_schedules_starts_and_what_else_descend_takes(network):
    rows = [{"lr": "auto", "weight_decay": 0.0}, {"lr": 0.01, "weight_decay": 0.1}]
    shared = {
        "steps": 12,
        "batch_size": 16,
        "schedule": ds.Schedule(optim.lr_scheduler.ExponentialLR, gamma=0.9),
        "validation": 0.25,
        "clip_norm": 1.0,
        "dtype": torch.float64,
        "patience": 5,
        **QUIET,
    }
    runs = ds.descend(network, ds.Grid.of(optim.SGD, rows), **shared)
    found = ds.tune(network, optim.SGD, weight_decay=0.0, every="epoch", **shared)
    assert runs.table["lr"].to_list() == [found.lr, 0.01]
    rows = [{"lr": "auto", "seed": seed} for seed in (4, 9)]
    seeded = ds.descend(network, ds.Grid.of(optim.SGD, rows), weight_decay=0.0, **shared)
    assert seeded.table["lr"].to_list() == [found.lr] * 2
    assert seeded.table["seed"].to_list() == [4, 9]
    start = ds.descend(network, optim.SGD, lr=0.05, epochs=2, **QUIET).best
    more = ds.descend(network, optim.SGD, lr="auto", epochs=2, start=start, **QUIET)
    assert more.table["lr"][0] == ds.tune(network, optim.SGD, epochs=2, start=start, **QUIET).lr


def test_a_loader_keeps_its_own_batches(network):
    data = torch.utils.data.TensorDataset(torch.randn(24, 2), torch.randn(24, 1))
    sampler = torch.utils.data.SequentialSampler(data)
    loader = torch.utils.data.DataLoader(data, batch_size=8, sampler=sampler)
    problem = Problem.from_model(nn.Linear(2, 1), loader, loss=nn.MSELoss())
    runs = ds.descend(problem, optim.SGD, lr="auto", epochs=2, **QUIET)
    assert runs.table["lr"][0] > 0 and runs.table["batch_size"][0] == "8"


def test_a_study_is_resumed_with_the_same_rate(network, tmp_path):
    options = {"lr": "auto", "epochs": 3, "batch_size": [8, "full"], "study": tmp_path / "s"}
    first = ds.descend(network, optim.Adam, **options, **QUIET)
    shards = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*.parquet")}
    again = ds.descend(network, optim.Adam, **options, **QUIET)
    assert again.settings.equals(first.settings) and (again.loss == first.loss).all()
    assert shards == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("*.parquet")}
    loaded = ds.load(tmp_path / "s", problem=network)
    assert loaded.settings["lr"].equals(first.settings["lr"])
    run, replayed = loaded[0], loaded[0].replay()
    assert all(torch.equal(run.parameters[n], p) for n, p in replayed.parameters.items())


def test_wrong_use(network):
    with pytest.raises(ds.InputError, match="one rate for all parameters"):
        ds.descend(network, optim.SGD, lr={"0.*": "auto", "*": 0.1}, epochs=2)
    with pytest.raises(ds.InputError, match="by parameter-name pattern"):
        ds.descend(network, optim.SGD, lr="auto", weight_decay={"0.*": [0, 1], "*": 0}, epochs=2)
    with pytest.raises(ds.InputError, match="momentum must be a number"):
        ds.descend(network, optim.SGD, lr=0.1, momentum="auto", epochs=2)
    with pytest.raises(ds.InputError, match="lr"):
        ds.descend(network, optim.SGD, lr="automatic", epochs=2)
    hopeless = Problem.from_function(lambda x: x.sqrt(), start=0.0)
    with pytest.raises(ds.DownslopeError, match="found no rate for SGD: No stable rate") as told:
        ds.descend(hopeless, optim.SGD, lr="auto", steps=3, progress=False)
    assert not isinstance(told.value, ds.InputError)


def test_what_was_found_is_kept(network):
    options = {"epochs": 2, "batch_size": 16, "momentum": 0.5, **QUIET}
    runs = ds.descend(network, optim.SGD, lr="auto", seed=range(2), **options)
    found = ds.tune(network, optim.SGD, **options)
    (rate,) = runs.plan.tuned
    assert rate.lr == found.lr and set(found.notes) <= set(rate.said)
    assert f"lr='auto' is {found.lr:.4g} for SGD with" in rate.lines[0]
    assert "momentum=0.5" in rate.of and "batch_size=16" in rate.of and "lr" not in rate.of
    assert any(f"Stable: no run diverged from {found.stable[0]:.4g}" in line for line in rate.said)
    assert ds.descend(network, optim.SGD, lr=0.1, **options).plan.tuned == ()


def test_a_study_whose_rate_differs_names_both(network, tmp_path):
    options = {"lr": "auto", "epochs": 2, "batch_size": 16, "study": tmp_path / "s", **QUIET}
    first = ds.descend(network, optim.SGD, **options).table["lr"][0]
    now = ds.tune(network, optim.SGD, engine="looped", epochs=2, batch_size=16, **QUIET).lr
    assert now != first
    with pytest.raises(StudyError) as told:
        ds.descend(network, optim.SGD, engine="looped", **options)
    assert f"lr='auto' was {first:.6g} for SGD with batch_size=16, and is {now:.6g} now" in str(
        told.value
    )

"""Rows: every form that data comes in gives the same numbers, and is itself left alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch import nn, optim
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import downslope as ds
from downslope.data import as_tensor
from downslope.errors import InputError, ProblemError

A = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
T = np.array([[1.0], [2.0], [4.0], [8.0]])
FRAME = {"a": A[:, 0], "b": A[:, 1]}


def posed(X, y=None, model=None, loss=None):
    return ds.Problem.from_model(model or nn.Linear(2, 1), X, y, loss=loss or nn.MSELoss())


def descended(problem, **changes):
    asked = {"lr": 0.001, "epochs": 2, "engine": "looped", "progress": False, **changes}
    return ds.descend(problem, optim.SGD, **asked)


def same(problem, X=A, y=T):
    assert problem.train.x.dtype == problem.train.y.dtype == torch.float32
    np.testing.assert_array_equal(problem.train.x.numpy(), X)
    np.testing.assert_array_equal(problem.train.y.numpy(), y)
    assert np.isfinite(descended(problem).loss).all()


# -- arrays and frames -----------------------------------------------------------------------


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS = {
    "float32 array": lambda a: a.astype(np.float32),
    "float64 array": lambda a: a.copy(),
    "float16 array": lambda a: a.astype(np.float16),
    "long double array": lambda a: a.astype(np.longdouble),
    "int array": lambda a: a.astype(np.int64),
    "uint16 array": lambda a: a.astype(np.uint16),
    "big-endian array": lambda a: a.astype(">f8"),
    "Fortran order": np.asfortranarray,
    "negative strides": lambda a: a[::-1].copy()[::-1],
    "negative columns": lambda a: a[:, ::-1].copy()[:, ::-1],
    "read-only": read_only,
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(map(tuple, a.tolist())),
    "list of arrays": list,
    "float32 tensor": lambda a: torch.tensor(a, dtype=torch.float32),
    "float64 tensor": torch.tensor,
    "int tensor": lambda a: torch.tensor(a, dtype=torch.int32),
    "tensor with gradient": lambda a: torch.tensor(a, requires_grad=True),
    "list of tensors": lambda a: [torch.tensor(row) for row in a],
    "pandas": lambda a: pd.DataFrame(a),
    "pandas of kinds": lambda a: pd.DataFrame({str(i): c.astype(["i8", "f4"][i]) for i, c in
                                               enumerate(a.T)}),
    "pandas nullable": lambda a: pd.DataFrame(a).astype("Int64"),
    "polars": lambda a: pl.DataFrame(a),
    "pyarrow": lambda a: pa.table({str(i): c for i, c in enumerate(a.T)}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_inputs_and_targets_in_every_form(form):
    same(posed(FORMS[form](A), FORMS[form](T)))


SERIES = {
    "pandas": lambda v: pd.Series(v),
    "pandas, odd index": lambda v: pd.Series(v, index=[9, 7, 7, 1]),
    "polars": lambda v: pl.Series(v),
    "polars of ints": lambda v: pl.Series(v).cast(pl.Int16),
    "pyarrow": lambda v: pa.chunked_array([v[:2], v[2:]]),
    "pyarrow array": lambda v: pa.array(v),
    "list": lambda v: v.tolist(),
    "list of numpy numbers": list,
    "list of tensors": lambda v: [torch.tensor(x) for x in v],
}


@pytest.mark.parametrize("form", SERIES)
def test_a_series_is_one_number_a_row(form):
    net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    same(posed(pl.DataFrame(FRAME), SERIES[form](T[:, 0]), net), y=T[:, 0])


def test_a_column_of_truth_values_beside_numbers():
    wanted = np.array([[1.0, 0], [3, 1], [5, 0], [7, 1]])
    for library in (pd.DataFrame, pl.DataFrame):
        frame = library({"a": A[:, 0], "b": [False, True, False, True]})
        same(posed(frame, T), X=wanted)


def test_a_cast_is_said_and_a_fit_is_not():
    assert posed(A, T).notes == (
        "X was cast from float64 to the parameters' float32",
        "y was cast from float64 to the parameters' float32",
    )
    assert posed(A.astype(np.float32), torch.tensor(T).float()).notes == ()
    assert posed(A.astype(int), T.astype(np.float32)).notes == (
        "X was cast from int64 to the parameters' float32",
    )


def test_images_of_bytes_are_cast():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 1, 5, 5), dtype=np.uint8)
    labels = random.integers(0, 3, 6, dtype=np.uint8)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 3))
    p = posed(images, labels, net, nn.CrossEntropyLoss())
    assert p.notes == ("X was cast from uint8 to the parameters' float32",)
    assert p.train.y.dtype == torch.int64
    np.testing.assert_array_equal(p.train.x, images)
    logits = net(torch.tensor(images).float()).detach().double().numpy()
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = -logs[np.arange(6), labels].mean()
    np.testing.assert_allclose(descended(p).loss[0, 0], wanted, rtol=1e-5)


def test_bytes_do_not_wrap_around_in_the_users_own_arithmetic():
    X, y = np.array([10, 20, 30], dtype=np.uint8), np.array([1.0, 2.0, 3.0])
    p = ds.Problem.from_function(lambda x, w: w * x**2, X, y, loss=nn.MSELoss(), start={"w": 1.0})
    wanted = np.mean((X.astype(float) ** 2 - y) ** 2)
    np.testing.assert_allclose(descended(p, steps=0, epochs=None).loss[0, 0], wanted, rtol=1e-6)


def test_embeddings_keep_whole_numbers():
    ids = np.array([[0, 1], [2, 3], [4, 0]])
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 1))
    for X in (ids, torch.tensor(ids, dtype=torch.int32), ids.tolist(), pd.DataFrame(ids)):
        p = posed(X, [[1.0], [2.0], [3.0]], net)
        assert not p.train.x.is_floating_point()
        wanted = (net(torch.tensor(ids)).detach().flatten() - torch.arange(1.0, 4)).square().mean()
        runs = descended(p)
        np.testing.assert_allclose(runs.loss[0, 0], wanted, rtol=1e-6)
        assert runs[0].predict(ids).shape == (3, 1)


def test_an_objective_that_needs_whole_numbers_gets_them():
    ids = np.array([0, 1, 2, 1])

    def objective(model, x, y):
        return (model(x).flatten() - y).square().mean()

    p = ds.Problem.from_model(nn.Embedding(3, 1), ids, A[:, 0], objective=objective)
    assert p.train.x.dtype == torch.int64 and p.train.y.dtype == torch.float32
    runs = descended(p, lr=0.5, epochs=200)
    np.testing.assert_allclose(runs.parameters["weight"][0].flatten(), [1, 5, 5], rtol=1e-4)


def test_whole_number_targets_of_a_loss_of_numbers_are_cast():
    p = posed(A.astype(np.float32), T.astype(np.int64))
    assert p.notes == ("y was cast from int64 to the parameters' float32",)
    net = nn.Linear(2, 1)
    p = posed(A, np.array([[0], [1], [1], [0]]), net, nn.BCEWithLogitsLoss())
    z = net(torch.tensor(A).float()).detach().double().numpy()
    wanted = np.mean(np.log1p(np.exp(z)) - z * np.array([[0], [1], [1], [0]]))
    np.testing.assert_allclose(descended(p).loss[0, 0], wanted, rtol=1e-5)


@pytest.mark.parametrize("as_tensors", [False, True])
def test_the_users_data_is_never_changed(as_tensors):
    X, y = (torch.tensor(A), torch.tensor(T)) if as_tensors else (A.copy(), T.copy())
    flags = None if as_tensors else (X.flags.writeable, X.dtype)
    net = nn.Linear(2, 1).double()  # of the data's own dtype, so that nothing is copied
    runs = descended(posed(X, y, net), batch_size=[2, "full"])
    runs[0].predict(X)
    np.testing.assert_array_equal(np.asarray(X), A)
    np.testing.assert_array_equal(np.asarray(y), T)
    if flags:
        assert (X.flags.writeable, X.dtype) == flags


def test_a_model_that_writes_into_its_inputs_is_refused_or_given_copies():
    X = A - 4  # so that ReLU in place has something to change
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 1)).double()
    try:
        descended(posed(X, T, net))
    except ProblemError as error:
        assert "in place" in str(error)
    np.testing.assert_array_equal(X, A - 4)


def test_memory_is_shared_where_it_can_be():
    assert np.shares_memory(as_tensor(A, "X").numpy(), A)


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        (A, T[:3], "X has 4 rows but y has 3"),
        (A[:0], T[:0], "X has no rows"),
        (3.0, 4.0, "tensor, array or dataframe, got float"),
        (np.array(3.0), np.array(4.0), "a row for each sample"),
        (torch.tensor(3.0), torch.tensor(4.0), "a row for each sample"),
        ([[1.0, 2.0], [3.0]], T, "X has rows of different lengths"),
        ([["a", "b"]] * 4, T, "X must hold numbers, got <U1; .* use Problem.from_table"),
        (pd.DataFrame({"a": list("abcd")}), T, "X must hold numbers"),
        (pl.DataFrame({"a": list("abcd")}), T, "X must hold numbers"),
        (A, list("abcd"), "y must hold numbers"),
        (A.astype(complex), T, "X must hold numbers, got complex128"),
        (A.astype("datetime64[s]"), T, "X must hold numbers"),
        (A.astype(object), T, "X must hold numbers, got object"),
        ("file.csv", T, "X must be a tensor, array or dataframe, got str"),
        ({"a": [1, 2]}, T, "X must be a tensor, array or dataframe, got dict"),
        (None, T, "X must be a tensor, array or dataframe, got NoneType"),
        (pl.LazyFrame(FRAME), T, "X must be a tensor, array or dataframe, got LazyFrame"),
        (TensorDataset(torch.tensor(A)), T, "brings its own targets: leave y out"),
        (DataLoader(TensorDataset(torch.tensor(A))), T, "brings its own targets: leave y out"),
    ],
)
def test_what_data_cannot_be(X, y, said):
    with pytest.raises(ProblemError, match=said) as caught:
        posed(X, y)
    assert "\n" not in str(caught.value)


# -- datasets --------------------------------------------------------------------------------


class Pairs(Dataset):
    """A map-style dataset of one's own; `item` makes what it gives of a row and a target."""

    def __init__(self, item, count=4):
        self.item, self.count = item, count

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        return self.item(A[place], T[place])


DATASETS = {
    "TensorDataset": lambda: TensorDataset(torch.tensor(A), torch.tensor(T)),
    "numpy items": lambda: Pairs(lambda a, t: (a, t)),
    "tensor items": lambda: Pairs(lambda a, t: (torch.tensor(a), torch.tensor(t))),
    "items in lists": lambda: Pairs(lambda a, t: [a.astype(np.float32), t.astype(np.int64)]),
    "a subset of all": lambda: Subset(TensorDataset(torch.tensor(A), torch.tensor(T)), range(4)),
}


@pytest.mark.parametrize("form", DATASETS)
def test_datasets(form):
    p = posed(DATASETS[form]())
    same(p)
    assert (p.batch_size, p.order, p.drop_last, p.loader) == (None, "shuffle", False, None)


def test_python_numbers_as_targets():
    net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    same(posed(Pairs(lambda a, t: (a, float(t[0]))), None, net), y=T[:, 0])
    p = posed(Pairs(lambda a, t: (a, int(t[0] > 2))), None, nn.Linear(2, 2),
              nn.CrossEntropyLoss())  # fmt: skip
    assert p.train.y.tolist() == [0, 0, 1, 1]


def test_a_subset_is_its_own_rows():
    data = Subset(TensorDataset(torch.tensor(A), torch.tensor(T)), [3, 1])
    same(posed(data), A[[3, 1]], T[[3, 1]])


def test_a_dataset_of_inputs_alone_serves_an_objective():
    def objective(model, x, y):
        assert y is None
        return model(x).square().mean()

    for data in (TensorDataset(torch.tensor(A)), Pairs(lambda a, t: a)):
        p = ds.Problem.from_model(nn.Linear(2, 1), data, objective=objective)
        assert p.train.y is None and np.isfinite(descended(p).loss).all()


def test_reading_a_dataset_leaves_the_random_state():
    net, before = nn.Linear(2, 1), torch.get_rng_state()
    posed(Pairs(lambda a, t: (torch.tensor(a) + 0 * torch.rand(2), t)), model=net)
    assert torch.equal(before, torch.get_rng_state())


class NoLength(Dataset):
    def __getitem__(self, place):
        raise AssertionError("never asked for")


class Stream(IterableDataset):
    def __init__(self, count=4):
        self.count = count

    def __iter__(self):
        return iter([(torch.tensor(A[i]), torch.tensor(T[i])) for i in range(self.count)])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (TensorDataset(*[torch.tensor(A)] * 3), "pairs that become two tensors, got tuple of 3"),
        (Pairs(lambda a, t: {"x": a, "y": t}), "pairs that become two tensors, got dict of 2"),
        (Pairs(lambda a, t: (a, "text")), "pairs that become two tensors, got list of 2"),
        (Pairs(lambda a, t: (a, t), count=0), "Pairs has no rows"),
        (TensorDataset(torch.zeros(0, 2), torch.zeros(0, 1)), "has no rows"),
        (NoLength(), "NoLength has no length: wrap it in a DataLoader"),
        (Stream(), "Stream has no length: wrap it in a DataLoader"),
        (DataLoader(Stream(0)), "gives no batches"),
    ],
)
def test_what_a_dataset_cannot_be(data, said):
    with pytest.raises(ProblemError, match=said) as caught:
        posed(data)
    assert "\n" not in str(caught.value)


# -- loaders ---------------------------------------------------------------------------------


def pairs():
    return TensorDataset(torch.tensor(A).float(), torch.tensor(T).float())


def replacing(data):
    return RandomSampler(data, replacement=True)


TAKEN_OVER = {
    "plain": ({}, (1, "cyclic", False)),
    "batches in order": ({"batch_size": 3}, (3, "cyclic", False)),
    "shuffled": ({"batch_size": 3, "shuffle": True}, (3, "shuffle", False)),
    "drop_last": ({"batch_size": 3, "shuffle": True, "drop_last": True}, (3, "shuffle", True)),
    "replacement": ({"batch_size": 2, "sampler": replacing}, (2, "replacement", False)),
    "sequential sampler": ({"batch_size": 2, "sampler": SequentialSampler}, (2, "cyclic", False)),
}


@pytest.mark.parametrize("form", TAKEN_OVER)
def test_a_loaders_batches_become_the_defaults(form):
    settings, (size, order, drop_last) = TAKEN_OVER[form]
    data = pairs()
    if callable(settings.get("sampler")):
        settings = {**settings, "sampler": settings["sampler"](data)}
    p = posed(DataLoader(data, **settings))
    same(p)
    assert (p.batch_size, p.order, p.drop_last, p.loader) == (size, order, drop_last, None)
    runs = descended(p)
    assert (runs.table["batch_size"][0], runs.table["order"][0]) == (str(size), order)
    updates = 4 // size if drop_last else -(-4 // size)
    assert runs.table["steps"][0] == 2 * updates
    other = descended(p, batch_size="full", order="shuffle")
    assert other.table["batch_size"][0] == "full" and other.table["steps"][0] == 2


def test_a_loader_in_order_gives_its_very_batches():
    loader, net = DataLoader(pairs(), batch_size=3), nn.Linear(2, 1)
    runs = descended(posed(loader, model=net), keep=("loss", "batch_loss", "parameters"))
    optimizer = optim.SGD(net.parameters(), lr=0.001)
    losses = []
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(runs.batch_loss[0], losses, rtol=1e-5)
    torch.testing.assert_close(runs.parameters["weight"][0], net.weight.detach())


def test_drop_last_drops_the_same_number_everywhere():
    p = posed(DataLoader(pairs(), batch_size=3, drop_last=True))
    for engine in ("looped", "stacked"):
        runs = descended(p, lr=[0.001] * 4, engine=engine)
        assert set(runs.table["steps"]) == {2}
        net = p.fresh(0).model  # the fourth row is never stepped on
        for _ in range(2):
            loss = nn.functional.mse_loss(net(p.train.x[:3]), p.train.y[:3])
            for q, g in zip(net.parameters(), torch.autograd.grad(loss, net.parameters()),
                            strict=True):  # fmt: skip
                q.data -= 0.001 * g
        torch.testing.assert_close(runs.parameters["weight"][0], net.weight.detach())


def doubled(items):
    x, y = torch.utils.data.default_collate(items)
    return 2 * x, y


class Backwards(torch.utils.data.Sampler):
    def __iter__(self):
        return iter([3, 2, 1, 0])

    def __len__(self):
        return 4


KEPT = {
    "a sampler of one's own": lambda: DataLoader(pairs(), batch_size=3, sampler=Backwards()),
    "weights": lambda: DataLoader(
        pairs(), batch_size=2, sampler=WeightedRandomSampler([1.0, 2, 3, 4], 4)
    ),
    "some rows": lambda: DataLoader(pairs(), batch_size=2, sampler=SubsetRandomSampler([0, 1, 3])),
    "fewer samples": lambda: DataLoader(
        pairs(), batch_size=2, sampler=RandomSampler(range(4), num_samples=3)
    ),
    "batch sampler": lambda: DataLoader(pairs(), batch_sampler=[[0, 1, 2], [3]]),
    "torch's batch sampler": lambda: DataLoader(
        pairs(), batch_sampler=BatchSampler(Backwards(), 3, False)
    ),
    "collate_fn": lambda: DataLoader(pairs(), batch_size=2, collate_fn=doubled),
    "stream": lambda: DataLoader(Stream(), batch_size=3),
    "stream of samples": lambda: DataLoader(Stream(), batch_size=1),
    "own generator": lambda: DataLoader(
        pairs(),
        batch_size=2,
        sampler=RandomSampler(range(4), num_samples=3, generator=torch.Generator()),
    ),
}


@pytest.mark.parametrize("form", KEPT)
def test_other_loaders_are_kept_as_they_are(form):
    loader = KEPT[form]()
    p = posed(loader)
    assert p.loader is loader and len(p.train) == 4
    runs = descended(p, engine="auto", seed=[0, 0, 1, 2, 3])
    assert set(runs.table["engine"]) == {"looped"} and np.isfinite(runs.loss).all()
    updates = sum(1 for _ in loader)
    assert set(runs.table["steps"]) == {2 * updates}
    np.testing.assert_array_equal(runs.loss[0], runs.loss[1])  # of the same seed
    with pytest.raises(InputError, match="batches in a way of its own"):
        descended(p, batch_size=2)
    with pytest.raises(InputError, match="batches in a way of its own"):
        descended(p, order="cyclic")


@pytest.mark.parametrize("form", KEPT)
def test_reading_a_loader_leaves_all_random_states(form):
    loader = KEPT[form]()
    own = getattr(loader.sampler, "generator", None)
    net = nn.Linear(2, 1)
    before = torch.get_rng_state(), None if own is None else own.get_state()
    descended(posed(loader, model=net))
    assert torch.equal(before[0], torch.get_rng_state())
    assert own is None or torch.equal(before[1], own.get_state())


def test_a_kept_loader_steps_on_its_own_batches():
    loader, net = KEPT["a sampler of one's own"](), nn.Linear(2, 1)
    runs = descended(posed(loader, model=net), keep=("loss", "batch_loss"))
    optimizer = optim.SGD(net.parameters(), lr=0.001)
    losses = []
    for _ in range(2):
        for rows in ([3, 2, 1], [0]):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(torch.tensor(A[rows]).float()),
                                          torch.tensor(T[rows]).float())  # fmt: skip
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(runs.batch_loss[0], losses, rtol=1e-5)


def test_a_collate_function_makes_the_rows():
    same(posed(KEPT["collate_fn"]()), X=2 * A)


def test_a_kept_loaders_batches_are_cast_like_the_rows():
    images = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))  # fmt: skip
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1], dtype=torch.int32)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    loader = DataLoader(TensorDataset(images, labels), 4, sampler=SubsetRandomSampler(range(8)))
    runs = descended(posed(loader, None, net, nn.CrossEntropyLoss()), lr=1e-6)
    assert np.isfinite(runs.loss).all()


def test_a_kept_loaders_whole_number_targets_are_cast_like_the_rows():
    data = TensorDataset(torch.tensor(A).float(), torch.tensor(T).long())
    runs = descended(posed(DataLoader(data, 2, sampler=SubsetRandomSampler(range(4)))))
    assert np.isfinite(runs.loss).all()

"""What is minimised: parameters and a loss, with or without data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downslope.data import Rows, as_tensor, loader_batches, read_rows
from downslope.errors import InputError, ProblemError
from downslope.losses import check_loss, joined, loss_by_name, wants_classes
from downslope.models import model_factory
from downslope.objective import MODEL_PREFIX, Function, Objective, start_values
from downslope.problem_checks import cast, checked
from downslope.randomness import borrowed, state
from downslope.sampling import torch_seed
from downslope.tables import Schema, Split, fit_schema, read_table, split_rows, target_rows

EVALUATED_ROWS = 8192
"""Rows evaluated at once where the loss of all rows can be put together from blocks."""


@dataclass(frozen=True, eq=False)
class Table:
    """Where a problem's rows came from, so that new rows get the same treatment."""

    schema: Schema
    split: Split
    model: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """Something differentiable to minimise. Make one with a ``from_...`` constructor.

    Attributes:
        train: the training rows, or None for a function without data.
        validation, test: rows kept apart, or None.
        batch_size, order, drop_last: what `descend` takes where it is not told otherwise.
        notes: sentences on what was done to the input (casts, fills …).
        table: the schema and split, for a problem made from a table.
    """

    make: Callable[[], Objective] = field(repr=False)
    draws_start: bool
    kind: str
    train: Rows | None = None
    validation: Rows | None = None
    test: Rows | None = None
    batch_size: int | None = None
    order: str = "shuffle"
    drop_last: bool = False
    loader: Any = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    table: Table | None = field(default=None, repr=False)
    loader_batches: int = 0
    exact: Callable[[], Objective] | None = field(default=None, repr=False)
    """Makes the objective before it was cast to the problem's dtype."""
    given: Rows | None = field(default=None, repr=False)
    """The training rows before they were cast."""

    # -- constructors ----------------------------------------------------------------------

    @classmethod
    def from_function(
        cls, function: Callable[..., Tensor], X: Any = None, y: Any = None, *, start: Any,
        loss: Any = None,
    ) -> Problem:  # fmt: skip
        """A plain function of loose tensors.

        Args:
            function: without data, ``function(parameter)`` or ``function(**parameters)`` gives
                the loss; with data, ``function(x, **parameters)`` gives the prediction.
            X, y: inputs and targets, a row a sample; or leave both out.
            start: a number or sequence for a function of one argument, a dict of them by
                argument name otherwise. The numbers become torch's default dtype.
            loss: with data, a torch loss or ``loss(prediction, target)``, the mean over rows.

        Raises:
            ProblemError: if the parts do not fit each other.

        >>> p = Problem.from_function(lambda x: x**2 - 4 * x + 5, start=7.0)
        >>> p.names
        ('x',)
        >>> X = torch.arange(-5, 5, 0.1)
        >>> p = Problem.from_function(lambda x, w, b: w * x + b, X=X, y=-5 * X,
        ...                           loss=nn.MSELoss(), start={"w": -10.0, "b": -20.0})
        >>> p.names, len(p.train)
        (('w', 'b'), 100)
        """
        if not callable(function):
            raise ProblemError(f"function must be callable, got {type(function).__name__}")
        values, positional, dtype = start_values(function, start, X is not None)
        model = Function(function, values, positional)
        if X is None:
            if y is not None or loss is not None:
                raise ProblemError("y and loss belong to data: give X too, or leave them out")
            exact = Objective(model).copied
            return checked(
                cls(
                    make=lambda: exact().to(dtype=dtype),
                    exact=exact,
                    draws_start=False,
                    kind="function",
                )
            )
        if loss is None:
            raise ProblemError("a function with data needs loss=, for example torch.nn.MSELoss()")
        return _with_data(cls, model, "function", X, y, check_loss(loss), None, dtype)

    @classmethod
    def from_model(
        cls, model: nn.Module | Callable[[], nn.Module], X: Any, y: Any = None, *,
        loss: Any = None, objective: Callable[..., Tensor] | None = None,
    ) -> Problem:  # fmt: skip
        """A torch module, left exactly as it is, a loss and data.

        Args:
            model: an instance (every run starts where it stands) or a factory (each seed draws
                a fresh start).
            X, y: tensors, arrays or dataframes, a row a sample; or a Dataset or DataLoader of
                pairs in the place of X.
            loss: a torch loss, or ``loss(prediction, target)``, the mean over the batch.
            objective: ``objective(model, x, y)`` in place of a loss.

        Raises:
            ProblemError: if prediction and target have different shapes, and for other misfits.

        >>> X = torch.linspace(-1, 1, 50).reshape(-1, 1)
        >>> p = Problem.from_model(nn.Linear(1, 1), X, 2 * X, loss=nn.MSELoss())
        >>> p.names
        ('weight', 'bias')
        """
        if not callable(model):
            raise ProblemError(
                f"model must be a torch.nn.Module or a function that makes one, got {model!r}"
            )
        if (loss is None) == (objective is None):
            raise ProblemError("give either loss= or objective=")
        used = None if loss is None else check_loss(loss)
        return _with_data(cls, model, "model", X, y, used, objective)

    @classmethod
    def from_table(
        cls, source: Any, target: str, model: Any = "linear", *, loss: Any = None,
        task: Literal["regression", "classification"] | None = None,
        missing: Literal["mean", "drop", "error"] = "mean", validation: float = 0.2,
        test: float = 0.2, split_seed: int = 0,
    ) -> Problem:  # fmt: skip
        """A table with a column to predict.

        Args:
            source: a CSV or Parquet file, or any dataframe.
            target: the column to predict.
            model: ``linear``, ``poly:3``, ``mlp:32,32``, ``mlp:32,32:tanh``,
                ``file.py:ClassName``, a module, or a callable of (inputs, outputs).
            loss: a torch loss or one of the names in `downslope.losses.LOSSES`; by default mean
                squared error, or cross-entropy for classes.
            task: "regression" or "classification", where the target leaves it open.
            missing: "mean" (fill in), "drop" (leave the row out) or "error".
            validation, test: shares of the rows kept apart, drawn by `split_seed`.

        Raises:
            TableError, ProblemError: what is wrong with the table, or does not fit.

        >>> import polars
        >>> frame = polars.DataFrame({"rooms": [1, 2, 3, 4, 5], "price": [10., 21, 29, 41, 50]})
        >>> p = Problem.from_table(frame, target="price", model="linear")
        >>> len(p.train), len(p.validation), len(p.test)
        (3, 1, 1)
        """
        used = loss_by_name(loss) if isinstance(loss, str) else loss
        if isinstance(used, nn.PoissonNLLLoss):
            raise ProblemError(
                "loss poisson needs counts, but a table's target is standardised: "
                "make tensors of the table and use Problem.from_model"
            )
        if wants_classes(used) or isinstance(used, nn.BCEWithLogitsLoss):
            task = task or "classification"
        frame = read_table(source)
        usable = np.arange(frame.height)
        notes: list[str] = []
        if target in frame.columns and missing != "error":
            usable = np.flatnonzero(target_rows(frame, target))
            if left_out := frame.height - len(usable):
                notes.append(f"{left_out} rows without a target were left out")
        split = split_rows(len(usable), split_seed, validation=validation, test=test)
        schema = fit_schema(frame, target, missing=missing, task=task, rows=usable[split.train])
        classes = schema.target.classes
        if used is None:
            used = nn.CrossEntropyLoss() if classes else nn.MSELoss()
        binary = isinstance(used, nn.BCEWithLogitsLoss)
        if binary and len(classes) != 2:
            raise ProblemError(f"loss bce needs a target of two classes, got {len(classes)}")
        encoded = schema.encode(frame)
        notes.extend(encoded.notes)
        place = np.cumsum(encoded.kept) - 1  # of a row of the frame among the encoded ones

        def rows_of(part: NDArray[np.int64]) -> Rows | None:
            rows = usable[part][encoded.kept[usable[part]]]
            if not len(rows):
                return None
            x = torch.from_numpy(encoded.X[place[rows]]).to(torch.get_default_dtype())
            y = torch.tensor(schema.encode_target(frame[rows]))
            if binary or not classes:
                y = y.to(x.dtype).reshape(-1, 1)
            return Rows(x, y)

        train = rows_of(split.train)
        if train is None:
            raise ProblemError("no training row is left")
        outputs = len(classes) if classes and not binary else 1
        made = model_factory(model, len(schema.feature_names), outputs)
        problem = _with_data(cls, made, "table", train.x, train.y, check_loss(used), None)
        return replace(
            problem,
            validation=rows_of(split.validation),
            test=rows_of(split.test),
            notes=tuple(dict.fromkeys((*notes, *problem.notes))),
            given=None,
            table=Table(schema, split, model if isinstance(model, str) else str(model)),
        )

    # -- what engines ask --------------------------------------------------------------------

    @cached_property
    def template(self) -> Objective:
        """An objective that must not be changed, for its structure and (if fixed) its start."""
        return self.fresh(0)

    def fresh(self, seed: int) -> Objective:
        """A new objective at the start of a run with this seed."""
        if not self.draws_start:
            return self.make()
        # A factory makes its model on the CPU, whatever device it is moved to.
        with borrowed(torch.device("cpu"), torch_seed(seed, 0)):
            return self.make()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in the module's order."""
        return tuple(
            name.removeprefix(MODEL_PREFIX)
            for name, p in self.template.named_parameters()
            if p.requires_grad
        )

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """The parameters' shapes by name."""
        parameters = dict(self.template.named_parameters())
        return {name: parameters[MODEL_PREFIX + name].shape for name in self.names}

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return self.template.get_parameter(MODEL_PREFIX + self.names[0]).dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.template.get_parameter(MODEL_PREFIX + self.names[0]).device

    @cached_property
    def random(self) -> bool:
        """Whether a training pass draws random numbers (dropout and the like)."""
        with borrowed(self.device):
            before = state(self.device)
            self.forward(self.fresh(0), 4)
            return not all(map(torch.equal, before, state(self.device)))

    @cached_property
    def joined(self) -> str:
        """How the loss of all rows follows from blocks of rows: "mean", "sum" or "whole"."""
        return "whole" if self.template.objective is not None else joined(self.template.loss)

    def forward(self, objective: Objective, rows: int) -> Tensor:
        """The loss of the first few rows, by this objective."""
        if self.train is None:
            return objective()
        some = self.train[:rows].copied()
        return objective(some.x, some.y)

    @cached_property
    def keeps_state(self) -> bool:
        """Whether a training pass changes more of the model than its buffers' values: a plain
        attribute, or a buffer that is put in another's place."""
        objective = self.fresh(0)
        with borrowed(self.device):
            before = _own_state(objective.model)
            self.forward(objective, 4)
            after = _own_state(objective.model)
        return before.keys() != after.keys() or not all(
            value is after[key] or _equal(value, after[key]) for key, value in before.items()
        )

    @cached_property
    def others(self) -> tuple[str, ...]:
        """The names of what a run's end has besides its parameters: parameters that are not
        descended, and buffers."""
        model = self.template.model
        frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
        return (*frozen, *(n for n, _ in model.named_buffers()))

    @cached_property
    def shapes_of_others(self) -> dict[str, torch.Size]:
        """The shapes of `others` by name."""
        model = self.template.model
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return {name: named[name].shape for name in self.others}

    def to(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Problem:
        """The same problem in another dtype or on another device, without rounding twice."""
        device = torch.device(device) if device is not None else None
        dtype = self.dtype if dtype is None else dtype
        if dtype == self.dtype and (device is None or device == self.device):
            return self
        if not dtype.is_floating_point:
            raise ProblemError(f"dtype must be floating point, got {dtype}")
        make, train = self.exact or self.make, self.train

        def moved(rows: Rows | None) -> Rows | None:
            return None if rows is None else rows.to(dtype=dtype, device=device)

        if train is not None and self.given is not None and dtype != self.dtype:
            train = self.given.cast(train, dtype)
        return replace(
            self,
            make=lambda: make().to(dtype=dtype, device=device),
            train=moved(train),
            validation=moved(self.validation),
            test=moved(self.test),
        )


def _own_state(model: nn.Module) -> dict[tuple[str, str], Any]:
    """Everything in a model's modules but parameters and submodules, by module and name."""
    found: dict[tuple[str, str], Any] = {}
    for name, module in model.named_modules():
        found |= {(name, key): v for key, v in vars(module).items() if not key.startswith("_")}
        found |= {(name, key): b for key, b in module.named_buffers(recurse=False)}
    return found


def _equal(before: Any, after: Any) -> bool:
    plain = isinstance(before, int | float | str | bool | tuple | type(None))
    return plain and type(before) is type(after) and before == after


def row_blocks(problem: Problem, rows: Rows) -> list[tuple[slice, float]]:
    """The blocks in which a loss over `rows` is evaluated, each with its weight."""
    count = len(rows)
    if problem.joined == "whole" or count <= EVALUATED_ROWS:
        return [(slice(0, count), 1.0)]
    edges = range(0, count, EVALUATED_ROWS)
    blocks = [slice(a, min(a + EVALUATED_ROWS, count)) for a in edges]
    if problem.joined == "sum":
        return [(block, 1.0) for block in blocks]
    return [(block, (block.stop - block.start) / count) for block in blocks]


def _with_data(
    cls: type[Problem],
    model: Any,
    kind: str,
    X: Any,
    y: Any,
    loss: Any,
    objective: Any,
    dtype: torch.dtype | None = None,
) -> Problem:
    source = read_rows(X, y)
    if isinstance(model, nn.Module):
        kept = Objective(model, loss, objective).copied()
        if not model.training:  # trained all the same, as a training loop would
            kept.model.train()
        exact = kept.copied
    else:

        def exact() -> Objective:
            made = model()
            if not isinstance(made, nn.Module):
                raise ProblemError(
                    f"the model factory must make a torch.nn.Module, got {type(made).__name__}"
                )
            fresh = Objective(made, loss, objective).copied()
            if not made.training:
                fresh.model.train()
            return fresh

    given = source.rows.copied()
    problem = cls(
        make=exact if dtype is None else lambda: exact().to(dtype=dtype),
        exact=exact,
        draws_start=not isinstance(model, nn.Module),
        kind=kind,
        train=given,
        given=given,
        batch_size=source.batch_size,
        order=source.order or "shuffle",
        drop_last=source.drop_last,
        loader=source.loader,
        loader_batches=0 if source.loader is None else loader_batches(source.loader),
    )
    if problem.loader is not None and not problem.loader_batches:
        raise ProblemError("the DataLoader gives no batch")
    return checked(cast(problem))


def with_validation(problem: Problem, validation: Any) -> Problem:
    """The problem with rows kept apart: a share of the training rows (the same whenever it is
    asked for), or a pair of tensors.

    Raises:
        InputError: if the share or the shapes do not fit.
    """
    if problem.train is None:
        raise ProblemError("a function without data has no rows for validation")
    if isinstance(validation, float | int) and not isinstance(validation, bool):
        count, share = len(problem.train), float(validation)
        kept_apart = round(share * count)
        if not 0 < share < 1 or not 0 < kept_apart < count:
            raise InputError(
                f"validation must be a share of the rows between 0 and 1 that leaves some of the "
                f"{count} rows on both sides, got {validation!r}"
            )
        mixed = torch.from_numpy(np.random.Generator(np.random.Philox(key=0)).permutation(count))
        apart, rest = mixed[:kept_apart].sort().values, mixed[kept_apart:].sort().values
        if problem.loader is not None:
            raise InputError(
                "the DataLoader draws its batches in a way of its own, so no share of its rows can "
                "be kept apart: give validation=(X, y)"
            )
        train, given = problem.train, problem.given
        return replace(
            problem,
            train=train[rest],
            given=None if given is None else given[rest],
            validation=train[apart],
        )
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise InputError("validation must be a share of the rows, or a pair (X, y)")
    like = problem.train
    x, y = as_tensor(validation[0], "validation X"), as_tensor(validation[1], "validation y")
    if len(x) != len(y) or x.shape[1:] != like.x.shape[1:] or like.y is None:
        raise InputError(
            f"validation rows have shapes {tuple(x.shape)} and {tuple(y.shape)}; the training "
            f"rows have {tuple(like.x.shape)} and {() if like.y is None else tuple(like.y.shape)}"
        )
    if y.shape[1:] != like.y.shape[1:]:
        raise InputError(
            f"validation targets have shape {tuple(y.shape)}, training targets "
            f"{tuple(like.y.shape)}"
        )
    rows = Rows(x.to(like.x.device, like.x.dtype), y.to(like.y.device, like.y.dtype))
    return replace(problem, validation=rows)

"""What is minimised: parameters and a loss, with or without data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from downslope.data import Rows, loader_batches, read_rows
from downslope.errors import ProblemError
from downslope.losses import check_loss, joined
from downslope.models import model_factory
from downslope.objective import (
    MODEL_PREFIX,
    Function,
    Objective,
    own_state,
    same_state,
    start_values,
)
from downslope.problem_checks import cast, checked
from downslope.randomness import borrowed, state
from downslope.sampling import torch_seed
from downslope.tables import Schema, Split
from downslope.tabular import Missing, Task, file_path, read_rows_of_table


@dataclass(frozen=True, eq=False)
class Table:
    """Where a problem's rows came from, so that new rows get the same treatment.

    Attributes:
        asked: the arguments of `Problem.from_table` that a file can hold, and the table's path.
    """

    schema: Schema
    split: Split
    model: str
    asked: Mapping[str, Any] = field(default_factory=dict)


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
    train: Rows | None = field(default=None, repr=False)
    validation: Rows | None = field(default=None, repr=False)
    test: Rows | None = field(default=None, repr=False)
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
        task: Task | None = None,
        missing: Missing = "mean", validation: float = 0.2,
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
        rows = read_rows_of_table(source, target, loss, task, missing, split_seed, validation, test)
        asked = {"target": target, "loss": loss if isinstance(loss, str) else None, "task": task,
                 "missing": missing, "validation": validation, "test": test,
                 "split_seed": split_seed, "source": file_path(source)}  # fmt: skip
        made = model_factory(model, len(rows.schema.feature_names), rows.outputs)
        problem = _with_data(
            cls, made, "table", rows.train.x, rows.train.y, check_loss(rows.loss), None
        )
        return replace(
            problem,
            given=None,
            validation=rows.validation,
            test=rows.test,
            notes=tuple(dict.fromkeys((*rows.notes, *problem.notes))),
            table=Table(
                rows.schema, rows.split, model if isinstance(model, str) else str(model), asked
            ),
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
            before = own_state(objective.model)
            self.forward(objective, 4)
            return not same_state(before, own_state(objective.model))

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
            try:
                made = model()
            except (TypeError, ValueError) as error:
                said = " ".join(str(error).split())
                raise ProblemError(f"the model factory fails: {said}") from error
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

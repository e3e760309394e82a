"""What is known of a run when it is judged: its settings, its curve, and the places measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, optim

from downslope.engines.work import Status
from downslope.explain import stability
from downslope.explain.places import Places
from downslope.explain.preconditioner import ADAPTIVE
from downslope.groups import Group

Array = NDArray[np.float64]

PLACES = ("start", "calm", "quarter", "half", "late", "end")
"""Places along a run at which curvature is measured; "calm" is its lowest loss."""


@dataclass(frozen=True)
class Settings:
    """What a run was told.

    Attributes:
        kind: "sgd", "adaptive" (Adam, AdamW, RMSprop) or "other".
        lr: None where rates go by parameter name, or there is none.
        batch_size: None for all rows at once.
        full: whether every update sees all rows.
        decays: whether the optimizer pulls parameters towards 0.
        scheduled: whether rates move; lr is then that of the late updates, or of the first bad one.
        highest_lr: the highest rate of all updates.
        sign: -1 where the loss is maximised.
    """

    optimizer: str
    kind: str
    lr: float | None
    momentum: float
    dampening: float
    nesterov: bool
    weight_decay: float
    beta1: float
    batch_size: int | None
    full: bool
    order: str
    clip_norm: float
    scheduled: bool
    sign: float
    decays: bool = False
    highest_lr: float | None = None

    @property
    def heavy(self) -> stability.Momentum:
        """Momentum as the theory takes it; that of Adam is damped."""
        if self.kind == "adaptive":
            return {"momentum": self.beta1, "dampening": self.beta1}
        return {
            "momentum": self.momentum,
            "dampening": self.dampening,
            "nesterov": self.nesterov,
        }

    def threshold(self, curvature: float) -> float:
        """The rate above which all rows at once would leave a place that is bent so; inf where it
        is not bent upward."""
        if not curvature > 0:
            return np.inf
        return float(stability.threshold(curvature, **self.heavy))

    @property
    def memory(self) -> float:
        """What momentum multiplies a small rate by in the long run."""
        if self.kind != "sgd":
            return 1.0
        undamped = 1.0 if self.nesterov else 1 - self.dampening
        return max(undamped / (1 - self.momentum), 1.0) if self.momentum < 1 else 1.0


def settings_of(group: Group, run: int, full: bool, scheduled: bool) -> Settings:
    """The settings of one run of a group."""
    given = group.settings(run)
    cls = group.optimizer

    def number(name: str, otherwise: float = 0.0) -> float:
        value = given.get(name, otherwise)
        return float(value) if isinstance(value, int | float) else otherwise

    kind = "other"
    if cls is optim.SGD:
        kind = "sgd"
    elif cls in ADAPTIVE and not given.get("centered") and not number("momentum"):
        kind = "adaptive"
    plain = "lr" in given and isinstance(given["lr"], int | float) and not group.patterned
    betas: Any = given.get("betas", (0.0,))
    return Settings(
        optimizer=cls.__name__,
        kind=kind,
        lr=float(given["lr"]) if plain else None,
        momentum=number("momentum"),
        dampening=number("dampening") if number("momentum") else 0.0,  # as torch has it
        nesterov=bool(given.get("nesterov", False)),
        weight_decay=number("weight_decay") if cls is not optim.AdamW else 0.0,
        beta1=float(betas[0]) if kind == "adaptive" and cls is not optim.RMSprop else 0.0,
        batch_size=group.batch_size,
        full=full,
        order=group.order,
        clip_norm=float(group.clip_norm[run]),
        scheduled=scheduled,
        sign=-1.0 if given.get("maximize") else 1.0,
        decays=number("weight_decay") != 0,
        highest_lr=float(given["lr"]) if plain else None,
    )


@dataclass(frozen=True)
class Place:
    """One of a run's places; see `places.Places` for what is measured."""

    where: str
    loss: float
    gradient: float
    least: float
    largest: float
    fall: float
    distance: float
    steepest: float


@dataclass(frozen=True, eq=False)
class Facts:
    """One run, as it is judged.

    Attributes:
        loss, steps: at the records that the run reached; the loss' sign is turned where it is
            maximised, so that a run goes down.
        batch_loss, norms: before each update that was made.
        turned: share of the last half's moves that turn back on the one before.
        pace: change of the logarithm of a move's length in an update, over the last half.
        moved: how far the end lies from the start; size: how long the start's numbers are.
        places: by `PLACES`; at: (places, size), where they are.
    """

    number: int
    settings: Settings
    status: str
    first_bad_step: int
    steps_done: int
    loss: Array
    steps: NDArray[np.int64]
    batch_loss: Array
    norms: Array
    turned: float
    pace: float
    moved: float
    size: float
    places: dict[str, Place]
    at: Tensor

    @property
    def diverged(self) -> bool:
        """Whether it was called so while it ran."""
        return self.status == Status.diverged.name

    def flat(self, place: str) -> Tensor:
        """Where it was, (size,)."""
        return self.at[PLACES.index(place)]

    def threshold(self, place: str) -> float:
        """The rate above which all rows at once would leave this place."""
        return self.settings.threshold(self.places[place].largest)

    @property
    def bearable(self) -> float:
        """The rate that every measured place can bear: the lowest of their thresholds."""
        return min(self.threshold(name) for name in self.places)

    def bends_down(self, place: str) -> bool:
        """Whether the loss bends downward there in some direction, so that a quadratic says
        nothing of a minimum."""
        at = self.places[place]
        return at.least < -1e-3 * abs(at.largest)

    def ratio(self, place: str) -> float:
        """The run's rate against the threshold at a place; NaN where there is no telling."""
        if self.settings.lr is None or self.settings.kind != "sgd":
            return np.nan
        found = self.threshold(place)
        if np.isnan(self.places[place].largest):
            return np.nan
        return self.settings.lr / found if np.isfinite(found) else 0.0


def where_at(step: int) -> str:
    """Words for a place."""
    return "at the start" if step == 0 else f"after step {step:,}"


def moves(path: Tensor, steps: NDArray[np.int64]) -> tuple[float, float]:
    """`Facts.turned` and `Facts.pace`, from (records, size) and their steps."""
    half = path[len(path) // 2 :].double()
    if len(half) < 4:
        half = path.double()
    if len(half) < 4:
        return np.nan, np.nan
    steps = steps[-len(half) :]
    move = half[1:] - half[:-1]
    length = move.norm(dim=1)
    if not bool((length > 0).all()):
        return np.nan, np.nan
    unit = move / length[:, None]
    turned = float(((unit[1:] * unit[:-1]).sum(1) < -0.5).double().mean())
    logarithms = length.log().numpy()
    pace = float(np.polyfit(steps[1:] - steps[0], logarithms, 1)[0])
    return turned, pace


def place_of(places: Places, row: int, column: int, where: str) -> Place:
    """One place of one run."""
    return Place(where, *(float(value[row, column]) for value in vars(places).values()))

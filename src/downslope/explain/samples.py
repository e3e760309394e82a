"""What single samples and batches do to a descent's stability at a place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from downslope.explain import minibatches
from downslope.explain.curvature import Curvature
from downslope.explain.facts import Array, Settings
from downslope.sampling import batches

_MOST = 2**28
"""Multiplications that samples' eigenvalues may take, about (samples × parameters³)."""

_LONGEST = 20_000
"""Batches of an epoch up to which a fixed order is followed."""

_RANK_ONE = 1e-7
"""Share of a sample's largest curvature up to which its others count as none."""


@dataclass(frozen=True)
class Samples:
    """Single samples at a place; NaN for what is not known.

    Attributes:
        worst, most: the sample that bends the loss most, and by how much.
        safe: the rate below which no order of samples can leave the place.
        low, high: the mean-square threshold lies between them; equal where it is exact.
        factor: what an update multiplies the mean of squared distances by, with momentum.
        without_momentum: the same if there were none.
        gain, radius: in a fixed order, the largest gain within an epoch and the epoch's factor.
    """

    worst: int
    most: float
    safe: float
    low: float
    high: float
    factor: float
    without_momentum: float
    gain: float
    radius: float


def can_look(curvature: Curvature) -> bool:
    """Whether samples are few and small enough to be looked at one by one."""
    train = curvature.problem.train
    if train is None or curvature.problem.loader is not None or not curvature.training:
        return False
    return len(train) * curvature.layout.size**3 <= _MOST


def sample_hessians(curvature: Curvature, flat: Tensor) -> Array:
    """(samples, size, size), symmetric."""
    made = curvature.sample_hessians(flat).double().numpy()
    return np.asarray((made + made.transpose(0, 2, 1)) / 2)


def samples_of(hessians: Array, settings: Settings) -> Samples:
    """What these Hessians mean for a run with these settings."""
    values, vectors = np.linalg.eigh(hessians)
    most = values[:, -1]
    worst = int(most.argmax())
    size = hessians.shape[1]
    batch, again = settings.batch_size or len(hessians), settings.order == "replacement"
    low = high = factor = alone = gain = radius = np.nan
    convex = bool((values[:, 0] >= -1e-9 * most.max()).all())
    lr = settings.lr
    if convex and size <= minibatches.MOST:
        low = high = minibatches.mean_square_threshold(hessians, batch, again)
        if lr is not None:
            alone = minibatches.mean_square_factor(hessians, lr, batch, again)
            factor = alone
            if settings.momentum:
                many = 2 * size > minibatches.MOST
                factor = np.nan if many else minibatches.mean_square_factor(
                    hessians, lr, batch, again, **settings.heavy
                )  # fmt: skip
    elif convex and size > 1 and bool((np.abs(values[:, :-1]) <= _RANK_ONE * most.max()).all()):
        found = minibatches.bracket(vectors[:, :, -1] * np.sqrt(np.maximum(most, 0))[:, None],
                                    batch, again)  # fmt: skip
        low, high = found.sufficient, found.necessary
    if settings.order == "cyclic" and lr is not None and not settings.momentum:
        slices = batches(len(hessians), batch)
        if len(slices) <= _LONGEST and size <= 64:
            gain, radius = minibatches.transient_gain((hessians[s].mean(0) for s in slices), lr)
    return Samples(
        worst, float(most[worst]), float(2 / most[worst]) if most[worst] > 0 else np.inf,
        low, high, factor, alone, gain, radius,
    )  # fmt: skip

r"""What batches do to a descent's stability, and where they leave it.

The loss is the mean of n samples' losses, each with a Hessian Hᵢ; H is their mean. A batch B of b
samples steps by the mean of theirs. Distances from a common optimum are then multiplied by
I − η H_B, a random matrix, and what they do on average of squares is decided by

    E[(I − η H_B) ⊗ (I − η H_B)] = I − η (H ⊗ I + I ⊗ H) + η² D,
    D = (1 − p) H ⊗ H + p · mean(Hᵢ ⊗ Hᵢ)

with p = 1/b where samples are drawn with replacement, and (n − b) / (b (n − 1)) where a batch's
samples differ (each batch drawn anew; going through all of them in a new order each epoch is close
to it, and not the same). The matrices are P² × P²: for tiny models. `bracket` is for the others.

Source: Mulayoff and Michaeli, "Exact Mean Square Linear Stability Analysis for SGD",
arXiv 2306.07850; the bracket is derived in `bracket`'s own words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from downslope.explain.stability import Momentum

Array = NDArray[np.float64]

MOST = 24
"""Parameters up to which P² × P² matrices are made."""

_FLAT = 1e-10
"""Curvatures below this share of the largest count as none."""


def noise_share(samples: int, batch_size: int, replacement: bool = False) -> float:
    """p: how much of single samples' variance a batch's mean keeps; 0 for the full batch."""
    if replacement:
        return 1 / batch_size
    return (samples - batch_size) / (batch_size * (samples - 1)) if samples > 1 else 0.0


def _second_moments(hessians: Array, share: float) -> tuple[Array, Array]:
    """H ⊗ I + I ⊗ H and D."""
    mean, count = hessians.mean(0), hessians.shape[1]
    one = np.eye(count)
    both = np.kron(mean, one) + np.kron(one, mean)
    singles = np.einsum("nij,nkl->ikjl", hessians, hessians, optimize=True) / len(hessians)
    return both, (1 - share) * np.kron(mean, mean) + share * singles.reshape(both.shape)


def _curved(hessians: Array) -> Array:
    """The same on the directions in which the loss is curved."""
    values, vectors = np.linalg.eigh(hessians.mean(0))
    along = vectors[:, values > _FLAT * np.abs(values).max()]
    made: Array = along.T @ hessians @ along
    return made


def mean_square_threshold(
    hessians: ArrayLike, batch_size: int = 1, replacement: bool = False
) -> float:
    """The rate above which the mean of squared distances from the optimum grows without end.

    2 / λmax(C⁻¹ D), C = ½ (H ⊗ I + I ⊗ H). Single runs may well decay above it: few of them carry
    the mean.

    Args:
        hessians: (samples, parameters, parameters), positive semidefinite, as squared errors and
            convex losses of linear models have them.

    Raises:
        ValueError: for more than `MOST` parameters.
    """
    hessians = np.asarray(hessians, np.float64)
    if hessians.shape[1] > MOST:
        raise ValueError(f"{hessians.shape[1]} parameters are too many for exact second moments")
    share = noise_share(len(hessians), batch_size, replacement)
    both, moments = _second_moments(_curved(hessians), share)
    if not both.size:
        return inf
    # C is positive definite: its inverse root on both sides leaves a symmetric matrix.
    values, vectors = np.linalg.eigh(both / 2)
    root = vectors / np.sqrt(values)
    return float(2 / np.linalg.eigvalsh(root.T @ moments @ root)[-1])


def mean_square_factor(
    hessians: ArrayLike,
    rate: float,
    batch_size: int = 1,
    replacement: bool = False,
    **settings: Unpack[Momentum],
) -> float:
    """What an update multiplies the mean of squared distances by in the long run, with momentum.

    The largest modulus of the eigenvalues of E[M ⊗ M], M being what an update of
    ``torch.optim.SGD`` does to (distance, velocity), for batches drawn anew each time. Above 1 the
    mean grows without end.

    Args:
        hessians: (samples, parameters, parameters).

    Raises:
        ValueError: for more than `MOST` / 2 parameters with momentum, `MOST` without.
    """
    curved = _curved(np.asarray(hessians, np.float64))
    count = curved.shape[1]
    momentum, dampening = settings.get("momentum", 0.0), settings.get("dampening", 0.0)
    size = 2 * count if momentum else count
    if size > MOST:
        raise ValueError(f"{count} parameters are too many for exact second moments")
    if not count:
        return 1.0
    one = np.eye(count)
    if momentum:
        ahead = settings.get("nesterov", False)
        still = np.block([[one, -rate * momentum * (momentum if ahead else 1) * one],
                          [0 * one, momentum * one]])  # fmt: skip
        by_place = rate * ((1 + momentum if ahead else 1 - dampening) * one)
        moved = np.vstack([-by_place, (1 - dampening) * one])  # what H θ is multiplied by
        reach = np.hstack([one, 0 * one])
        updates = still + moved @ curved @ reach
    else:
        updates = one - rate * curved
    share = noise_share(len(curved), batch_size, replacement)
    _, moments = _second_moments(updates, share)
    return float(np.abs(np.linalg.eigvals(moments)).max())


@dataclass(frozen=True)
class Bracket:
    """Rates between which the mean-square threshold lies, from what is cheap to measure.

    Attributes:
        safe: no order of single samples can explode below it.
        sufficient: below it, squared distances shrink on average.
        necessary: above it, they grow on average.
    """

    safe: float
    sufficient: float
    necessary: float


def bracket(vectors: ArrayLike, batch_size: int = 1, replacement: bool = False) -> Bracket:
    """For Hessians of rank one, Hᵢ = aᵢ aᵢᵀ, as a squared error's 2 Jᵢᵀ Jᵢ with one output.

    With λᵢ = |aᵢ|²: each update by a single sample keeps the distance or shrinks it below
    2 / max λᵢ. At b = 1, E|θ'|² = |θ|² − 2η θᵀHθ + η² θᵀ E[Hᵢ²] θ, which is less than |θ|² for all
    θ below 2 / λmax(H^−½ E[Hᵢ²] H^−½); and averaged over all directions, more above
    2 E[λᵢ] / E[λᵢ²]. For b samples 1/η* lies below (1 − p) / η_batch + p / η*₁.

    Args:
        vectors: (samples, parameters): aᵢ.
    """
    vectors = np.asarray(vectors, np.float64)
    sizes = (vectors**2).sum(1)
    hessian = vectors.T @ vectors / len(vectors)
    squares = (vectors * sizes[:, None]).T @ vectors / len(vectors)
    values, directions = np.linalg.eigh(hessian)
    curved = values > _FLAT * values[-1]
    root = directions[:, curved] / np.sqrt(values[curved])
    one = 2 / float(np.linalg.eigvalsh(root.T @ squares @ root)[-1])
    share = noise_share(len(vectors), batch_size, replacement)
    full = 2 / float(values[-1])
    most = float(2 * sizes.mean() / (sizes**2).mean())
    return Bracket(
        safe=float(2 / sizes.max()),
        sufficient=1 / ((1 - share) / full + share / one),
        necessary=min(most, full) if batch_size == 1 else full,
    )


def transient_gain(batches: Iterable[ArrayLike], rate: float) -> tuple[float, float]:
    """A fixed order of batches: the largest gain within an epoch, and the whole epoch's factor.

    Args:
        batches: the Hessian of each batch, in order.

    Returns:
        the largest norm of the products (I − η H_k) … (I − η H_1), and the spectral radius of the
        last one. A radius below 1 says nothing about what happens before the epoch has ended.
    """
    product: Array | None = None
    most = 1.0
    for hessian in batches:
        hessian = np.asarray(hessian, np.float64)
        step = np.eye(len(hessian)) - rate * hessian
        product = step if product is None else step @ product
        most = max(most, float(np.linalg.norm(product, 2)))
    if product is None:
        raise ValueError("there are no batches")
    return most, float(np.abs(np.linalg.eigvals(product)).max())


def noise_floor(
    hessians: ArrayLike,
    gradients: ArrayLike,
    rate: float,
    batch_size: int = 1,
    replacement: bool = False,
) -> float:
    """By how much the loss stays above its optimum: ½ tr(H S), where S is the covariance of
    distances that an update leaves as it is, S = T(S) + η² p N, N = E[gᵢ gᵢᵀ].

    Args:
        gradients: (samples, parameters), of the samples at the optimum; their mean is 0.

    Returns:
        inf at and above the mean-square threshold. For small rates about (η p / 4) tr N.
    """
    hessians, gradients = np.asarray(hessians, np.float64), np.asarray(gradients, np.float64)
    if rate >= mean_square_threshold(hessians, batch_size, replacement):
        return inf
    share = noise_share(len(hessians), batch_size, replacement)
    both, moments = _second_moments(hessians, share)
    noise = share * gradients.T @ gradients / len(gradients)
    left = rate * both - rate**2 * moments
    covariance = np.linalg.lstsq(left, rate**2 * noise.ravel(), rcond=None)[0]
    return float(np.sum(hessians.mean(0) * covariance.reshape(noise.shape)) / 2)


@dataclass(frozen=True)
class NoiseScale:
    """How noisy batches' gradients are (McCandlish et al., appendix A).

    Attributes:
        gradient: |G|², of the full gradient, without bias; may come out negative.
        noise: tr Σ, the summed variance of a single sample's gradient.
    """

    gradient: float
    noise: float

    @property
    def batch_size(self) -> float:
        """Tr Σ / |G|²: near this size noise and gradient weigh the same."""
        return self.noise / self.gradient if self.gradient > 0 else inf


def noise_scale(small: tuple[int, float], large: tuple[int, float]) -> NoiseScale:
    """From the mean squared lengths of gradients of two batch sizes.

    Args:
        small, large: (batch size, mean |G_b|²).

    >>> noise_scale((1, 5.0), (4, 2.0))
    NoiseScale(gradient=1.0, noise=4.0)
    """
    (few, noisy), (many, quiet) = small, large
    gradient = (many * quiet - few * noisy) / (many - few)
    return NoiseScale(gradient, (noisy - quiet) / (1 / few - 1 / many))

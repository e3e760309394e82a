"""Classical test functions, each with its textbook start, its optimum and where it comes from.

Ackley's function, popular as it is, is not among them: it has no gradient at its minimiser.

MGH below is J. J. Moré, B. S. Garbow and K. E. Hillstrom, "Testing Unconstrained Optimization
Software", ACM Transactions on Mathematical Software 7 (1981), 17–41, with the number of the
function there. J&Y is M. Jamil and X.-S. Yang, "A Literature Survey of Benchmark Functions for
Global Optimisation Problems", arXiv 1308.4008.
"""

from __future__ import annotations

from math import pi

import numpy as np
import torch
from torch import Tensor

from downslope.problems.entry import Entry, function_entry

MGH, SURVEY = "MGH (1981)", "Jamil and Yang (2013), arXiv 1308.4008"


def rosenbrock(x: Tensor) -> Tensor:
    """A curved valley: (1 − a)² + 100 (b − a²)²; x (2,)."""
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def extended_rosenbrock(x: Tensor) -> Tensor:
    """Rosenbrock's valley once for each pair of coordinates; x (10,)."""
    a, b = x[0::2], x[1::2]
    return ((1 - a) ** 2 + 100 * (b - a**2) ** 2).sum()


def beale(x: Tensor) -> Tensor:
    """Steep walls and a flat valley; x (2,)."""
    a, b = x[0], x[1]
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def booth(x: Tensor) -> Tensor:
    """A quadratic with condition number 9; x (2,)."""
    return (x[0] + 2 * x[1] - 7) ** 2 + (2 * x[0] + x[1] - 5) ** 2


def matyas(x: Tensor) -> Tensor:
    """A quadratic with condition number 25; x (2,)."""
    return 0.26 * (x[0] ** 2 + x[1] ** 2) - 0.48 * x[0] * x[1]


def himmelblau(x: Tensor) -> Tensor:
    """Four minima of the same depth; x (2,)."""
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def goldstein_price(x: Tensor) -> Tensor:
    """A polynomial that spans six orders of magnitude; x (2,)."""
    a, b = x[0], x[1]
    first = 19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2
    second = 18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2
    return (1 + (a + b + 1) ** 2 * first) * (30 + (2 * a - 3 * b) ** 2 * second)


def styblinski_tang(x: Tensor) -> Tensor:
    """Two minima in each coordinate, one of them deeper; its values are negative; x (2,)."""
    return 0.5 * (x**4 - 16 * x**2 + 5 * x).sum()


def rastrigin(x: Tensor) -> Tensor:
    """A bowl full of ripples; x (2,)."""
    return (x**2 - 10 * torch.cos(2 * pi * x) + 10).sum()


def levy(x: Tensor) -> Tensor:
    """Ripples along both diagonals; x (2,)."""
    a, b = 1 + (x[0] - 1) / 4, 1 + (x[1] - 1) / 4
    middle = (a - 1) ** 2 * (1 + 10 * torch.sin(pi * a + 1) ** 2)
    return torch.sin(pi * a) ** 2 + middle + (b - 1) ** 2 * (1 + torch.sin(2 * pi * b) ** 2)


def six_hump_camel(x: Tensor) -> Tensor:
    """Six minima, two of them deepest; x (2,)."""
    a, b = x[0], x[1]
    return (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (-4 + 4 * b**2) * b**2


def three_hump_camel(x: Tensor) -> Tensor:
    """Three minima, the middle one deepest; x (2,)."""
    a, b = x[0], x[1]
    return 2 * a**2 - 1.05 * a**4 + a**6 / 6 + a * b + b**2


def powell_singular(x: Tensor) -> Tensor:
    """No curvature at the minimiser in two of four directions; x (4,)."""
    first = (x[0] + 10 * x[1]) ** 2 + 5 * (x[2] - x[3]) ** 2
    return first + (x[1] - 2 * x[2]) ** 4 + 10 * (x[0] - x[3]) ** 4


def wood(x: Tensor) -> Tensor:
    """Two coupled Rosenbrock valleys; x (4,)."""
    valleys = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    valleys = valleys + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    return valleys + 10 * (x[1] + x[3] - 2) ** 2 + 0.1 * (x[1] - x[3]) ** 2


def _quadratic(condition: int) -> Entry:
    """½ xᵀ H x with ten eigenvalues from 1 / condition to 1, evenly in their logarithm."""
    turned, _ = np.linalg.qr(np.random.default_rng(condition).standard_normal((10, 10)))
    spectrum = np.geomspace(1 / condition, 1, 10)
    H = torch.from_numpy(turned * spectrum @ turned.T)
    return function_entry(
        f"quadratic-{condition}",
        lambda x: 0.5 * (x * (H @ x)).sum(),
        [1.0] * 10,
        about=f"a turned quadratic bowl of 10 parameters, condition number {condition:,}",
        source="by construction: the spectrum is chosen, the axes are a seeded random rotation",
        minimisers=((0.0,) * 10,),
    )


HIMMELBLAU = ((3.0, 2.0), (-2.805118086952745, 3.131312518250573),
              (-3.779310253377747, -3.283185991286170),
              (3.584428340330492, -1.848126526964404))  # fmt: skip

FUNCTIONS = (
    function_entry(
        "rosenbrock", rosenbrock, [-1.2, 1.0],
        about="a narrow curved valley",
        source=f"H. H. Rosenbrock, The Computer Journal 3 (1960), 175–184; {MGH} no. 1",
        minimisers=((1.0, 1.0),),
    ),
    function_entry(
        "extended-rosenbrock", extended_rosenbrock, [-1.2, 1.0] * 5,
        about="five narrow curved valleys, ten parameters",
        source=f"{MGH} no. 21",
        minimisers=((1.0,) * 10,),
    ),
    function_entry(
        "beale", beale, [1.0, 1.0],
        about="steep walls around a flat valley",
        source=f"E. M. L. Beale (1958), Technical Report 25, Princeton; {MGH} no. 5",
        minimisers=((3.0, 0.5),),
        bounds=(-4.5, 4.5),
    ),
    function_entry(
        "booth", booth, [0.0, 0.0],
        about="a plain quadratic, condition number 9",
        source=SURVEY,
        minimisers=((1.0, 3.0),),
        bounds=(-10, 10), spread=2.0,
    ),
    function_entry(
        "matyas", matyas, [8.0, -6.0],
        about="a plain quadratic, condition number 25",
        source=SURVEY,
        minimisers=((0.0, 0.0),),
        bounds=(-10, 10), spread=2.0,
    ),
    function_entry(
        "himmelblau", himmelblau, [0.0, 0.0],
        about="four minima of the same depth",
        source="D. M. Himmelblau, Applied Nonlinear Programming, McGraw-Hill (1972)",
        minimisers=HIMMELBLAU,
        bounds=(-5, 5), spread=1.0,
    ),
    function_entry(
        "goldstein-price", goldstein_price, [-0.5, -0.5],
        about="a polynomial whose values span six orders of magnitude",
        source="A. A. Goldstein and J. F. Price, Mathematics of Computation 25 (1971), 569–574",
        optimum=3.0, minimisers=((0.0, -1.0),),
        bounds=(-2, 2), spread=0.4,
    ),
    function_entry(
        "styblinski-tang", styblinski_tang, [-1.0, -1.0],
        about="two minima a coordinate, negative losses",
        source="M. A. Styblinski and T.-S. Tang, Neural Networks 3 (1990), 467–483",
        optimum=-78.33233140754284, minimisers=((-2.903534027771177,) * 2,),
        bounds=(-5, 5), spread=0.8,
    ),
    function_entry(
        "rastrigin", rastrigin, [2.2, -1.7],
        about="a bowl full of ripples: local minima at every whole number",
        source="L. A. Rastrigin, Systems of Extremal Control, Nauka (1974)",
        minimisers=((0.0, 0.0),),
        bounds=(-5.12, 5.12), spread=1.5,
    ),
    function_entry(
        "levy", levy, [-4.0, 5.0],
        about="ripples that grow away from the minimum",
        source="A. V. Levy and A. Montalvo, SIAM Journal on Scientific and Statistical "
               "Computing 6 (1985), 15–29; in the form of Laguna and Martí (2005)",
        minimisers=((1.0, 1.0),),
        bounds=(-10, 10), spread=2.0,
    ),
    function_entry(
        "six-hump-camel", six_hump_camel, [1.0, 1.0],
        about="six minima, two of them deepest; negative at the optimum",
        source="L. C. W. Dixon and G. P. Szegö, Towards Global Optimisation 2 (1978)",
        optimum=-1.0316284534898774,
        minimisers=((0.0898420131003180, -0.7126564032704135),
                    (-0.0898420131003180, 0.7126564032704135)),
        bounds=(-3, 3),
    ),
    function_entry(
        "three-hump-camel", three_hump_camel, [1.5, -1.5],
        about="three minima, the middle one deepest",
        source=SURVEY,
        minimisers=((0.0, 0.0),),
        bounds=(-5, 5),
    ),
    function_entry(
        "powell-singular", powell_singular, [3.0, -1.0, 0.0, 1.0],
        about="no curvature at the minimum in two of four directions",
        source=f"M. J. D. Powell, The Computer Journal 5 (1962), 147–151; {MGH} no. 13",
        minimisers=((0.0,) * 4,),
    ),
    function_entry(
        "wood", wood, [-3.0, -1.0, -3.0, -1.0],
        about="two coupled curved valleys, four parameters",
        source=f"A. R. Colville (1968), IBM Scientific Center Report 320-2949; {MGH} no. 14",
        minimisers=((1.0,) * 4,),
    ),
    _quadratic(10),
    _quadratic(1000),
)  # fmt: skip
"""The functions, in the order in which they are listed."""

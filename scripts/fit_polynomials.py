"""Fit the polynomials of the compiled engine's functions, and write them as Python.

Each polynomial is the best one of its degree in the sense of the largest weighted error (Remez'
exchange algorithm in 45 digits; the weights make the errors relative to the function that is
wanted). Its coefficients are then rounded one after the other, from the constant upwards, and the
higher ones make up for what each rounding lost.

    python scripts/fit_polynomials.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minimax import KINDS, Fit, Function, rounded_fit
from mpmath import mp

TARGET = Path(__file__).parents[1] / "src/downslope/engines/fused/coefficients.py"

mp.dps = 45


def both(low: Any, high: Any) -> dict[str, tuple[Any, Any]]:
    """The same interval for both kinds of numbers."""
    return {"f32": (low, high), "f64": (low, high)}


# The exponent of the largest float, three of its fractions and what nearness to a multiple of π/2
# costs.
TWO_OVER_PI_BITS = 1280
# Small margins, because an argument may be rounded to the wrong side of an interval's end.
HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.002")
EIGHTH_TURN = (mp.pi / 4) ** 2 * mp.mpf("1.03")
THIRD = mp.mpf(1) / 3 + mp.mpf("1e-7")
# erf: where its two polynomials meet, and from where it is 1 when rounded.
ERF_ENDS = {"f32": (mp.mpf(1), mp.mpf("3.9375")), "f64": (mp.mpf("1.25"), mp.mpf("5.9375"))}
ERF_ROOT = {"f32": 4, "f64": 16}
ERFC_END = {"f32": 10.25, "f64": 27.5}


def _root(of: Function) -> Function:
    return lambda s: of(mp.sqrt(s))


def _scaled_erfc(q: Any) -> Any:
    x = 4 * (1 + q) / (1 - q)
    return mp.erfc(x) * mp.exp(x * x) * (1 + 2 * x)


def _erfc_root(kind: str) -> tuple[Function, Function]:
    centre, root = sum(ERF_ENDS[kind]) / 2, mp.mpf(ERF_ROOT[kind])
    return (
        lambda t: mp.erfc(t + centre) ** (1 / root),
        lambda t: root * mp.erfc(t + centre) ** (1 - 1 / root),
    )


def _half_width(kind: str) -> Any:
    low, high = ERF_ENDS[kind]
    return (high - low) / 2


FITS = [
    Fit(
        "EXP",
        "(eʳ − 1 − r) / r² of r, |r| ≤ ln 2 / 2",
        lambda r: (mp.expm1(r) - r) / r**2,
        lambda r: r**2 / mp.expm1(r),
        both(-HALF_LN2, HALF_LN2),
        {"f32": 4, "f64": 10},
    ),
    Fit(
        "LOG",
        "(log(1 + f) − f + f²/2) / f³ of f, |f| ≤ 1/3",
        lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
        lambda f: f**3 / mp.log1p(f),
        both(-THIRD, THIRD),
        {"f32": 7, "f64": 19},
    ),
    Fit(
        "ATANH",
        "(atanh s − s) / s³ of s², |s| ≤ 1/5",
        _root(lambda s: (mp.atanh(s) - s) / s**3),
        _root(lambda s: s**3 / mp.atanh(s)),
        both(mp.mpf("1e-12"), mp.mpf("0.0402")),
        {"f32": 3, "f64": 8},
    ),
    Fit(
        "ERF",
        "erf(x)/x − 1 of x², for small x",
        _root(lambda x: mp.erf(x) / x - 1),
        _root(lambda x: x / mp.erf(x)),
        {kind: (mp.mpf("1e-12"), ends[0] ** 2) for kind, ends in ERF_ENDS.items()},
        {"f32": 5, "f64": 14},
    ),
    *(
        Fit(
            "ERFC_ROOT",
            "a root of erfc(x), of x less the middle of the interval, for large x",
            *_erfc_root(kind),
            {kind: (-_half_width(kind), _half_width(kind))},
            {kind: degree},
        )
        for kind, degree in (("f32", 8), ("f64", 19))
    ),
    Fit(
        "SCALED_ERFC",
        "erfc(x) exp(x²) (1 + 2x) of (x − 4) / (x + 4), x ≥ 0",
        _scaled_erfc,
        lambda q: 1 / _scaled_erfc(q),
        {kind: (mp.mpf(-1), mp.mpf(end - 4) / (end + 4)) for kind, end in ERFC_END.items()},
        {"f32": 10, "f64": 24},
    ),
    Fit(
        "SIN",
        "(sin r − r) / r³ of r², |r| ≤ π/4",
        _root(lambda r: (mp.sin(r) - r) / r**3),
        _root(lambda r: r**3 / mp.sin(r)),
        both(mp.mpf("1e-12"), EIGHTH_TURN),
        {"f32": 2, "f64": 6},
    ),
    Fit(
        "COS",
        "(cos r − 1 + r²/2) / r⁴ of r², |r| ≤ π/4",
        _root(lambda r: (mp.cos(r) - 1 + r**2 / 2) / r**4),
        _root(lambda r: r**4 / mp.cos(r)),
        both(mp.mpf("1e-12"), EIGHTH_TURN),
        {"f32": 2, "f64": 6},
    ),
    Fit(
        "ASIN",
        "(asin x − x) / x³ of x², |x| ≤ 1/2",
        _root(lambda x: (mp.asin(x) - x) / x**3),
        _root(lambda x: x**3 / mp.asin(x)),
        both(mp.mpf("1e-12"), mp.mpf("0.25")),
        {"f32": 4, "f64": 12},
    ),
    Fit(
        "ATAN",
        "(atan x − x) / x³ of x², |x| ≤ 1",
        _root(lambda x: (mp.atan(x) - x) / x**3),
        _root(lambda x: x**3 / mp.atan(x)),
        both(mp.mpf("1e-12"), mp.mpf(1)),
        {"f32": 8, "f64": 19},
    ),
]


def pieces(number: Any, kind: str, count: int) -> list[float]:
    """Numbers of that kind whose sum is `number`, each as near as it can be."""
    made: list[float] = []
    for _ in range(count):
        made.append(float(KINDS[kind](float(number - mp.fsum(made)))))
    return made


def written(name: str, words: str, rows: dict[str, list[float]]) -> str:
    """A table as Python, in the layout of the formatter."""
    lines = [f"# {words}", f"{name}: dict[str, tuple[float, ...]] = {{"]
    for kind, numbers in rows.items():
        if len(numbers) == 1:
            lines.append(f'    "{kind}": ({numbers[0]!r},),')
            continue
        lines += [f'    "{kind}": (', *(f"        {number!r}," for number in numbers), "    ),"]
    return "\n".join([*lines, "}"])


def written_two_over_pi() -> str:
    """2/π as an integer, of as many bits as the largest number's reduction needs."""
    with mp.workprec(TWO_OVER_PI_BITS + 20):
        digits = f"{int(mp.floor(mp.ldexp(2 / mp.pi, TWO_OVER_PI_BITS))):x}"
    lines = [f'    "{digits[k : k + 80]}"' for k in range(0, len(digits), 80)]
    words = f"# 2/π, times 2^{TWO_OVER_PI_BITS}"
    return "\n".join([words, "TWO_OVER_PI = int(", *lines[:-1], lines[-1] + ",", "    16,", ")"])


def text() -> str:
    """The whole module; the largest errors are printed on the way."""
    tables: dict[str, tuple[str, dict[str, list[float]]]] = {}
    for fit in FITS:
        for kind in fit.degrees:
            made, error = rounded_fit(fit, kind)
            tables.setdefault(fit.name, (fit.words, {}))[1][kind] = made
            print(f"{fit.name} {kind}: degree {len(made) - 1}, 2^{float(mp.log(error, 2)):.1f}")
    tables["ERF_ENDS"] = (
        "where erf's polynomials meet, where it is 1 when rounded, and which root is taken",
        {kind: [*map(float, ERF_ENDS[kind]), float(ERF_ROOT[kind])] for kind in KINDS},
    )
    tables["ERFC_END"] = (
        "where erfc is 0 when rounded",
        {kind: [float(end)] for kind, end in ERFC_END.items()},
    )
    for name, words, number, count in (
        ("LN2", "ln 2, in pieces", mp.log(2), 2),
        ("LOG10_2", "log₁₀ 2, in pieces", mp.log10(2), 2),
        ("HALF_PI", "π/2, in pieces", mp.pi / 2, 3),
    ):
        tables[name] = (words, {kind: pieces(number, kind, count) for kind in KINDS})
    title = "The coefficients of vector_math, fitted and written by scripts/fit_polynomials.py."
    parts = [written(name, words, rows) for name, (words, rows) in tables.items()]
    return "\n\n".join([f'"""{title}"""', *parts, written_two_over_pi()]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")

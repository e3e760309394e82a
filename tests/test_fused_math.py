"""The compiled engine's functions of numbers, against NumPy, torch and mpmath."""

import ctypes
import math
import sys
from functools import lru_cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from llvmlite import ir
from mpmath import mp, mpf

from downslope.engines.fused import coefficients
from downslope.engines.fused import vector_math as vm
from downslope.engines.fused.instructions import KINDS, POINTER
from downslope.engines.fused.values import Emitter

FLOAT = {"f32": np.float32, "f64": np.float64}
BITS = {"f32": np.uint32, "f64": np.uint64}
I64 = ir.IntType(64)


def by_torch(name):
    """A torch function of an array of doubles."""
    return lambda x: getattr(torch.special, name)(torch.from_numpy(x)).numpy()


def logistic(x):
    return np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x)))


def torch_remainder(left, y):
    """As torch documents it; its own, in single precision, is NaN for large quotients."""
    return np.where((left != 0) & (np.signbit(left) != np.signbit(y)), left + y, left)


# What each function is in double precision, in many digits, and how wrong it may be, in ulp of
# single and of double precision.
UNARY = {
    "exp": (np.exp, mp.exp, 1, 1),
    "exp2": (np.exp2, lambda x: mpf(2) ** x, 1, 1),
    "expm1": (np.expm1, mp.expm1, 2, 2),
    "log": (np.log, mp.log, 1, 1.5),
    "log2": (np.log2, lambda x: mp.log(x, 2), 2, 2),
    "log10": (np.log10, mp.log10, 3, 3),
    "log1p": (np.log1p, mp.log1p, 2, 2),
    "sigmoid": (logistic, lambda x: 1 / (1 + mp.exp(-x)), 3, 3),
    "tanh": (np.tanh, mp.tanh, 2, 2),
    "sinh": (np.sinh, mp.sinh, 3, 3),
    "cosh": (np.cosh, mp.cosh, 2, 2),
    "asinh": (np.arcsinh, mp.asinh, 3, 3),
    "acosh": (np.arccosh, mp.acosh, 3, 3),
    "atanh": (np.arctanh, mp.atanh, 3, 3),
    "sin": (np.sin, mp.sin, 2, 2),
    "cos": (np.cos, mp.cos, 2, 2),
    "tan": (np.tan, mp.tan, 4, 3),
    "asin": (np.arcsin, mp.asin, 3, 3),
    "acos": (np.arccos, mp.acos, 2, 2),
    "atan": (np.arctan, mp.atan, 2, 2),
    "erf": (by_torch("erf"), mp.erf, 2, 2),
    "erfc": (by_torch("erfc"), mp.erfc, 4, 4),
}
# Those that are exact, or rounded once.
EXACT = {
    "absolute": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "round": np.rint,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sqrt": np.sqrt,
    "trunc": np.trunc,
    "sign": lambda x: torch.sign(torch.from_numpy(x)).numpy(),
}
BINARY = {
    "atan2": np.arctan2,
    "copysign": np.copysign,
    "fmod": np.fmod,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": lambda x, y: torch.pow(torch.from_numpy(x), torch.from_numpy(y)).numpy(),
    "remainder": lambda x, y: torch_remainder(np.fmod(x, y), y),
}
# Where mpmath's samples lie; all numbers where nothing is said.
DOMAINS = {
    **dict.fromkeys(("log", "log2", "log10"), (0, math.inf)),
    **dict.fromkeys(("asin", "acos", "atanh"), (-1, 1)),
    **dict.fromkeys(("exp", "expm1", "sinh", "cosh", "sigmoid"), (-745, 710)),
    "acosh": (1, math.inf),
    "erf": (-6, 6),
    "erfc": (-6, 27),
    "exp2": (-1075, 1024),
    "log1p": (-1, math.inf),
}
SPECIAL = [0, 1, 2, 3, 0.5, 2.5, 0.1, 1e-40, 1e30, 3.4e38, 1.4e-45, math.inf, math.nan]
SPECIAL += [2**24 - 1, 2**24, 2**25 + 4, 1 + 2**-20, 1 - 2**-20]
SPECIAL += [-x for x in SPECIAL]
# Where a function goes over from one formula to another, or ends.
CORNERS = [2**-126, 2**-24, 2**-12, 0.25, math.log(2) / 2, 0.5, 2 / 3, 1.0, 4 / 3, 1.5, 2.0]
CORNERS += [3.9375, 10.25, 17.33, 18.0, 87.34, 88.72, 89.42, 103.97, 104.0, 127.0, 128.0, 149.0]
CORNERS += [math.pi / 4, math.pi / 2, math.pi, 22.0, 2.0**17, 2.0**23, 2.0**24, 2.0**26, 1e38]


def _write_loop(module, name, kind, uniform):
    """A function of the module that goes through arrays: pointers in, pointer out, length.

    `uniform` is whether single numbers are taken, or "second" if of the second array, only the
    first number is.
    """
    emitted, lanes = getattr(vm, name), 16 if kind == "f32" else 8
    arity = 2 if name in BINARY else 1
    taken = [*[POINTER] * (arity + 1), I64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), taken), name)
    entry, body, end = (function.append_basic_block() for _ in range(3))
    builder = ir.IRBuilder(entry)
    builder.branch(body)
    builder.position_at_end(body)
    place = builder.phi(I64)
    place.add_incoming(ir.Constant(I64, 0), entry)
    emit = Emitter(builder, lanes)
    at = [builder.gep(array, [place], source_etype=KINDS[kind]) for array in function.args[:-1]]
    arguments = [emit.load(pointer, kind, uniform is True) for pointer in at[:-1]]
    if uniform == "second":
        arguments[1] = emit.load(function.args[1], kind, True)
    emit.store(emitted(*arguments), at[-1], uniform is True)
    following = builder.add(place, ir.Constant(I64, 1 if uniform is True else lanes))
    place.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, function.args[-1]), body, end)
    builder.position_at_end(end)
    builder.ret_void()


@lru_cache
def engine(kind, uniform, names=(*UNARY, *EXACT, *BINARY)):
    """Machine code of functions, for vectors or for single numbers."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = ir.Module()
    for name in names:
        _write_loop(module, name, kind, uniform)
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    parsed = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(2))
    passes.getModulePassManager().run(parsed, passes)
    made = llvm.create_mcjit_compiler(parsed, machine)
    made.finalize_object()
    return made


def compute(name, *arrays, uniform=False, engine=engine):
    """The function of arrays of one kind of float, (n,) each."""
    kind = "f32" if arrays[0].dtype == np.float32 else "f64"
    count = len(arrays[0])
    padded = [np.concatenate([x, np.ones(-count % 16, x.dtype)]) for x in arrays]
    out = np.empty_like(padded[0])
    types = [ctypes.c_void_p] * (len(arrays) + 1) + [ctypes.c_int64]
    address = engine(kind, uniform).get_function_address(name)
    function = ctypes.CFUNCTYPE(None, *types)(address)
    function(*(x.ctypes.data for x in [*padded, out]), len(out))
    return out[:count]


def ulps(made, exact):
    """By how many ulp of single precision `made` is wrong; infinite where it is of another sort."""
    wanted = exact.astype(np.float32)
    largest = np.finfo(np.float32).max
    below = np.nextafter(np.minimum(np.abs(wanted), largest), np.float32(0))
    size = np.minimum(np.abs(wanted), largest)
    size = np.where(
        np.abs(exact) < size, below, size
    )  # it may have been rounded up to a power of 2
    wrong = np.abs(made.astype(np.float64) - exact) / np.spacing(size).astype(np.float64)
    alike = (made == wanted) | (np.isnan(made) & np.isnan(wanted))
    return np.where(np.isfinite(wanted) & np.isfinite(made), wrong, np.where(alike, 0, np.inf))


def worst(name, x, made=None):
    """The largest error, and where."""
    with np.errstate(all="ignore"):
        exact = UNARY[name][0](x.astype(np.float64))
        made = compute(name, x) if made is None else made
        wrong = ulps(made, exact)
    zeros = (exact == 0) & (x == 0)
    assert (np.signbit(made) == np.signbit(exact))[zeros].all()
    place = wrong.argmax()
    return float(wrong[place]), float(x[place])


def patterns(start, stop, step):
    """Floats by their bits."""
    return np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


def around_corners():
    """Single-precision numbers next to where something changes."""
    middles = np.array([*CORNERS, 0, math.inf], dtype=np.float32).view(np.int32)
    near = (middles[:, None] + np.arange(-300, 300)).ravel()
    near = near[near >= 0].astype(np.int32).view(np.float32)
    return np.concatenate([near, -near])


@pytest.mark.parametrize("name", UNARY)
def test_single_precision_is_right_everywhere(name):
    for x in (patterns(0, 2**32, 997), around_corners()):
        wrong, where = worst(name, x)
        assert wrong <= UNARY[name][2], where


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "log", "sin", "cos", "expm1", "log1p"])
def test_every_single_precision_number(name):
    """All of them from 2⁻¹⁴ to 2⁸, and many of the others, where there is little to go wrong."""
    low, high = (int(np.float32(x).view(np.uint32)) for x in (2.0**-14, 2.0**8))
    for sign in (0, 2**31):
        for first, last, step in ((0, low, 61), (low, high, 1), (high, 2**31, 61)):
            for start in range(first, last, step * 2**22):
                stop = min(last, start + step * 2**22)
                wrong, where = worst(name, patterns(sign + start, sign + stop, step))
                assert wrong <= 2, where


@pytest.mark.parametrize("name", UNARY)
def test_double_precision(name):
    low, high = DOMAINS.get(name, (-math.inf, math.inf))
    random = np.random.default_rng(0)
    near, far = random.uniform(-3, 3, 150), random.uniform(max(low, -800), min(high, 800), 100)
    close = 1 + random.normal(size=50) * 0.01
    bits = random.integers(0, 2**63, 150, dtype=np.uint64).view(np.float64)
    bits[::2] *= -1
    x = np.concatenate([near, far, close, bits])
    x = x[(x > low) & (x < high)]
    assert len(x) > 100
    with mp.workprec(200):
        for number, made in zip(x.tolist(), compute(name, x).tolist(), strict=True):
            exact = UNARY[name][1](mpf(number))
            place = max(mp.frexp(exact)[1] - 53, -1074)
            if abs(exact) < mpf(2) ** 1024:
                assert abs(made - exact) <= UNARY[name][3] * mpf(2) ** place, number
            else:
                assert made == mp.sign(exact) * math.inf, number


def test_the_double_nearest_to_a_multiple_of_half_pi():
    """Muller, Elementary Functions, 2016, table 11.1."""
    x = np.ldexp(6381956970095103.0, 797)
    with mp.workprec(1200):
        exact = float(mp.cos(mpf(float(x))))
    assert abs(exact) < 1e-18
    made = compute("cos", np.full(8, x))
    np.testing.assert_allclose(made, exact, rtol=2e-16)


@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("name", UNARY)
def test_special_numbers(name, kind):
    x = np.array(SPECIAL, FLOAT[kind])
    made = compute(name, x)
    with np.errstate(all="ignore"):
        wanted = UNARY[name][0](x.astype(np.float64)).astype(FLOAT[kind])
    close = 1e-5 if kind == "f32" else 1e-14
    np.testing.assert_allclose(made, wanted, rtol=close, atol=1e-44)
    assert (np.signbit(made) == np.signbit(wanted))[~np.isnan(wanted)].all()


def numbers(kind, random, count):
    """Any bits, common numbers and special ones, mixed."""
    bits = random.integers(0, 2 ** (8 * FLOAT[kind]().itemsize), count, dtype=BITS[kind])
    usual = (random.normal(size=count) * 5).astype(FLOAT[kind])
    special = random.choice(SPECIAL, count).astype(FLOAT[kind])
    return random.permutation(np.concatenate([bits.view(FLOAT[kind]), usual, special]))


@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("name", [*UNARY, *EXACT, *BINARY])
def test_a_single_number_has_the_bits_it_has_in_a_vector(name, kind):
    random = np.random.default_rng(1)
    x = [numbers(kind, random, 3000) for _ in range(2 if name in BINARY else 1)]
    vector, single = compute(name, *x), compute(name, *x, uniform=True)
    assert (np.isnan(vector) == np.isnan(single)).all()
    there = ~np.isnan(vector)
    assert (vector.view(BITS[kind]) == single.view(BITS[kind]))[there].all()
    assert there.sum() > 500


@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("name", BINARY)
def test_one_number_shared_by_all_lanes(name, kind):
    def only_binary(kind, uniform):
        return engine(kind, uniform, tuple(BINARY))

    x = numbers(kind, np.random.default_rng(6), 100)
    for second in (2.5, -3.0, 0.0, 1e-30):
        y = np.full_like(x, second)
        np.testing.assert_array_equal(
            compute(name, x, y, uniform="second", engine=only_binary), compute(name, x, y)
        )


@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("name", EXACT)
def test_exact_functions(name, kind):
    x = numbers(kind, np.random.default_rng(2), 3000)
    made = compute(name, x)
    with np.errstate(all="ignore"):
        wanted = EXACT[name](x)
    np.testing.assert_array_equal(made, wanted)
    if name != "sign":  # torch makes +0 of −0, and so do we
        assert (np.signbit(made) == np.signbit(wanted))[~np.isnan(wanted)].all()


@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("name", BINARY)
def test_special_pairs(name, kind):
    x, y = (a.ravel() for a in np.meshgrid(*[np.array(SPECIAL, FLOAT[kind])] * 2))
    made = compute(name, x, y)
    with np.errstate(all="ignore"):
        wanted = BINARY[name](x, y)
    np.testing.assert_allclose(made, wanted, rtol=1e-6 if kind == "f32" else 1e-14, atol=1e-44)
    if name not in ("minimum", "maximum"):  # of 0 and −0, either may come out
        assert (np.signbit(made) == np.signbit(wanted))[~np.isnan(wanted)].all()


@pytest.mark.parametrize("kind", FLOAT)
@pytest.mark.parametrize("name", ["fmod", "remainder"])
def test_remainders_are_exact_however_large_the_quotient(name, kind):
    random = np.random.default_rng(3)
    x, y = (random.permutation(numbers(kind, random, 20000)) for _ in range(2))
    with np.errstate(all="ignore"):
        wanted = BINARY[name](x, y)
    np.testing.assert_array_equal(compute(name, x, y), wanted)
    usual = compute("remainder", x := np.array([5, -5, 5, -5], FLOAT[kind]), x[::-1] * 0 + 3)
    assert usual.tolist() == [2, 1, 2, 1]


def test_power():
    random = np.random.default_rng(4)
    for spread, exponent in ((60, 3), (1, 100), (1e-2, 9e3), (1e-4, 9e5)):
        x = np.exp(random.uniform(-spread, spread, 50000)).astype(np.float32)
        y = random.uniform(-exponent, exponent, 50000).astype(np.float32)
        with np.errstate(all="ignore"):
            exact = np.power(x.astype(np.float64), y.astype(np.float64))
            assert ulps(compute("power", x, y), exact).max() <= 2
        x, y = x[:200].astype(np.float64) * 1.1, y[:200].astype(np.float64)
        with mp.workprec(200):
            for a, b, made in zip(x, y, compute("power", x, y), strict=True):
                exact = mpf(float(a)) ** mpf(float(b))
                if mpf(2) ** -1000 < exact < mpf(2) ** 1000:
                    assert abs(float(made) - exact) <= 4e-16 * exact


def test_atan2():
    random = np.random.default_rng(5)
    y, x = (random.normal(size=100000) * np.exp(random.normal(size=100000) * 4) for _ in range(2))
    y, x = y.astype(np.float32), x.astype(np.float32)
    exact = np.arctan2(y.astype(np.float64), x.astype(np.float64))
    assert ulps(compute("atan2", y, x), exact).max() <= 2
    y, x = y.astype(np.float64), x.astype(np.float64)
    np.testing.assert_allclose(compute("atan2", y, x), exact, rtol=1e-15)


def test_a_wrong_coefficient_is_noticed(monkeypatch):
    known = coefficients.EXP["f32"]
    wrong = (*known[:-1], known[-1] * 1.1)
    monkeypatch.setitem(coefficients.EXP, "f32", wrong)
    spoilt = engine.__wrapped__("f32", False, ("exp",))
    x = patterns(0, 2**32, 9973)
    assert worst("exp", x, compute("exp", x, engine=lambda *_: spoilt))[0] > 1
    monkeypatch.undo()
    assert worst("exp", x)[0] <= 1


@pytest.mark.slow
def test_the_coefficients_are_what_the_script_writes(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import fit_polynomials

    assert fit_polynomials.TARGET.read_text(encoding="utf-8") == fit_polynomials.text()
    for name in ("fit_polynomials", "minimax"):
        del sys.modules[name]

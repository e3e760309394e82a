"""Orders drawn in machine code are numpy's, to the bit."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

from downslope.engines.fused.orders import KINDS, define_orders
from downslope.sampling import epoch_order

UNTOUCHED = -7
AROUND = 16  # numbers before and after those that are asked for


@pytest.fixture(scope="session")
def draw():
    """``draw(order, rows, seeds, first_epoch, epochs)``, of shape (seeds, epochs, rows)."""
    module = ir.Module()
    name = define_orders(module).name
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    made = llvm.parse_assembly(str(module))
    made.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(made, passes)
    engine = llvm.create_mcjit_compiler(made, machine)
    engine.finalize_object()
    numbers = [ctypes.c_int64] * 5
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *numbers, ctypes.c_void_p)
    function = prototype(engine.get_function_address(name))

    def drawn(order, rows, seeds, first_epoch, epochs):
        seeds = np.array(seeds, dtype=np.int64)
        memory = np.full(len(seeds) * epochs * rows + 2 * AROUND, UNTOUCHED, dtype=np.int32)
        out = memory[AROUND:-AROUND]
        function(
            *(seeds.ctypes.data, len(seeds), first_epoch, epochs, rows, KINDS[order]),
            out.ctypes.data,
        )
        assert (memory[:AROUND] == UNTOUCHED).all() and (memory[-AROUND:] == UNTOUCHED).all()
        return out.reshape(len(seeds), epochs, rows)

    drawn.engine = engine  # holds the code
    return drawn


def expected(order, rows, seeds, first_epoch, epochs):
    number = range(first_epoch, first_epoch + epochs)
    made = [[epoch_order(order, rows, seed, epoch) for epoch in number] for seed in seeds]
    return np.array(made).reshape(len(seeds), epochs, rows)


orders, seeds_ = st.sampled_from(sorted(KINDS)), st.integers(0, 2**63 - 1)


@settings(deadline=None)
@given(
    order=orders,
    rows=st.integers(1, 2000) | st.integers(1, 40),
    seeds=st.lists(seeds_ | st.integers(0, 100), max_size=3),
    first_epoch=st.integers(0, 2**40) | st.integers(0, 100),
    epochs=st.integers(0, 4),
)
def test_orders_are_those_of_numpy(draw, order, rows, seeds, first_epoch, epochs):
    asked = order, rows, seeds, first_epoch, epochs
    np.testing.assert_array_equal(draw(*asked), expected(*asked))


@pytest.mark.parametrize("order", sorted(KINDS))
def test_few_rows(draw, order):
    """Whatever is left of the last block, and however few bits of a draw count."""
    for rows in range(1, 70):
        asked = order, rows, range(20), 0, 3
        np.testing.assert_array_equal(draw(*asked), expected(*asked))


@pytest.mark.parametrize("order", sorted(KINDS))
@pytest.mark.parametrize("rows", [2**16 - 1, 2**16, 2**16 + 1, 70_000, 3_000_001])
def test_many_rows(draw, order, rows):
    """With replacement, 3,000,001 rows reject some 1,400 draws an epoch, few rows hardly any."""
    asked = order, rows, [2**63 - 1], 2**40, 2
    np.testing.assert_array_equal(draw(*asked), expected(*asked))


@pytest.mark.parametrize("order", sorted(KINDS))
def test_threads_draw_for_different_seeds(draw, order):
    shares = [range(start, start + 25) for start in range(0, 100, 25)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda seeds: draw(order, 100, seeds, 0, 10), shares))
    np.testing.assert_array_equal(np.concatenate(parts), expected(order, 100, range(100), 0, 10))


def test_nothing_outside_is_used():
    """No global variables, and no functions but those that LLVM itself puts in."""
    module = ir.Module()
    function = define_orders(module)
    others = [name for name in module.globals if name != function.name]
    assert all(name.startswith("llvm.") for name in others)

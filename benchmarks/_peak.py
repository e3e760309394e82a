"""How many float32 multiply-adds a second this machine reaches: a bare kernel, no memory."""

from __future__ import annotations

import ctypes
import statistics
import threading

import llvmlite.binding as llvm
from _timing import seconds
from llvmlite import ir

CHAINS = 16
"""Independent chains: more than the pipes times their latency (2 × 4 on today's machines)."""

TURNS = 20_000_000


def lanes() -> int:
    """Floats in the widest vector of the host."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx") else 4


def _module(width: int) -> ir.Module:
    """``float chains(int64 turns)``: every turn one multiply-add in each chain."""
    module = ir.Module("peak")
    module.triple = llvm.get_process_triple()
    count, single = ir.IntType(64), ir.FloatType()
    vector = ir.VectorType(single, width)
    function = ir.Function(module, ir.FunctionType(single, [count]), "chains")
    entry, loop, done = (function.append_basic_block(name) for name in ("entry", "loop", "done"))
    ir.IRBuilder(entry).branch(loop)
    builder = ir.IRBuilder(loop)
    turn = builder.phi(count)
    chains = [builder.phi(vector) for _ in range(CHAINS)]
    signature = ir.FunctionType(vector, [vector] * 3)
    fma = ir.Function(module, signature, f"llvm.fma.v{width}f32")
    half, one = (ir.Constant(vector, [number] * width) for number in (0.5, 1.0))
    moved = [builder.call(fma, [chain, half, one]) for chain in chains]
    following = builder.add(turn, ir.Constant(count, 1))
    builder.cbranch(builder.icmp_signed("<", following, function.args[0]), loop, done)
    turn.add_incoming(ir.Constant(count, 0), entry)
    turn.add_incoming(following, loop)
    for place, (chain, value) in enumerate(zip(chains, moved, strict=True)):
        chain.add_incoming(ir.Constant(vector, [float(place)] * width), entry)
        chain.add_incoming(value, loop)
    builder = ir.IRBuilder(done)
    total = moved[0]
    for value in moved[1:]:
        total = builder.fadd(total, value)
    element = builder.extract_element(total, ir.Constant(ir.IntType(32), 0))
    for lane in range(1, width):
        lane_value = builder.extract_element(total, ir.Constant(ir.IntType(32), lane))
        element = builder.fadd(element, lane_value)
    builder.ret(element)
    return module


class Peak:
    """The kernel, compiled."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        parsed = llvm.parse_assembly(str(_module(lanes())))
        parsed.verify()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
        )
        self.owner = llvm.create_mcjit_compiler(parsed, machine)  # of the code that is called
        self.owner.finalize_object()
        signature = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)
        self.chains = signature(self.owner.get_function_address("chains"))

    def work(self, threads: int) -> None:
        """The kernel on some threads at once: a foreign call lets the others go on."""
        callers = [threading.Thread(target=self.chains, args=(TURNS,)) for _ in range(threads)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    def multiply_adds(self, threads: int) -> float:
        """How many multiply-adds `work` does."""
        return float(threads * TURNS * CHAINS * lanes())

    def rate(self, threads: int, repeats: int = 5) -> float:
        """Multiply-adds a second, the median over repetitions."""
        self.work(threads)
        took = statistics.median(seconds(lambda: self.work(threads)) for _ in range(repeats))
        return self.multiply_adds(threads) / took

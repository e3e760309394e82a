"""LLVM IR to machine code that is loaded and can be called.

Programs of the fused engine are long straight lines of vector instructions, made once and called
many times. What LLVM needs for them was measured on the gradient of a 16-64-1 net, one loop whose
body has 6,100 instructions on ``<16 x float>`` and parameters behind a pointer (AVX-512):

- the optimising pipelines (O1, O2) take 0.2 to 0.5 s and make the program slower: they move
  addresses and constants out of the loop, where they no longer fit the registers;
- code generation takes nearly all of the time; level 2 twice that of level 1 for the same speed;
- its instruction scheduler grows with the square of a basic block. A branch that is never taken,
  put in every few hundred instructions, brings 1.4 s down to 0.13 s, and 7.4 s to 0.6 s for a
  program of four times the length, with no loss of speed. The writer of the IR makes these cuts;
  LLVM joins what only a plain branch separates, and ``instruction_combine``, ``simplify_cfg`` and
  the pipelines undo the others.

So `Passes` asks for little. Nothing here lets LLVM contract a multiplication and an addition: the
two are one rounding only where the IR says ``llvm.fma``.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from typing import Any, Literal

import llvmlite
import llvmlite.binding as llvm

from downslope.engines.fused.cache import Entry, read, write
from downslope.errors import EngineError, nearest

LOADED_LIMIT = 256
"""How many programs stay loaded; the one unused for longest is let go."""


@dataclass(frozen=True)
class Passes:
    """How hard LLVM tries.

    names: passes over the IR in order, as llvmlite calls them (``add_<name>_pass``). The default
        brings stack slots into registers and removes what nothing uses. Stack slots that do not fit
        the registers are dearer than memory behind a pointer: use them for a few values only.
    codegen: level of code generation, 0 to 3. At 0 the program is there in half the time and runs
        1.4 times as long.
    """

    names: tuple[str, ...] = ("sroa", "dead_code_elimination")
    codegen: int = 1


DEFAULT_PASSES = Passes()


@dataclass(frozen=True)
class Host:
    """The processor that programs are compiled for."""

    triple: str
    cpu: str
    features: str

    def machine(self, passes: Passes = DEFAULT_PASSES) -> Any:
        """A new llvmlite ``TargetMachine``."""
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu,
            features=self.features,
            opt=passes.codegen,
            reloc="static" if self.triple.startswith("x86_64") else "default",
            jit=True,
        )


@once
def host() -> Host:
    """This machine.

    Raises:
        EngineError: The system lets no program make code.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        llvm.check_jit_execution()
    except OSError as error:
        raise EngineError(f"this system does not let programs compile code: {error}") from error
    features = llvm.get_host_cpu_features().flatten()
    return Host(llvm.get_process_triple(), llvm.get_host_cpu_name(), features)


class Code:
    """Machine code in memory; it stays there as long as this object or a function of it lives.

    origin: ``"compiled"``, or ``"disk"`` if it was compiled before.
    """

    def __init__(
        self, engine: Any, addresses: Mapping[str, int], origin: Literal["compiled", "disk"]
    ) -> None:
        self._engine = engine
        self._addresses = dict(addresses)
        self.origin = origin

    def address(self, name: str) -> int:
        """Where the function starts.

        Raises:
            LookupError: It was not among the functions that `load` was asked for.
        """
        try:
            return self._addresses[name]
        except KeyError:
            close = nearest(name, self._addresses)
            raise LookupError(f"this program has no function {name!r}{close}") from None

    def function(self, name: str, *arguments: Any, result: Any = None) -> Callable[..., Any]:
        """The function as a Python callable that runs without the interpreter's lock.

        arguments, result: ctypes types; a result of None is none.

        Raises:
            LookupError: It was not among the functions that `load` was asked for.
        """
        made: Any = ctypes.CFUNCTYPE(result, *arguments)(self.address(name))
        made.code = self  # holds the code
        return made


# One table for the process, as there is one memory for its code: a second `descend` of the same
# problem finds the programs of the first.
_loaded: OrderedDict[tuple[str, tuple[tuple[str, int], ...]], Code] = OrderedDict()
_lock = threading.RLock()


def load(
    key: str,
    make: Callable[[], object],
    *,
    functions: Sequence[str],
    passes: Passes = DEFAULT_PASSES,
    symbols: Mapping[str, int] | None = None,
) -> Code:
    """The program that `make` writes: from memory, from disk, or compiled now.

    key: says all that the program depends on; the same key means the same program. The versions
        and files of Downslope, LLVM's version, the processor, `passes`, `functions` and the names
        in `symbols` are added to it here.
    make: gives the IR, as text or an ``llvmlite.ir.Module``; called only if it must be compiled.
    functions: names of the functions that will be called.
    symbols: addresses of C functions that the program declares and calls.

    Raises:
        EngineError: The system lets no program make code.
        LookupError: The program lacks one of `functions`, or declares a function that has no
            address.
        RuntimeError: LLVM refuses the IR.
    """
    given = dict(symbols or {})
    with _lock:
        entry = Entry.of(
            key, *_identity(), repr(passes), repr(sorted(functions)), repr(sorted(given))
        )
        where = (entry.name, tuple(sorted(given.items())))
        found = _loaded.get(where)
        if found is None:
            found = _read_or_compile(entry, make, functions, passes, given)
            _loaded[where] = found
            while len(_loaded) > LOADED_LIMIT:
                _loaded.popitem(last=False)
        _loaded.move_to_end(where)
        return found


def forget() -> None:
    """Let go of all loaded programs; those in use stay until their functions are gone."""
    with _lock:
        _loaded.clear()


def _identity() -> tuple[str, ...]:
    """What, beside the program, decides its machine code."""
    here = host()
    version = ".".join(map(str, llvm.llvm_version_info))
    return llvmlite.__version__, version, here.triple, here.cpu, here.features, _writer()


@once
def _writer() -> str:
    """The hash of the files that write programs: of a development version, too, no program is
    taken that another one wrote."""
    whole = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def _read_or_compile(
    entry: Entry,
    make: Callable[[], object],
    functions: Sequence[str],
    passes: Passes,
    symbols: Mapping[str, int],
) -> Code:
    stored = read(entry)
    if stored is not None:
        return _link(stored, functions, symbols, "disk")
    made = compiled(str(make()), passes, symbols)
    code = _link(made, functions, symbols, "compiled")
    write(entry, made)
    return code


def compiled(
    text: str,
    passes: Passes = DEFAULT_PASSES,
    symbols: Mapping[str, int] | None = None,
    target: Host | None = None,
) -> bytes:
    """The object file of this IR, for the processor `target` (this one)."""
    machine = (target or host()).machine(passes)
    module = parsed(text, machine)
    if passes.names:
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
        manager = llvm.create_new_module_pass_manager()
        for name in passes.names:
            getattr(manager, f"add_{name}_pass")()
        manager.run(module, builder)
    for name in (f.name for f in module.functions if f.is_declaration):
        # LLVM itself would say nothing, and the call would end the process.
        known = name.startswith("llvm.") or name in (symbols or {})
        if not known and llvm.address_of_symbol(name) is None:
            raise LookupError(f"the program calls {name!r}, whose address is not known")
    return machine.emit_object(module)


def parsed(text: str, machine: Any) -> Any:
    """IR as an llvmlite module of its own context, checked, laid out for the machine."""
    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    return module


def _link(
    machine_code: bytes,
    functions: Sequence[str],
    symbols: Mapping[str, int],
    origin: Literal["compiled", "disk"],
) -> Code:
    machine = host().machine()
    engine = llvm.create_mcjit_compiler(parsed("", machine), machine)
    for name, address in symbols.items():  # for the whole process, but looked at only now
        llvm.add_symbol(name, address)
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    addresses = {name: engine.get_function_address(name) for name in functions}
    missing = [name for name, address in addresses.items() if not address]
    if missing:
        raise LookupError(f"the program has no function {missing[0]!r}")
    return Code(engine, addresses, origin)

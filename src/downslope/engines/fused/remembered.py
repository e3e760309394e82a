"""Traces that serve again: a problem's, for as long as nothing that its code can see has changed.

A function may look up a name whose value is another by now. So a trace is kept together with
everything that the user's own code reaches: code, constants, defaults, closures, globals, modules'
attributes. Where something is reached that cannot be compared, nothing is remembered.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Hashable, Iterable
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket

from downslope.objective import Function
from downslope.problem import Problem

Made = TypeVar("Made")

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, range)
_FIXED = ("torch", "numpy", "math", "functools", "itertools", "operator", "typing", "builtins")
"""Packages whose contents nobody changes between two calls."""

_TELLTALE = {"globals", "locals", "vars", "eval", "exec", "open", "environ", "getenv", "getattr"}
"""Names of what finds things that cannot be followed here."""

_LARGEST = 10_000
"""Numbers of a captured tensor that are compared; a larger one is not remembered."""

_MOST = 8
"""Traces of a problem that are remembered: of different gradients by hand, say."""

# By problem, as the program itself is kept by process: gone when the problem is.
_known: WeakKeyDictionary[Problem, dict[Hashable, Any]] = WeakKeyDictionary()


_Seen = dict[int, tuple[int, Any]]
"""What was met: its place in the order of meeting, and the thing itself, so that it lives on."""


class _UnknownError(Exception):
    """Something that cannot be compared with what it was."""


def remembered(problem: Problem, more: tuple[Any, ...], make: Callable[[], Made]) -> Made:
    """What `make` gives, from memory if the problem's code, and `more`, is as it was then."""
    template = problem.template
    seen: _Seen = {}
    try:
        own = _module(template.model, seen, of_run=True)
        things = (template.loss, template.objective, *more, torch.get_default_dtype())
        key = (own, *(_state(thing, seen) for thing in things))
        hash(key)
    except (_UnknownError, TypeError):
        return make()
    known = _known.setdefault(problem, {})
    if key not in known:
        made = make()
        while len(known) >= _MOST:
            del known[next(iter(known))]
        known[key] = made, seen  # alive, so that no other thing takes the place that names one
    found: Made = known[key][0]
    return found


def _state(thing: Any, seen: _Seen) -> Hashable:
    """Something that differs when what `thing` computes may differ."""
    if isinstance(thing, float | complex):
        return type(thing), repr(thing)  # NaN is not equal to itself
    if isinstance(thing, _PLAIN):
        return type(thing), thing
    if id(thing) in seen:
        return seen[id(thing)][0]
    if isinstance(thing, Tensor):
        thing = _array(thing)
    if isinstance(thing, np.ndarray) and thing.size <= _LARGEST and thing.dtype.kind in "biuf":
        return thing.shape, str(thing.dtype), thing.tobytes()
    if isinstance(thing, list | tuple | dict | set | frozenset):
        seen[id(thing)] = (len(seen), thing)
        parts = sorted(thing.items(), key=repr) if isinstance(thing, dict) else thing
        return type(thing), tuple(_state(part, seen) for part in parts)
    seen[id(thing)] = (len(seen), thing)
    if _is_fixed(thing):
        # As torch.func.vmap(f) is torch's, with the user's f inside.
        cells = thing.__closure__ or () if isinstance(thing, FunctionType) else ()
        return id(thing), *(_state(content, seen) for content in _contents(cells))
    if isinstance(thing, nn.Module):
        return _module(thing, seen)
    if isinstance(thing, functools.partial):
        return tuple(_state(part, seen) for part in (thing.func, thing.args, thing.keywords))
    if isinstance(thing, MethodType):
        return _state(thing.__func__, seen), _state(thing.__self__, seen)
    if isinstance(thing, FunctionType):
        return _function(thing, seen)
    if isinstance(thing, type):
        return _class(thing, seen)
    if isinstance(thing, staticmethod | classmethod):
        return type(thing), _state(thing.__func__, seen)
    if isinstance(thing, property):
        return tuple(_state(part, seen) for part in (thing.fget, thing.fset, thing.fdel))
    raise _UnknownError(type(thing).__name__)


def _array(tensor: Tensor) -> Any:
    unlike = tensor.is_nested or tensor.is_quantized or tensor.is_conj() or tensor.is_neg()
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    if unlike or not plain or tensor.device.type != "cpu":
        raise _UnknownError("a tensor of an unusual kind")
    return tensor.detach().numpy()


def _contents(cells: Iterable[CellType]) -> list[Any]:
    """What a function took from around it; None for a name that has no value yet."""
    found = []
    for cell in cells:
        try:
            found.append(cell.cell_contents)
        except ValueError:
            found.append(None)
    return found


def _is_fixed(thing: Any) -> bool:
    """Whether it belongs to Python, torch or numpy."""
    if isinstance(thing, OpOverload | OpOverloadPacket | np.ufunc):
        return True
    if isinstance(thing, ModuleType):
        name = thing.__name__
    elif isinstance(thing, FunctionType):  # what it calls itself may be another's name
        name = str(thing.__globals__.get("__name__"))
    elif isinstance(thing, type | BuiltinFunctionType):
        name = getattr(thing, "__module__", None) or "builtins"
    else:
        return False
    package = name.split(".")[0]
    own = package == "downslope"
    return (
        package in _FIXED or own or (package in sys.stdlib_module_names and package != "__main__")
    )


def _function(function: FunctionType, seen: _Seen) -> Hashable:
    code = function.__code__
    values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    values += _contents(function.__closure__ or ())
    names = set(code.co_names)
    waiting = [c for c in code.co_consts if hasattr(c, "co_names")]
    while waiting:  # functions within functions look up names, too
        inner = waiting.pop()
        names |= set(inner.co_names)
        waiting += [c for c in inner.co_consts if hasattr(c, "co_names")]
    if names & _TELLTALE:
        raise _UnknownError(str(names & _TELLTALE))
    values.append(dict(vars(function)))
    looked_up = {n: function.__globals__[n] for n in sorted(names) if n in function.__globals__}
    return code, tuple(_state(v, seen) for v in (*values, *looked_up.values())), *looked_up


def _module(module: nn.Module, seen: _Seen, of_run: bool = False) -> Hashable:
    """Every submodule's attributes, and the code of its class where that is not torch's.

    Args:
        of_run: the model of the runs: its parameters, and buffers that are no whole numbers, are
            inputs of a trace, whatever their values.
    """
    inputs = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    given = set(map(id, inputs)) if of_run else set()
    tensors = [*module.named_parameters(), *module.named_buffers()]
    parts: list[Hashable] = [name for name, _ in tensors]
    parts += [_state(t, seen) for _, t in tensors if id(t) not in given]
    for name, one in module.named_modules():
        hooks = (one._forward_hooks, one._forward_pre_hooks, one._backward_hooks)
        if any(hooks):
            raise _UnknownError("hooks")
        parts += [name, _state(type(one), seen)]
        # Where the class is torch's own, so is what is private.
        own = not _is_fixed(type(one))
        attributes = {
            n: v
            for n, v in vars(one).items()
            if n not in _OF_MODULES and (own or not n.startswith("_"))
        }
        if isinstance(one, Function):
            parts.append(_state(one.function, seen))
            del attributes["function"]
        parts.append(_state(attributes, seen))
    return tuple(parts)


def _class(kind: type, seen: _Seen) -> Hashable:
    """What it says itself, and what those say that it inherits from."""
    own = [one for one in kind.__mro__ if not _is_fixed(one)]
    said = [{n: v for n, v in vars(one).items() if n not in _OF_CLASSES} for one in own]
    return id(kind), *(_state(one, seen) for one in (type(kind), *said))


_OF_MODULES = frozenset(vars(nn.Module()))
"""Attributes of torch's own that every module has."""

_OF_CLASSES = ("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__")

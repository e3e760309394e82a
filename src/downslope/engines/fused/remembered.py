"""Traces that serve again: a problem's, for as long as nothing that its code can see has changed.

A function may look up a name whose value is another by now. So a trace is kept together with
everything that the user's own code reaches: code, constants, defaults, closures, globals, modules'
attributes. Where something is reached that cannot be compared, nothing is remembered.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Hashable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

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
    try:
        seen: _Seen = {}
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
        known[key] = made
    found: Made = known[key]
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
        thing = thing.detach().cpu().numpy()
    if isinstance(thing, np.ndarray) and thing.size <= _LARGEST and thing.dtype.kind in "biuf":
        return thing.shape, str(thing.dtype), thing.tobytes()
    if isinstance(thing, list | tuple | dict | set | frozenset):
        seen[id(thing)] = (len(seen), thing)
        parts = sorted(thing.items(), key=repr) if isinstance(thing, dict) else thing
        return type(thing), tuple(_state(part, seen) for part in parts)
    if _is_fixed(thing):
        return id(thing)
    seen[id(thing)] = (len(seen), thing)
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


def _is_fixed(thing: Any) -> bool:
    """Whether it belongs to Python, torch or numpy."""
    if isinstance(thing, ModuleType):
        name = thing.__name__
    elif isinstance(thing, type | BuiltinFunctionType | FunctionType):
        name = getattr(thing, "__module__", None) or "builtins"
    elif type(thing).__module__.split(".")[0] in ("torch", "numpy") and callable(thing):
        return not isinstance(thing, nn.Module)  # operators and ufuncs
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
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # a name that has no value yet
            values.append(None)
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
        of_run: the model of the runs: its parameters are inputs of a trace, whatever their values.
    """
    parts: list[Hashable] = []
    if not of_run:
        parts += [_state(p, seen) for p in module.state_dict().values()]
    for name, one in module.named_modules():
        hooks = (one._forward_hooks, one._forward_pre_hooks, one._backward_hooks)
        if any(hooks):
            raise _UnknownError("hooks")
        parts += [name, _state(type(one), seen)]
        attributes = {n: v for n, v in vars(one).items() if not n.startswith("_")}
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


_OF_CLASSES = ("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__")

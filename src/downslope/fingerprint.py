"""What makes a study's runs what they are, as short hashes that can be compared part by part."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from types import CellType, CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from downslope.data import Rows
from downslope.engines.program import NotStackableError, Programs
from downslope.engines.work import Options
from downslope.objective import Function
from downslope.problem import Problem
from downslope.schedules import Schedule

PARTS = {
    "data": "the training data",
    "validation": "the validation rows",
    "parameters": "the parameters' names, shapes or dtype",
    "start": "the starting values",
    "loss": "the loss",
    "program": "what the model or function computes",
    "settings": "the optimizers, hyperparameters, batch sizes, orders or seeds",
    "options": "the options",
    "chunks": "how the runs are shared out",
}
"""The parts of a fingerprint, in words."""

OF_VERSION = ("program", "loss", "start", "chunks")
"""Parts that another version of torch or Python may make differently."""

_PLAIN = (bool, int, float, complex, str, bytes, tuple, type(None))


def of_problem(problem: Problem, options: Options) -> dict[str, str]:
    """The parts that a problem fixes."""
    template = problem.template
    state = {**dict(template.named_parameters()), **dict(template.named_buffers())}
    shapes = {name: [list(shape), str(problem.dtype)] for name, shape in problem.shapes.items()}
    return {
        "data": _hash(_of_rows(problem.train)),
        "validation": _hash(_of_rows(problem.validation)),
        "parameters": _hash([shapes]),
        "start": _hash([problem.draws_start, *state.values()]),
        "loss": _hash([described(template.loss), described(template.objective)]),
        "program": _hash(_program(problem, options)),
    }


def of_options(options: Options) -> dict[str, Any]:
    """The options as plain JSON, for people and for comparing."""
    return {
        "updates": options.updates,
        "epochs": options.epochs,
        "every": options.every,
        "keep": sorted(options.keep),
        "schedule": None if options.schedule is None else _schedule(options.schedule),
        "tolerance": options.tolerance,
        "patience": options.patience,
        "divergence": options.divergence,
        "gradient": None if options.gradient is None else described(options.gradient),
        "validation": options.validation,
    }


def _schedule(schedule: Schedule) -> dict[str, Any]:
    plain = all(
        isinstance(value, str | int | float | bool | list | tuple | type(None))
        and not any(isinstance(v, Schedule) for v in (value if isinstance(value, list) else []))
        for value in schedule.arguments.values()
    )
    known = vars(torch.optim.lr_scheduler).get(getattr(schedule.scheduler, "__name__", ""))
    if plain and known is schedule.scheduler:
        name = schedule.scheduler.__name__
        return {"class": name, "per": schedule.per, "arguments": dict(schedule.arguments)}
    return {"description": repr(schedule), "per": schedule.per}


def schedule_from(value: dict[str, Any] | None) -> Schedule | None:
    """The schedule that `of_options` wrote; None if it was none, or none that can be written."""
    if value is None or "class" not in value:
        return None
    scheduler = getattr(torch.optim.lr_scheduler, value["class"])
    return Schedule(scheduler, per=value["per"], **value["arguments"])


def differing(wanted: dict[str, Any], found: dict[str, Any], same_versions: bool) -> list[str]:
    """The parts in which two fingerprints differ, in words."""
    return [
        words
        for part, words in PARTS.items()
        if part in wanted
        and wanted[part] != found.get(part)
        and (same_versions or part not in OF_VERSION)
    ]


def described(thing: Any) -> str | None:
    """A loss or function in words that are the same in every process."""
    if thing is None:
        return None
    if isinstance(thing, nn.Module):
        buffers = "".join(f" {name} {_hash([b])}" for name, b in thing.named_buffers())
        values = {n: v for n, v in vars(thing).items() if isinstance(v, int | float | str | bool)}
        own = _hash(_of_module(thing))
        return f"{type(thing).__qualname__} {sorted(values.items())}{buffers} {own}"
    return _hash(_code(thing, set()))


def _code(thing: Any, seen: set[int]) -> list[Any]:
    """What a function of the user's own does: its code, constants, defaults, and the plain values
    it closes over or looks up."""
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
        return [*_code(thing.func, seen), repr(thing.args), repr(thing.keywords)]
    function = getattr(thing, "__func__", thing)
    code = getattr(function, "__code__", None)
    if code is None:
        called = callable(thing) and not isinstance(thing, type)
        own = _code(type(thing).__call__, seen) if called else []
        plain = [repr(item) for item in sorted(_plain_values(thing).items())]
        return [getattr(thing, "__qualname__", type(thing).__qualname__), *own, *plain]
    parts: list[Any] = _of_code(code)
    values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    values += [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    values += [function.__globals__[n] for n in code.co_names if n in function.__globals__]
    for value in values:
        if isinstance(value, Tensor):
            parts.append(value)
        elif isinstance(value, _PLAIN):
            parts.append(repr(value))
        elif isinstance(value, FunctionType):
            parts += _code(value, seen)
    return parts


def _of_code(code: CodeType) -> list[Any]:
    parts: list[Any] = [code.co_code, code.co_names]
    for constant in code.co_consts:
        parts += _of_code(constant) if isinstance(constant, CodeType) else [repr(constant)]
    return parts


def _filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that has no value yet
        return False


def _plain_values(thing: Any) -> dict[str, Any]:
    values = getattr(thing, "__dict__", {})
    return {n: v for n, v in values.items() if isinstance(v, _PLAIN) and n != "training"}


def _of_rows(rows: Rows | None) -> list[Any]:
    return [] if rows is None else [rows.x, rows.y]


def _program(problem: Problem, options: Options) -> list[Any]:
    """The graph of a training pass and the constants in it; the structure if it has no graph."""
    try:
        graph = Programs(problem, options.gradient).graph(
            None if problem.train is None else problem.train[:2]
        )
    except NotStackableError:
        model = problem.template.model
        own = [part for module in model.modules() for part in _of_module(module)]
        return [str(model), *own]
    constants = [getattr(graph, n.target) for n in graph.graph.nodes if n.op == "get_attr"]
    return [graph.code, *constants]


def _of_module(module: nn.Module) -> list[Any]:
    """What a module of the user's own does; torch's own say it in their representation."""
    if isinstance(module, Function):
        return [described(module.function)]
    if type(module).__module__.startswith("torch."):
        return []
    plain = sorted((n, repr(v)) for n, v in _plain_values(module).items())
    return [*_code(type(module).forward, set()), *plain]


def _hash(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            tensor = part.detach().cpu().contiguous()
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def text_hash(text: str) -> str:
    """A short hash of a text."""
    return _hash([text])

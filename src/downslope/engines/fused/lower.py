"""An interpreter of traced graphs whose numbers are `Value`s: running it writes a program.

A tensor is a NumPy array of Values, so every view is NumPy's, and an operation is a line or two in
one of the tables below. An operation that is in none of them is named in an `UnknownOperationError`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from downslope.engines.fused import products
from downslope.engines.fused import vector_math as vm
from downslope.engines.fused.slots import held
from downslope.engines.fused.trace import Traced
from downslope.engines.fused.values import FLOATS, Emitter, Sum, UnknownOperationError, Value, where

Array = np.ndarray[Any, np.dtype[np.object_]]

KIND_OF = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.bool: "i1",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "i8",
}


def interpret(traced: Traced, inputs: Sequence[Array], emit: Emitter) -> list[Array]:
    """The outputs of the graph for these inputs, as instructions of `emit`'s program."""
    return Interpreter(traced, emit, inputs).outputs()


class Interpreter:
    """A graph being interpreted; `known` holds the arrays of nodes that were met.

    Args:
        inputs: for the placeholders in order; None for those that come later.
    """

    def __init__(self, traced: Traced, emit: Emitter, inputs: Sequence[Array | None]) -> None:
        self.traced, self.emit = traced, emit
        places = [node for node in traced.graph.nodes if node.op == "placeholder"]
        pairs = zip(places, inputs, strict=False)
        self.known: dict[Node, Any] = {node: given for node, given in pairs if given is not None}

    def advance(self) -> None:
        """Evaluate all that can be from what is known; numbers, so that any block may use them."""
        for node in self.traced.graph.nodes:
            ready = node.op in ("call_function", "get_attr") and node not in self.known
            if ready and all(before in self.known for before in node.all_input_nodes):
                self.known[node] = _settled(self.evaluate(node))

    def outputs(self, count: int | None = None) -> list[Array]:
        """The (first) outputs, from what they need."""
        output = next(iter(reversed(self.traced.graph.nodes)))
        wanted = _flat(output.args[0])[:count]
        needed = _before([node for node in wanted if isinstance(node, Node)], self.known)
        for node in self.traced.graph.nodes:
            if node in needed:
                self.known[node] = self.evaluate(node)
                self.emit.cut()
        return [self.known[w] if isinstance(w, Node) else w for w in wanted]

    def evaluate(self, node: Node) -> Any:
        """One node, from those before it."""
        if node.op == "get_attr":
            return self.constant(self.traced.constants[str(node.target)])
        take = OPERATIONS.get(operation_name(node.target))
        if take is None:
            raise UnknownOperationError(operation_name(node.target))
        args = torch.fx.map_arg(node.args, lambda n: self.known[n])
        kwargs = torch.fx.map_arg(node.kwargs, lambda n: self.known[n])
        made = take(Call(self, node), *args, **kwargs)
        return filled((), [made]) if isinstance(made, Value) else made

    def constant(self, tensor: Tensor) -> Array:
        """A tensor's numbers as constants."""
        kind = kind_of(tensor.dtype)
        return filled(tensor.shape, [self.emit.number(v, kind) for v in tensor.flatten().tolist()])


class Call:
    """What an operation may ask about its own call."""

    def __init__(self, interpreter: Interpreter, node: Node) -> None:
        self.emit = interpreter.emit
        self.node = node
        meta = node.meta.get("val")
        self.shape = tuple(meta.shape) if isinstance(meta, Tensor) else ()
        self.dtype = meta.dtype if isinstance(meta, Tensor) else None

    @property
    def kind(self) -> str:
        """The kind of number of the result."""
        assert self.dtype is not None
        return kind_of(self.dtype)

    def full(self, number: Any) -> Array:
        """The result's shape, full of one number."""
        if isinstance(number, np.ndarray):
            value = number.item().to(self.kind)
        else:
            value = number.to(self.kind) if isinstance(number, Value) else self.number(number)
        return filled(self.shape, [value] * int(np.prod(self.shape)))

    def number(self, number: Any) -> Value:
        """A constant of the result's kind."""
        return self.emit.number(number, self.kind)


def kind_of(dtype: torch.dtype) -> str:
    """The kind of a torch dtype.

    Raises:
        UnknownOperationError: for one that there is no arithmetic for.
    """
    if dtype not in KIND_OF:
        raise UnknownOperationError(f"arithmetic in {str(dtype).removeprefix('torch.')}")
    return KIND_OF[dtype]


def filled(shape: Sequence[int], values: Sequence[Value]) -> Array:
    """An array of Values of this shape."""
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made.reshape(tuple(shape))


def _before(wanted: Sequence[Node], known: Any) -> set[Node]:
    """The nodes that `wanted` need, themselves included, without those that are known."""
    found: set[Node] = set()
    waiting = list(wanted)
    while waiting:
        node = waiting.pop()
        if node not in found and node not in known:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _settled(made: Any) -> Any:
    if isinstance(made, np.ndarray):
        return filled(made.shape, [held(v) for v in made.flat])
    return made


def operation_name(target: Any) -> str:
    """Torch's name for an operation, as `OPERATIONS` has it."""
    if target is operator.getitem:
        return GETITEM
    return str(target).removesuffix(".default")


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [v for one in value for v in _flat(one)]
    return [value]


# -- elementwise ---------------------------------------------------------------------------------

Each = Callable[..., Value]


def _each(function: Each, converts: bool = True) -> Callable[..., Array]:
    """An operation on the elements of arrays and plain numbers that are broadcast together.

    `converts`: operands of the result's own dtype, as in arithmetic (not in comparisons).
    """

    def apply(call: Call, *args: Any) -> Array:
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        kinds = [a.flat[0].kind for a in arrays if a.size]
        kind = call.kind if converts else max(kinds, key=_rank)
        operands = [_as_kind(call.emit, a, kind) for a in args]
        made = np.frompyfunc(function, len(args), 1)(*operands)
        return made if isinstance(made, np.ndarray) else filled((), [made])

    return apply


def _rank(kind: str) -> int:
    return ("i1", "i8", "i32", "i64", "f32", "f64").index(kind)


def _as_kind(emit: Emitter, operand: Any, kind: str) -> Array:
    if not isinstance(operand, np.ndarray):
        return filled((), [emit.number(operand, kind)])
    if not operand.size or all(v.kind == kind for v in operand.flat):
        return operand
    return filled(operand.shape, [v.to(kind) for v in operand.flat])


def _logical(number: Value) -> Value:
    return number.to("i1")


def _signbit(a: Value) -> Value:
    return a.bits().compare("lt", 0)


def _divide(a: Value, b: Value) -> Value:
    if a.kind not in FLOATS:
        raise UnknownOperationError("division of whole numbers")
    return a / b


def _where(call: Call, condition: Any, a: Any, b: Any) -> Array:
    a, b = (_as_kind(call.emit, operand, call.kind) for operand in (a, b))
    return np.asarray(np.frompyfunc(where, 3, 1)(condition, a, b), dtype=object)


def _convert(call: Call, a: Array, *_: Any, **__: Any) -> Array:
    return _as_kind(call.emit, a, call.kind)


UNARY: dict[str, Each] = {
    "abs": vm.absolute,
    "acos": vm.acos,
    "acosh": vm.acosh,
    "asin": vm.asin,
    "asinh": vm.asinh,
    "atan": vm.atan,
    "atanh": vm.atanh,
    "ceil": vm.ceil,
    "cos": vm.cos,
    "cosh": vm.cosh,
    "erf": vm.erf,
    "erfc": vm.erfc,
    "exp": vm.exp,
    "exp2": vm.exp2,
    "expm1": vm.expm1,
    "floor": vm.floor,
    "log": vm.log,
    "log10": vm.log10,
    "log1p": vm.log1p,
    "log2": vm.log2,
    "neg": operator.neg,
    "reciprocal": lambda a: 1.0 / a,
    "round": vm.round,
    "rsqrt": vm.rsqrt,
    "sigmoid": vm.sigmoid,
    "sign": vm.sign,
    "sin": vm.sin,
    "sinh": vm.sinh,
    "sqrt": vm.sqrt,
    "tan": vm.tan,
    "tanh": vm.tanh,
    "trunc": vm.trunc,
}
BINARY: dict[str, Each] = {
    "add": operator.add,
    "atan2": vm.atan2,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "copysign": vm.copysign,
    "div": _divide,
    "fmod": vm.fmod,
    "maximum": vm.maximum,
    "minimum": vm.minimum,
    "mul": operator.mul,
    "pow": vm.power,
    "remainder": vm.remainder,
    "sub": operator.sub,
}
COMPARISONS = ("eq", "ge", "gt", "le", "lt", "ne")


def _compare(how: str) -> Callable[..., Array]:
    return _each(lambda a, b: a.compare(how, b), converts=False)


# -- shapes --------------------------------------------------------------------------------------


def _broadcast_in_dim(call: Call, a: Array, shape: Sequence[int], dims: Sequence[int]) -> Array:
    widened = [1] * len(shape)
    for place, dim in enumerate(dims):
        widened[dim] = a.shape[place]
    return np.broadcast_to(a.reshape(widened), tuple(shape))


def _reshape(call: Call, a: Array, *_: Any) -> Array:
    return a.reshape(call.shape)


def _places(call: Call, size: Sequence[int], stride: Sequence[int], offset: int | None) -> Any:
    """Where in the memory of the call's first tensor the elements of such a view are."""
    given = call.node.args[0].meta["val"]
    if not given.is_contiguous() or given.storage_offset() or given.numel() != _stored(given):
        raise UnknownOperationError("as_strided of a part of a tensor")
    places = np.zeros((), dtype=np.int64) + (offset or 0)
    for length, step in zip(size, stride, strict=True):
        places = places[..., None] + np.arange(length) * step
    return places


def _as_strided(
    call: Call, a: Array, size: Sequence[int], stride: Sequence[int], offset: int | None = 0
) -> Array:
    return a.reshape(-1)[_places(call, size, stride, offset)]


def _as_strided_scatter(
    call: Call,
    a: Array,
    b: Array,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = 0,
) -> Array:
    return _put(a.reshape(-1), _places(call, size, stride, offset), b).reshape(a.shape)


def _stored(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _slice(
    call: Call, a: Array, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Array:  # fmt: skip
    return a[(slice(None),) * (dim % a.ndim) + (slice(start, end, step),)]


def _slice_in_dims(
    call: Call, a: Array, starts: Sequence[int], ends: Sequence[int], steps: Any = None
) -> Array:
    steps = steps or [1] * a.ndim
    return a[tuple(slice(*each) for each in zip(starts, ends, steps, strict=True))]


def _select(call: Call, a: Array, dim: int, index: int) -> Array:
    return a.take(index, axis=dim)


def _put(a: Array, place: Any, b: Array) -> Array:
    made = a.copy()
    made[place] = b
    return made


def _select_scatter(call: Call, a: Array, b: Array, dim: int, index: int) -> Array:
    return _put(a, (slice(None),) * (dim % a.ndim) + (index,), b)


def _slice_scatter(
    call: Call, a: Array, b: Array, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Array:  # fmt: skip
    return _put(a, (slice(None),) * (dim % a.ndim) + (slice(start, end, step),), b)


def _cat(call: Call, arrays: Sequence[Array], dim: int = 0) -> Array:
    # Empty tensors of one dimension may stand beside any others.
    return np.concatenate([a for a in arrays if a.size], axis=dim)


def _pad(call: Call, a: Array, padding: Sequence[int], value: float = 0.0) -> Array:
    pairs = [(0, 0)] * (a.ndim - len(padding) // 2)
    pairs += list(zip(padding[::2], padding[1::2], strict=True))[::-1]
    return np.pad(a, pairs, constant_values=call.number(value or 0.0))


SHAPES: dict[str, Callable[..., Any]] = {
    "alias": lambda call, a: a,
    "as_strided": _as_strided,
    "as_strided_scatter": _as_strided_scatter,
    "broadcast_in_dim": _broadcast_in_dim,
    "cat": _cat,
    "clone": lambda call, a, **_: a,
    "collapse": _reshape,
    "collapse_view": _reshape,
    "constant_pad_nd": _pad,
    "copy": lambda call, a, b, *_: np.broadcast_to(_as_kind(call.emit, b, call.kind), a.shape),
    "detach": lambda call, a: a,
    "expand": lambda call, a, size, **_: np.broadcast_to(a, call.shape),
    "flip": lambda call, a, dims: np.flip(a, tuple(dims)),
    "permute": lambda call, a, dims: a.transpose(tuple(dims)),
    "reshape": _reshape,
    "rev": lambda call, a, dims: np.flip(a, tuple(dims)),
    "select.int": _select,
    "select_scatter": _select_scatter,
    "slice_scatter": _slice_scatter,
    "slice": _slice_in_dims,
    "slice.Tensor": _slice,
    "split_dim": _reshape,
    "split_with_sizes": lambda call, a, sizes, dim=0: np.split(a, np.cumsum(sizes)[:-1], axis=dim),
    "squeeze": _reshape,
    "squeeze.dim": _reshape,
    "squeeze.dims": _reshape,
    "transpose": lambda call, a, dims: a.transpose(tuple(dims)),
    "unsqueeze": _reshape,
    "view": _reshape,
    "view_of": lambda call, a: a,
}


def _full(call: Call, *args: Any, **_: Any) -> Array:
    return call.full(args[1])


def _iota(call: Call, length: int, *, start: int = 0, step: int = 1, **_: Any) -> Array:
    return filled((length,), [call.number(start + i * step) for i in range(length)])


MAKERS: dict[str, Callable[..., Any]] = {
    "empty": lambda call, *_, **__: call.full(0),
    "empty_like": lambda call, *_, **__: call.full(0),
    "empty.memory_format": lambda call, *_, **__: call.full(0),
    "empty_permuted": lambda call, *_, **__: call.full(0),
    "empty_strided": lambda call, *_, **__: call.full(0),
    "full": _full,
    "full_like": _full,
    "iota": _iota,
    "scalar_tensor": lambda call, number, **_: call.full(number),
}

# -- reductions, products and indices ----------------------------------------------------------------


def _reduced(a: Array, dims: Any, shape: Sequence[int]) -> tuple[Array, tuple[int, ...]]:
    """The array with the reduced axes last, as one; and the shape of the rest."""
    dims = range(a.ndim) if dims is None else [d % a.ndim for d in dims]
    kept = [d for d in range(a.ndim) if d not in dims]
    moved = a.transpose([*kept, *dims])
    rest = tuple(a.shape[d] for d in kept)
    return moved.reshape(int(np.prod(rest)), -1), rest


def _reduce(function: Callable[[list[Value]], Value]) -> Callable[..., Array]:
    def apply(call: Call, a: Array, dims: Any = None, *_: Any, **__: Any) -> Array:
        rows, _rest = _reduced(_as_kind(call.emit, a, call.kind), dims, a.shape)
        return filled(call.shape, [function(list(row)) for row in rows])

    return apply


def _total(values: list[Value]) -> Value:
    if values[0].kind not in FLOATS:
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total
    terms = []
    for value in values:
        terms += value.terms if isinstance(value, Sum) else [(value, None)]
    return Sum(terms)


def _fold(function: Each) -> Callable[[list[Value]], Value]:
    def fold(values: list[Value]) -> Value:
        made = values[0]
        for value in values[1:]:
            made = function(made, value)
        return made

    return fold


def _variance(call: Call, a: Array, dims: Any, correction: float | None = 1.0, **_: Any) -> Array:
    rows, _rest = _reduced(a, dims, a.shape)
    count = rows.shape[1]
    made = []
    for row in rows:
        mean = _total(list(row)) / float(count)
        away = [value - mean for value in row]
        squares = _total([d * d for d in away])
        made.append(squares / float(max(count - (1.0 if correction is None else correction), 0.0)))
    return filled(call.shape, made)


def _pick(values: Sequence[Value], index: Value) -> Value:
    """values[index], by comparing; a negative index counts from the end."""
    picked = values[0]
    for place, value in enumerate(values[1:], 1):
        here = index.compare("eq", place) | index.compare("eq", place - len(values))
        picked = where(here, value, picked)
    return picked


def _gather(call: Call, a: Array, dim: int, index: Array, **_: Any) -> Array:
    made = np.empty(index.shape, dtype=object)
    for place in np.ndindex(index.shape):
        line = (*place[:dim], slice(None), *place[dim % a.ndim + 1 :])
        made[place] = _pick(list(a[line]), index[place])
    return made


def _index(call: Call, a: Array, indices: Sequence[Array | None]) -> Array:
    """Rows of `a`'s first axes by whole numbers that are known only when the program runs."""
    if any(i is None for i in indices):
        raise UnknownOperationError("indexing with a gap between the indexed axes")
    given = np.broadcast_arrays(*indices)
    if all(v.constant is not None for one in given for v in one.flat):
        plain = [np.vectorize(lambda v: int(v.constant), otypes=[np.int64])(one) for one in given]
        return a[tuple(plain)]
    if len(given) > 1:
        raise UnknownOperationError("indexing of several axes by data")
    rest = a.shape[1:]
    made = np.empty((*given[0].shape, *rest), dtype=object)
    for place in np.ndindex(given[0].shape):
        for inner in np.ndindex(rest):
            made[(*place, *inner)] = _pick(list(a[(slice(None), *inner)]), given[0][place])
    return made


def _index_put(
    call: Call, a: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False
) -> Array:
    if len(indices) != 1 or indices[0] is None:
        raise UnknownOperationError("writing to several axes by data")
    made, index = a.copy(), indices[0]
    values = np.broadcast_to(values, (*index.shape, *a.shape[1:]))
    for place in np.ndindex(index.shape):
        for row in range(a.shape[0]):
            number = index[place]
            here = number.compare("eq", row) | number.compare("eq", row - a.shape[0])
            for inner in np.ndindex(a.shape[1:]):
                old, new = made[(row, *inner)], values[(*place, *inner)]
                made[(row, *inner)] = where(here, old + new if accumulate else new, old)
    return made


def _scatter(
    call: Call, a: Array, dim: int, index: Array, source: Any, add: bool = False, **_: Any
) -> Array:
    made = a.copy()
    for place in np.ndindex(index.shape):
        new = source[place] if isinstance(source, np.ndarray) else call.number(source)
        for row in range(a.shape[dim]):
            target = (*place[:dim], row, *place[dim % a.ndim + 1 :])
            old = made[target]
            made[target] = where(index[place].compare("eq", row), old + new if add else new, old)
    return made


GETITEM = "operator.getitem"

OTHERS: dict[str, Callable[..., Any]] = {
    "amax": _reduce(_fold(vm.maximum)),
    "amin": _reduce(_fold(vm.minimum)),
    "any": _reduce(_fold(operator.or_)),
    "bitwise_not": lambda call, a: np.asarray(np.frompyfunc(operator.invert, 1, 1)(a), object),
    "bmm": lambda call, a, b: np.stack(
        [products.matrix(call.emit, x, y) for x, y in zip(a, b, strict=True)]
    ),
    "convert_element_type": _convert,
    "convolution": products.convolution,
    "convolution_backward": products.convolution_backward,
    "gather": _gather,
    "index.Tensor": _index,
    "index_put": _index_put,
    "mm": lambda call, a, b: products.matrix(call.emit, a, b),
    "prod": _reduce(_fold(operator.mul)),
    "scatter.src": _scatter,
    "scatter.value": _scatter,
    "scatter_add": lambda call, *args: _scatter(call, *args, add=True),
    "sum": _reduce(_total),
    "_to_copy": _convert,
    "var": _variance,
    "where": _where,
}
"""Other operations."""

_TABLE = {
    **{name: _each(function) for name, function in UNARY.items()},
    "signbit": _each(_signbit, converts=False),
    **{name: _each(function) for name, function in BINARY.items()},
    **{name: _compare(name) for name in COMPARISONS},
    **SHAPES,
    **MAKERS,
    **OTHERS,
}
_SUFFIXES = {
    "where": ("self",),
    "any": ("dims", "dim"),
    **{name: ("Tensor", "Scalar") for name in (*BINARY, *COMPARISONS)},
    "pow": ("Tensor_Tensor", "Tensor_Scalar", "Scalar"),
}

OPERATIONS: dict[str, Callable[..., Any]] = {
    GETITEM: lambda call, made, place: made[place],
    **{f"{space}.{name}": take for name, take in _TABLE.items() for space in ("prims", "aten")},
    **{
        f"aten.{name}.{suffix}": _TABLE[name]
        for name, suffixes in _SUFFIXES.items()
        for suffix in suffixes
    },
}
"""Every operation that is known, by torch's name for it."""

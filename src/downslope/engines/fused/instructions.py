"""LLVM's types and instructions for the kinds of numbers there are, for `values` to build upon."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

KINDS: dict[str, ir.Type] = {
    "f32": ir.FloatType(),
    "f64": ir.DoubleType(),
    "i1": ir.IntType(1),
    "i8": ir.IntType(8),
    "i32": ir.IntType(32),
    "i64": ir.IntType(64),
}
SIZES = {"f32": 4, "f64": 8, "i1": 1, "i8": 1, "i32": 4, "i64": 8}
"""Bytes of a number in memory."""

POINTER = ir.PointerType()
FLOATS = ("f32", "f64")
_UNSIGNED = ("i1", "i8")


class Written(ir.FormattedConstant):  # type: ignore[misc]  # llvmlite has no types
    """A constant vector in LLVM's short form, which llvmlite would write out lane by lane."""

    def __init__(self, vector: ir.VectorType, text: str) -> None:
        super().__init__(vector, text)
        self.constant = ()  # what llvmlite looks at lane by lane
        self.text = text

    def _to_string(self) -> str:
        return f"{self.type} {self.text}"

    def _get_reference(self) -> str:
        return self.text


def kind_of(made: ir.Value) -> str:
    """The kind of a number, or of a vector's numbers."""
    element = made.type.element if isinstance(made.type, ir.VectorType) else made.type
    return next(kind for kind, known in KINDS.items() if known == element)


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """A number in all lanes."""
    vector = ir.VectorType(scalar.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _FIRST)
    return builder.shuffle_vector(
        one, one, Written(ir.VectorType(ir.IntType(32), lanes), "zeroinitializer")
    )


def called(
    builder: ir.IRBuilder, name: str, result: ir.Type, operands: Sequence[ir.Value]
) -> ir.Value:
    """A call of one of LLVM's own functions, which is declared on its first use."""
    module = builder.function.module
    declared = module.globals.get(name)
    if declared is None:
        taken = ir.FunctionType(result, [operand.type for operand in operands])
        declared = ir.Function(module, taken, name)
    return builder.call(declared, operands)


def converted(builder: ir.IRBuilder, made: ir.Value, before: str, kind: str) -> ir.Value:
    """A number in another kind; floats are cut towards zero, and bounded, as integers."""
    vector = isinstance(made.type, ir.VectorType)
    target = ir.VectorType(KINDS[kind], made.type.count) if vector else KINDS[kind]
    if before in FLOATS and kind in FLOATS:
        return (builder.fpext if kind == "f64" else builder.fptrunc)(made, target)
    if before in FLOATS:
        lanes = f"v{made.type.count}" if vector else ""
        how = "fptoui" if kind in _UNSIGNED else "fptosi"
        return called(builder, f"llvm.{how}.sat.{lanes}{kind}.{lanes}{before}", target, [made])
    if kind in FLOATS:
        return (builder.uitofp if before in _UNSIGNED else builder.sitofp)(made, target)
    if SIZES[kind] < SIZES[before]:
        return builder.trunc(made, target)
    return (builder.zext if before in _UNSIGNED else builder.sext)(made, target)


_FIRST = ir.Constant(ir.IntType(32), 0)

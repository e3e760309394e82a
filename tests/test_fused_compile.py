"""Machine code: made once, found again, correct to the bit."""

import ctypes
import gc
import multiprocessing
import platform
import threading
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm
import numpy as np
import pytest

from downslope.engines.fused import compile
from downslope.engines.fused.compile import Passes

SQUARE = "define double @f(double %x) {\n %y = fmul double %x, %x\n ret double %y\n}"
CUBE = (
    "define double @f(double %x) {\n %y = fmul double %x, %x\n %z = fmul double %y, %x\n"
    " ret double %z\n}"
)
CALL = (
    "declare double @downslope_test_outside(double)\n"
    "define double @f(double %x) {\n %y = call double @downslope_test_outside(double %x)\n"
    " ret double %y\n}"
)
UNARY = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own, on disk and in memory."""
    monkeypatch.setenv("DOWNSLOPE_CACHE", str(tmp_path / "programs"))
    compile.forget()
    yield tmp_path / "programs"
    compile.forget()


class Writer:
    """Gives IR, and counts how often it was asked."""

    def __init__(self, text):
        self.text, self.asked = text, 0

    def __call__(self):
        self.asked += 1
        return self.text


def unary(code):
    return code.function("f", ctypes.c_double, result=ctypes.c_double)


def test_compiled_once_then_from_memory_then_from_disk(folder):
    square = Writer(SQUARE)
    first = compile.load("square", square, functions=["f"])
    assert unary(first)(3.0) == 9.0 and first.origin == "compiled"
    assert compile.load("square", square, functions=["f"]) is first
    compile.forget()
    again = compile.load("square", square, functions=["f"])
    assert again is not first and again.origin == "disk"
    assert unary(again)(-4.0) == 16.0 and unary(first)(3.0) == 9.0
    assert square.asked == 1 and len(list(folder.iterdir())) == 1


def test_another_key_is_another_program():
    square = compile.load("square", lambda: SQUARE, functions=["f"])
    cube = compile.load("cube", lambda: CUBE, functions=["f"])
    assert unary(square)(2.0) == 4.0 and unary(cube)(2.0) == 8.0


def test_what_counts_beside_the_key(monkeypatch):
    square = Writer(SQUARE)
    compile.load("square", square, functions=["f"])
    compile.load("square", square, functions=["f"], passes=Passes(codegen=2))
    compile.load("square", square, functions=["f"], passes=Passes(names=()))
    compile.load("square", square, functions=["f"], symbols={"downslope_test_other": 1})
    here = compile.host()
    plain = compile.Host(here.triple, "generic", "")
    monkeypatch.setattr(compile, "host", lambda: plain)
    assert unary(compile.load("square", square, functions=["f"]))(3.0) == 9.0
    monkeypatch.setattr(compile.llvmlite, "__version__", "0.0.0")
    compile.load("square", square, functions=["f"])
    monkeypatch.setattr(compile, "_writer", lambda: "another")  # the files that write programs
    compile.load("square", square, functions=["f"])
    assert square.asked == 7


def test_a_damaged_program_is_compiled_again(folder):
    square = Writer(SQUARE)
    compile.load("square", square, functions=["f"])
    compile.forget()
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert unary(compile.load("square", square, functions=["f"]))(3.0) == 9.0
    assert square.asked == 2
    compile.forget()
    assert compile.load("square", square, functions=["f"]).origin == "disk"


def test_without_a_disk(folder, monkeypatch):
    monkeypatch.setenv("DOWNSLOPE_CACHE", "off")
    square = Writer(SQUARE)
    for asked in (1, 2):
        assert unary(compile.load("square", square, functions=["f"]))(3.0) == 9.0
        assert square.asked == asked
        compile.forget()
    assert not folder.exists()


def test_memory_is_bounded_and_functions_hold_their_code(monkeypatch):
    monkeypatch.setattr(compile, "LOADED_LIMIT", 2)
    square = Writer(SQUARE)
    kept = unary(compile.load("0", square, functions=["f"]))
    for key in ("1", "0", "2"):  # "1" is the one unused for longest
        compile.load(key, square, functions=["f"])
    assert len(compile._loaded) == 2 and square.asked == 3
    monkeypatch.setenv("DOWNSLOPE_CACHE", "off")
    compile.load("0", square, functions=["f"])
    assert square.asked == 3
    compile.load("1", square, functions=["f"])
    assert square.asked == 4
    compile.forget()
    gc.collect()
    assert kept(5.0) == 25.0


def two_products(dtype, lanes):
    """out = a·b + c, as a multiplication and an addition."""
    vector = f"<{lanes} x {dtype}>"
    return f"""
    define void @f(ptr %a, ptr %b, ptr %c, ptr %out) {{
      %x = load {vector}, ptr %a
      %y = load {vector}, ptr %b
      %z = load {vector}, ptr %c
      %p = fmul {vector} %x, %y
      %s = fadd {vector} %p, %z
      store {vector} %s, ptr %out
      ret void
    }}"""


@pytest.mark.parametrize("codegen", [0, 1, 2, 3])
@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "float"), (np.float64, "double")])
def test_a_product_that_is_added_is_rounded_twice(dtype, name, codegen):
    lanes = 16
    tiny = np.finfo(dtype).eps
    a = np.full(lanes, 1 + tiny, dtype)
    b = np.full(lanes, 1 - tiny, dtype)  # a·b = 1 − ε², which rounds to 1
    out = np.empty((2, lanes), dtype)
    pointers = [ctypes.c_void_p] * 4
    plain = two_products(name, lanes).replace("ptr %a\n", "ptr %a, align 4\n")
    plain = plain.replace("ptr %b\n", "ptr %b, align 4\n").replace("ptr %c\n", "ptr %c, align 4\n")
    plain = plain.replace("ptr %out\n", "ptr %out, align 4\n")
    vector, short = f"<{lanes} x {name}>", f"llvm.fma.v{lanes}f{8 * a.itemsize}"
    fused = plain.replace(f"%s = fadd {vector} %p, %z", (
        f"%s = call {vector} @{short}({vector} %x, {vector} %y, {vector} %z)"
    ))  # fmt: skip
    fused += f"\ndeclare {vector} @{short}({vector}, {vector}, {vector})"
    c = np.full(lanes, -1, dtype)
    for row, text in enumerate((plain, fused)):
        code = compile.load(text, lambda t=text: t, functions=["f"], passes=Passes(codegen=codegen))
        code.function("f", *pointers)(*(v.ctypes.data for v in (a, b, c, out[row])))
    assert np.array_equal(out[0], np.zeros(lanes, dtype))
    assert np.array_equal(out[1], np.full(lanes, -(tiny**2), dtype))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86's registers")
@pytest.mark.parametrize("processor", ["skylake-avx512", "znver4"])
def test_vectors_of_512_bits_are_not_split(processor):
    target = compile.Host(compile.host().triple, processor, "+avx512f")
    machine = target.machine()
    text = machine.emit_assembly(compile.parsed(two_products("float", 16), machine))
    assert "zmm" in text and "ymm" not in text


def test_functions_from_outside(folder):
    outside = [UNARY(lambda x: x + 1), UNARY(lambda x: x + 2)]
    addresses = [ctypes.cast(f, ctypes.c_void_p).value for f in outside]
    codes = [
        compile.load("c", lambda: CALL, functions=["f"], symbols={"downslope_test_outside": a})
        for a in addresses
    ]
    assert [code.origin for code in codes] == ["compiled", "disk"]
    assert [unary(code)(1.0) for code in codes] == [2.0, 3.0]
    assert unary(codes[0])(5.0) == 6.0


def test_a_function_without_an_address_is_an_error():
    text = CALL.replace("outside", "nowhere")
    with pytest.raises(LookupError, match="'downslope_test_nowhere', whose address"):
        compile.load("c", lambda: text, functions=["f"])


def test_a_function_that_is_not_there_is_an_error(folder):
    with pytest.raises(LookupError, match="no function 'g'"):
        compile.load("square", lambda: SQUARE, functions=["f", "g"])
    assert not folder.exists()
    code = compile.load("square", lambda: SQUARE, functions=["f"])
    with pytest.raises(LookupError, match=r"no function 'ff'.*did you mean 'f'"):
        code.address("ff")


def test_what_llvm_refuses_is_not_kept(folder):
    for text in ("define double @f(", SQUARE.replace("ret double %y", "ret float 0.0")):
        with pytest.raises(RuntimeError):
            compile.load("bad", lambda t=text: t, functions=["f"])
    assert not folder.exists()
    assert unary(compile.load("bad", lambda: SQUARE, functions=["f"]))(3.0) == 9.0


def test_threads_compile_once():
    square = Writer(SQUARE)
    with ThreadPoolExecutor(8) as pool:
        codes = list(
            pool.map(lambda _: compile.load("t", square, functions=["f"]), range(32))
        )  # fmt: skip
    assert square.asked == 1 and len(set(map(id, codes))) == 1


def test_calls_let_other_threads_run():
    """Code that waits for another thread would wait forever if it held the interpreter's lock."""
    text = """
    define i64 @f(ptr %flag) {
    entry:
      br label %again
    again:
      %n = phi i64 [ 0, %entry ], [ %next, %again ]
      %next = add i64 %n, 1
      %seen = load atomic i64, ptr %flag seq_cst, align 8
      %set = icmp ne i64 %seen, 0
      %late = icmp sgt i64 %next, 20000000000
      %stop = or i1 %set, %late
      br i1 %stop, label %done, label %again
    done:
      ret i64 %seen
    }"""
    wait = compile.load("w", lambda: text, functions=["f"]).function(
        "f", ctypes.c_void_p, result=ctypes.c_int64
    )
    flag = ctypes.c_int64(0)
    timer = threading.Timer(0.05, lambda: setattr(flag, "value", 1))
    timer.start()
    assert wait(ctypes.addressof(flag)) == 1
    timer.join()


def elsewhere(results):
    code = compile.load("square", lambda: SQUARE, functions=["f"])
    results.put((code.origin, unary(code)(7.0)))


def test_another_process_finds_the_program():
    compile.load("square", lambda: SQUARE, functions=["f"])
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=elsewhere, args=(results,))
    process.start()
    assert results.get(timeout=60) == ("disk", 49.0)
    process.join(timeout=60)


def test_the_passes_that_are_named_exist():
    manager = llvm.create_new_module_pass_manager()
    assert all(hasattr(manager, f"add_{name}_pass") for name in Passes().names)


def test_stack_slots_are_brought_into_registers():
    slot = "%s{0} = alloca double\nstore double %v{0}, ptr %s{0}\n%v{1} = load double, ptr %s{0}\n"
    body = "".join(slot.format(k, k + 1) for k in range(50))
    text = f"define double @f(double %v0) {{\n{body} ret double %v50\n}}"
    plain, passed = (len(compile.compiled(text, Passes(names))) for names in ((), ("sroa",)))
    assert passed + 200 < plain
    assert compile.compiled(text) == compile.compiled(text, Passes(("sroa",)))

"""Which samples make which step, drawn in machine code: to the bit what `epoch_order` draws.

numpy's generator scrambles a counter: block c of the stream (seed, epoch) is four 64-bit words,
`Philox4x64-10 <https://doi.org/10.1145/2063384.2063405>`_ (Salmon, Moraes, Dror and Shaw, 2011) of
the counter (c, 0, 0, epoch) under the key (seed, 0), for c = 1, 2, ... A word is two draws of 32
bits, the lower half first, and draws become rows in one of two ways:

- ``permutation(rows)`` is the shuffle of Fisher and Yates from the last place down. The partner of
  place i is one of 0 ... i: the lowest bits of a draw, as many as i has. A larger number is
  rejected, and the next draw taken.
- ``integers(0, rows, size=rows)`` is `Lemire's <https://arxiv.org/abs/1805.10941>`_ product
  draw × rows: its upper 32 bits, rejected if the lower ones are less than 2**32 mod rows.

In a shuffle every third draw is rejected, and which one no processor can foresee. So nothing
branches on it: a rejected draw swaps a place with itself, and the place is not left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from llvmlite import ir
from llvmlite.ir import Block, Constant, IRBuilder, Value

from downslope.sampling import Order

KINDS: Mapping[Order, int] = {"shuffle": 0, "replacement": 1}
"""The orders that are drawn, and the number that asks for each."""

_I32, _I64, _I128 = ir.IntType(32), ir.IntType(64), ir.IntType(128)
_DRAWS = 8  # in a block
_FLAGS = ir.IntType(_DRAWS)

_ROUNDS = 10
_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # the fractions of the golden ratio and of √3


def define_orders(module: ir.Module) -> ir.Function:
    """Add to a module the function that draws the orders of many seeds and epochs.

    ::

        void downslope_orders(i64* seeds, i64 seed_count, i64 first_epoch, i64 epochs,
                              i64 rows, i64 kind, i32* out)

    fills `out`, of shape (seed_count, epochs, rows): ``out[s, e]`` is
    ``epoch_order(order, rows, seeds[s], first_epoch + e)`` for ``kind = KINDS[order]`` and rows
    from 1 to 2**31 - 1. It calls nothing and touches no other memory: threads may draw for
    different seeds at the same time.
    """
    arguments = [_I64.as_pointer(), *[_I64] * 5, _I32.as_pointer()]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), "downslope_orders")
    names = ("seeds", "seed_count", "first_epoch", "epochs", "rows", "kind", "out")
    for argument, name in zip(function.args, names, strict=True):
        argument.name = name
    seeds, seed_count, first_epoch, epochs, rows, kind, out = function.args

    slots = function.append_basic_block("slots")
    start = function.append_basic_block("start")
    builder = IRBuilder(start)
    shuffled = builder.icmp_signed("==", kind, _integer(KINDS["shuffle"]))
    with _counting(builder, seed_count) as s, _counting(builder, epochs) as e:
        seed = builder.load(builder.gep(seeds, [s]))
        epoch = builder.add(first_epoch, e)
        number = builder.add(builder.mul(s, epochs), e)
        order = builder.gep(out, [builder.mul(number, rows)])
        with builder.if_else(shuffled) as (then, otherwise):
            with then:
                _shuffle(builder, seed, epoch, rows, order)
            with otherwise:
                _replacement(builder, seed, epoch, rows, order)
    builder.ret_void()
    builder.position_at_end(slots)
    builder.branch(start)
    return function


def _shuffle(builder: IRBuilder, seed: Value, epoch: Value, rows: Value, order: Value) -> None:
    """Fill `order` with ``permutation(rows)``."""
    with _counting(builder, rows) as row:
        builder.store(builder.trunc(row, _I32), builder.gep(order, [row]))
    last = builder.sub(rows, _integer(1))
    with builder.if_then(builder.icmp_signed(">", last, _integer(0))):
        place, mask = _slot(builder, last), _slot(builder, _ones(builder, last))
        done = builder.append_basic_block("shuffled")
        with _blocks(builder, seed, epoch, done) as words:
            for draw in _draws(builder, words):
                _shuffle_one(builder, draw, place, mask, order, done)


def _shuffle_one(
    builder: IRBuilder, draw: Value, place: Value, mask: Value, order: Value, done: Block
) -> None:
    """Swap the row at a place with its partner and go one place down, unless it is rejected."""
    here, bits = builder.load(place), builder.load(mask)
    partner = builder.and_(draw, bits)
    rejected = builder.icmp_unsigned("<", here, partner)
    one = builder.gep(order, [here])
    other = builder.gep(order, [builder.select(rejected, here, partner)])
    first, second = builder.load(one), builder.load(other)
    builder.store(second, one)
    builder.store(first, other)
    # Written so, it is one addition, of the comparison's carry: all that the next draw waits for.
    here = builder.add(builder.sub(here, _integer(1)), builder.zext(rejected, _I64))
    builder.store(here, place)

    fewer = builder.lshr(bits, _integer(1))
    # Unlikely, so that it stays a branch, which is foreseen; a choice of values is waited for.
    with builder.if_then(builder.icmp_unsigned("<=", here, fewer), likely=False):
        builder.store(fewer, mask)
        _leave_if_equal(builder, here, _integer(0), done)


def _replacement(builder: IRBuilder, seed: Value, epoch: Value, rows: Value, order: Value) -> None:
    """Fill `order` with ``integers(0, rows, size=rows)``."""
    factors = _vector(builder, [rows] * _DRAWS)
    bounds = _vector(builder, [builder.urem(_integer(2**32), rows)] * _DRAWS)
    filled = _slot(builder, _integer(0))
    done = builder.append_basic_block("drawn")
    with _blocks(builder, seed, epoch, done) as words:
        products = builder.mul(_vector(builder, _draws(builder, words)), factors)
        drawn = builder.trunc(builder.lshr(products, _each(32)), ir.VectorType(_I32, _DRAWS))
        accepted = builder.icmp_unsigned(">=", builder.and_(products, _each(2**32 - 1)), bounds)
        flags = builder.bitcast(accepted, _FLAGS)
        after = builder.add(builder.load(filled), _integer(_DRAWS))
        room = builder.icmp_signed("<=", after, rows)
        whole = builder.and_(room, builder.icmp_signed("==", flags, _FLAGS(-1)))
        with builder.if_else(whole, likely=True) as (then, otherwise):
            with then:
                place = builder.gep(order, [builder.load(filled)])
                builder.store(drawn, builder.bitcast(place, drawn.type.as_pointer()), align=4)
                builder.store(after, filled)
            with otherwise:
                for lane in map(_I32, range(_DRAWS)):
                    place = builder.load(filled)
                    row = builder.extract_element(drawn, lane)
                    builder.store(row, builder.gep(order, [place]))
                    moves = builder.zext(builder.extract_element(accepted, lane), _I64)
                    builder.store(builder.add(place, moves), filled)
                    _leave_if_equal(builder, builder.load(filled), rows, done)
        _leave_if_equal(builder, builder.load(filled), rows, done)


@contextmanager
def _blocks(builder: IRBuilder, seed: Value, epoch: Value, done: Block) -> Iterator[list[Value]]:
    """Block after block, four words each, until the body jumps to `done`; continue there.

    A block is made one turn before its draws are used, so that neither waits for the other.
    """
    ahead = [_slot(builder, word) for word in _philox(builder, seed, epoch, _integer(1))]
    counter = _slot(builder, _integer(2))
    loop = builder.append_basic_block("block")
    builder.branch(loop)
    builder.position_at_end(loop)
    words, number = [builder.load(slot) for slot in ahead], builder.load(counter)
    for word, slot in zip(_philox(builder, seed, epoch, number), ahead, strict=True):
        builder.store(word, slot)
    builder.store(builder.add(number, _integer(1)), counter)
    yield words
    builder.branch(loop)
    builder.position_at_end(done)


def _philox(builder: IRBuilder, seed: Value, epoch: Value, number: Value) -> list[Value]:
    """Four words: block `number` of a stream, from 1, since numpy counts before it scrambles."""
    a, b, c, d = number, _integer(0), _integer(0), epoch
    for turn in range(_ROUNDS):
        key = builder.add(seed, _integer(turn * _KEY_STEPS[0])), _integer(turn * _KEY_STEPS[1])
        (upper_a, lower_a), (upper_c, lower_c) = (
            _product(builder, word, by) for word, by in zip((a, c), _MULTIPLIERS, strict=True)
        )
        a = builder.xor(builder.xor(upper_c, b), key[0])
        c = builder.xor(builder.xor(upper_a, d), key[1])
        b, d = lower_c, lower_a
    return [a, b, c, d]


def _product(builder: IRBuilder, word: Value, by: int) -> tuple[Value, Value]:
    """The upper and the lower 64 bits of a product."""
    product = builder.mul(builder.zext(word, _I128), Constant(_I128, by))
    upper = builder.lshr(product, Constant(_I128, 64))
    return builder.trunc(upper, _I64), builder.trunc(product, _I64)


def _draws(builder: IRBuilder, words: Sequence[Value]) -> Iterator[Value]:
    """Numbers of 32 bits in the order in which numpy hands them out, as i64."""
    for word in words:
        yield builder.and_(word, _integer(2**32 - 1))
        yield builder.lshr(word, _integer(32))


def _ones(builder: IRBuilder, number: Value) -> Value:
    """As many ones as a positive number has bits."""
    zeros = builder.ctlz(number, Constant(ir.IntType(1), 1))
    return builder.lshr(_integer(2**64 - 1), zeros)


def _vector(builder: IRBuilder, numbers: Iterable[Value]) -> Value:
    """Numbers of 64 bits, as many as a block has draws, side by side."""
    made = Constant(_each(0).type, ir.Undefined)
    for lane, number in enumerate(numbers):
        made = builder.insert_element(made, number, _I32(lane))
    return made


def _each(number: int) -> Constant:
    """A constant for each draw of a block."""
    return Constant(ir.VectorType(_I64, _DRAWS), [number] * _DRAWS)


def _leave_if_equal(builder: IRBuilder, number: Value, other: Value, done: Block) -> None:
    """Jump to `done` if two numbers are equal; go on here if not."""
    following = builder.append_basic_block("following")
    builder.cbranch(builder.icmp_signed("==", number, other), done, following)
    builder.position_at_end(following)


def _slot(builder: IRBuilder, value: Value) -> Value:
    """A variable of the function, which holds `value`."""
    with builder.goto_entry_block():
        slot = builder.alloca(value.type)
    builder.store(value, slot)
    return slot


@contextmanager
def _counting(builder: IRBuilder, stop: Value) -> Iterator[Value]:
    """``for i in range(stop)``."""
    before = builder.block
    head, body, end = (builder.append_basic_block(name) for name in ("count", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(_I64)
    index.add_incoming(_integer(0), before)
    builder.cbranch(builder.icmp_signed("<", index, stop), body, end)
    builder.position_at_end(body)
    yield index
    index.add_incoming(builder.add(index, _integer(1)), builder.block)
    builder.branch(head)
    builder.position_at_end(end)


def _integer(number: int) -> Constant:
    """A constant of 64 bits; what is above them is lost."""
    return Constant(_I64, number % 2**64)

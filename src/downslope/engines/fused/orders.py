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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from llvmlite import ir

from downslope.sampling import Order

KINDS: Mapping[Order, int] = {"shuffle": 0, "replacement": 1}
"""The orders that are drawn, and the number that asks for each."""

_I32, _I64, _I128 = ir.IntType(32), ir.IntType(64), ir.IntType(128)
_WORDS, _DRAWS = 4, 8  # in a block

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
    function = ir.Function(
        module, ir.FunctionType(ir.VoidType(), arguments), "downslope_orders"
    )
    names = ("seeds", "seed_count", "first_epoch", "epochs", "rows", "kind", "out")
    for argument, name in zip(function.args, names, strict=True):
        argument.name = name
    seeds, seed_count, first_epoch, epochs, rows, kind, out = function.args

    slots = function.append_basic_block("slots")
    start = function.append_basic_block("start")
    builder = ir.IRBuilder(start)
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


def _shuffle(
    builder: ir.IRBuilder, seed: ir.Value, epoch: ir.Value, rows: ir.Value, order: ir.Value
) -> None:
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
    builder: ir.IRBuilder,
    draw: ir.Value,
    place: ir.Value,
    mask: ir.Value,
    order: ir.Value,
    done: ir.Block,
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
    # Written so, it is one addition with the carry of the comparison, and all that the next draw
    # has to wait for.
    here = builder.add(builder.sub(here, _integer(1)), builder.zext(rejected, _I64))
    builder.store(here, place)

    fewer = builder.lshr(bits, _integer(1))
    halved = builder.append_basic_block("halved")
    following = builder.append_basic_block("following")
    branch = builder.cbranch(builder.icmp_unsigned("<=", here, fewer), halved, following)
    branch.set_weights(_RARELY)
    builder.position_at_end(halved)
    builder.store(fewer, mask)
    builder.cbranch(builder.icmp_signed("==", here, _integer(0)), done, following)
    builder.position_at_end(following)


_RARELY = (1, 1000)
"""Weights that keep a branch, which is foreseen; as a choice of values it would be waited for."""


def _replacement(
    builder: ir.IRBuilder, seed: ir.Value, epoch: ir.Value, rows: ir.Value, order: ir.Value
) -> None:
    """Fill `order` with ``integers(0, rows, size=rows)``."""
    threshold = _spread(builder, builder.urem(_integer(2**32), rows))
    range_ = _spread(builder, rows)
    filled = _slot(builder, _integer(0))
    done = builder.append_basic_block("drawn")
    with _blocks(builder, seed, epoch, done) as words:
        products = builder.mul(_side_by_side(builder, _draws(builder, words)), range_)
        drawn = builder.trunc(builder.lshr(products, _each(32)), ir.VectorType(_I32, _DRAWS))
        lower = builder.and_(products, _each(2**32 - 1))
        accepted = builder.icmp_unsigned(">=", lower, threshold)
        after = builder.add(builder.load(filled), _integer(_DRAWS))
        whole = builder.and_(
            builder.icmp_signed("<=", after, rows),
            builder.icmp_signed(
                "==", builder.bitcast(accepted, ir.IntType(_DRAWS)), ir.Constant(ir.IntType(_DRAWS), -1)
            ),
        )
        with builder.if_else(whole, likely=True) as (then, otherwise):
            with then:
                target = builder.gep(order, [builder.load(filled)])
                target = builder.bitcast(target, drawn.type.as_pointer())
                builder.store(drawn, target, align=4)
                builder.store(after, filled)
            with otherwise:
                for lane in range(_DRAWS):
                    place = builder.load(filled)
                    builder.store(builder.extract_element(drawn, ir.Constant(_I32, lane)), builder.gep(order, [place]))
                    one = builder.extract_element(accepted, ir.Constant(_I32, lane))
                    place = builder.add(place, builder.zext(one, _I64))
                    builder.store(place, filled)
                    following = builder.append_basic_block("following")
                    builder.cbranch(builder.icmp_signed("==", place, rows), done, following)
                    builder.position_at_end(following)
        following = builder.append_basic_block("following")
        builder.cbranch(builder.icmp_signed("==", builder.load(filled), rows), done, following)
        builder.position_at_end(following)


def _each(number):
    return ir.Constant(ir.VectorType(_I64, _DRAWS), [number] * _DRAWS)


def _side_by_side(builder, numbers):
    made = ir.Constant(ir.VectorType(_I64, _DRAWS), ir.Undefined)
    for lane, number in enumerate(numbers):
        made = builder.insert_element(made, number, ir.Constant(_I32, lane))
    return made

def _spread(builder, number):
    return _side_by_side(builder, [number]*_DRAWS)


@contextmanager
def _blocks(
    builder: ir.IRBuilder, seed: ir.Value, epoch: ir.Value, done: ir.Block
) -> Iterator[list[ir.Value]]:
    """Go on with block after block, four words, until the body jumps to `done`; go on there.

    A block is made while the draws of the one before are used: one keeps the multipliers busy, the
    other the rest of the processor.
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


def _philox(
    builder: ir.IRBuilder, seed: ir.Value, epoch: ir.Value, number: ir.Value
) -> list[ir.Value]:
    """Block `number` of a stream, from 1: four words."""
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


def _product(builder: ir.IRBuilder, word: ir.Value, by: int) -> tuple[ir.Value, ir.Value]:
    """The upper and the lower 64 bits of a product."""
    product = builder.mul(builder.zext(word, _I128), ir.Constant(_I128, by))
    upper = builder.lshr(product, ir.Constant(_I128, 64))
    return builder.trunc(upper, _I64), builder.trunc(product, _I64)


def _draws(builder: ir.IRBuilder, words: Sequence[ir.Value]) -> Iterator[ir.Value]:
    """Numbers of 32 bits in the order in which numpy hands them out, as i64."""
    for word in words:
        yield builder.and_(word, _integer(2**32 - 1))
        yield builder.lshr(word, _integer(32))


def _ones(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """As many ones as a positive number has bits."""
    zeros = builder.ctlz(number, ir.Constant(ir.IntType(1), 1))
    return builder.lshr(_integer(2**64 - 1), zeros)


def _slot(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A variable of the function, which holds `value`."""
    with builder.goto_entry_block():
        slot = builder.alloca(value.type)
    builder.store(value, slot)
    return slot


@contextmanager
def _counting(builder: ir.IRBuilder, stop: ir.Value) -> Iterator[ir.Value]:
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


def _integer(number: int) -> ir.Constant:
    """A constant of 64 bits; what is above them is lost."""
    return ir.Constant(_I64, number % 2**64)

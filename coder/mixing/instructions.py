"""What the mixer wants of LLVM and numba has no words for: prefetching, and loops that are vectors for sure.

A compiler that sees a loop of unknown length guesses how far to unroll it, too far for so few inputs. None of
these looks at the bounds of an array.
"""

# llvmlite and numba leave much untyped:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .layout import INPUT_GROUP, WEIGHT_LIMIT

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_NARROW, _WIDE = ir.VectorType(_INT32, INPUT_GROUP), ir.VectorType(_INT64, INPUT_GROUP)
_instruction = cast(Callable[[Any], Callable[..., Any]], intrinsic)


def _data(context: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    """Where an array among the arguments begins."""
    return context.make_array(signature.args[number])(context, builder, arguments[number]).data


def _group(builder: Any, data: Any, at: Any) -> Any:
    """A pointer to INPUT_GROUP elements."""
    return builder.bitcast(builder.gep(data, [at]), _NARROW.as_pointer())


def _everywhere(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_NARROW, ir.Undefined), value, _INT32(0))
    return builder.shuffle_vector(one, one, ir.Constant(_NARROW, [0] * INPUT_GROUP))


def _groups(builder: Any, count: Any) -> Any:
    return cgutils.for_range_slice(builder, _INT64(0), count, _INT64(INPUT_GROUP), _INT64)


@_instruction
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Have the cache line of element `index` of a one-dimensional array fetched; it may lie outside."""
    signature = types.void(array, types.int64)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = _data(context, builder, signature, arguments, 0)
        address = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _INT32, _INT32, _INT32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], kind)
        builder.call(function, [address, _INT32(0), _INT32(3), _INT32(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return signature, build


@_instruction
def dot(_: Any, weights: Any, x: Any, count: Any) -> Any:
    """Sum of weights[j] * x[j] for j < count, a multiple of INPUT_GROUP: int32 arrays, an exact int64."""
    signature = types.int64(weights, x, types.int64)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        both = [_data(context, builder, signature, arguments, number) for number in range(2)]
        sums = cgutils.alloca_once_value(builder, ir.Constant(_WIDE, None))
        with _groups(builder, arguments[2]) as (at, _):
            wide = [builder.sext(builder.load(_group(builder, data, at), align=4), _WIDE) for data in both]
            builder.store(builder.add(builder.load(sums), builder.mul(*wide)), sums)
        kind, name = ir.FunctionType(_INT64, [_WIDE]), f"llvm.vector.reduce.add.v{INPUT_GROUP}i64"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [builder.load(sums)])

    return signature, build


@_instruction
def step(_: Any, weights: Any, x: Any, count: Any, size: Any) -> Any:
    """Add (x[j] * size + 8192) >> 14 to weights[j], within +-WEIGHT_LIMIT, for j < count as `dot` has it."""
    signature = types.void(weights, x, types.int64, types.int32)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        moving, inputs = (_data(context, builder, signature, arguments, number) for number in range(2))
        numbers = [arguments[3], *map(_INT32, (1 << 13, 14, WEIGHT_LIMIT, -WEIGHT_LIMIT))]
        size, half, shift, highest, lowest = (_everywhere(builder, number) for number in numbers)
        with _groups(builder, arguments[2]) as (at, _):
            place = _group(builder, moving, at)
            product = builder.mul(builder.load(_group(builder, inputs, at), align=4), size)
            move = builder.ashr(builder.add(product, half), shift)
            moved = builder.add(builder.load(place, align=4), move)
            moved = builder.select(builder.icmp_signed("<", moved, highest), moved, highest)
            moved = builder.select(builder.icmp_signed(">", moved, lowest), moved, lowest)
            builder.store(moved, place, align=4)
        return context.get_dummy_value()

    return signature, build

"""The two loops over a vector of weights, as vector instructions of any processor that LLVM knows.

A compiler that sees a loop of unknown length guesses how much to unroll, and wrongly for so few inputs.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .layout import INPUT_GROUP, WEIGHT_LIMIT

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_NARROW, _WIDE = ir.VectorType(_INT32, INPUT_GROUP), ir.VectorType(_INT64, INPUT_GROUP)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _vector_at(builder: Any, data: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), _NARROW.as_pointer())


def _everywhere(builder: Any, scalar: Any) -> Any:
    first = builder.insert_element(ir.Constant(_NARROW, ir.Undefined), scalar, _INT32(0))
    return builder.shuffle_vector(first, ir.Constant(_NARROW, ir.Undefined), ir.Constant(_NARROW, None))


@intrinsic
def dot(_: Any, weights: Any, x: Any, count: Any) -> Any:
    """Sum of weights[j] * x[j] for j < count, a multiple of INPUT_GROUP; exact, int64, of int32 arrays."""
    signature = types.int64(weights, x, types.int64)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (_data(context, builder, signature.args[i], arguments[i]) for i in range(2))
        sums = cgutils.alloca_once_value(builder, ir.Constant(_WIDE, None))
        with cgutils.for_range_slice(builder, _INT64(0), arguments[2], _INT64(INPUT_GROUP), _INT64) as (
            at,
            _,
        ):
            wide = [
                builder.sext(builder.load(_vector_at(builder, data, at), align=4), _WIDE)
                for data in (left, right)
            ]
            builder.store(builder.add(builder.load(sums), builder.mul(*wide)), sums)
        kind, name = ir.FunctionType(_INT64, [_WIDE]), f"llvm.vector.reduce.add.v{INPUT_GROUP}i64"
        total = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(total, [builder.load(sums)])

    return signature, build


@intrinsic
def step(_: Any, weights: Any, x: Any, count: Any, size: Any) -> Any:
    """Move weights[j] by (x[j] * size + 8192) >> 14, within +-WEIGHT_LIMIT, for j < count, as `dot`."""
    signature = types.void(weights, x, types.int64, types.int32)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (_data(context, builder, signature.args[i], arguments[i]) for i in range(2))
        size, half, shift, highest, lowest = (
            _everywhere(builder, value)
            for value in (arguments[3], *map(_INT32, (1 << 13, 14, WEIGHT_LIMIT, -WEIGHT_LIMIT)))
        )
        with cgutils.for_range_slice(builder, _INT64(0), arguments[2], _INT64(INPUT_GROUP), _INT64) as (
            at,
            _,
        ):
            weight = _vector_at(builder, left, at)
            move = builder.mul(builder.load(_vector_at(builder, right, at), align=4), size)
            moved = builder.add(builder.load(weight, align=4), builder.ashr(builder.add(move, half), shift))
            moved = builder.select(builder.icmp_signed("<", moved, highest), moved, highest)
            moved = builder.select(builder.icmp_signed(">", moved, lowest), moved, lowest)
            builder.store(moved, weight, align=4)
        return context.get_dummy_value()

    return signature, build

"""Products of 8-bit integers, in whatever instructions this processor has for them.

A tile is a loop that numba compiles into its callers: for some rows x of bytes without sign and blocks of 16
columns of bytes w with one, `out[r, c] = begin[c] + sum_k x[r, k] * w[k, c]` in int32. Four values of k lie
beside each other, `block[k // 4, c, k % 4]`, as VNNI's vpdpbusd takes them. The sums stay in registers, and
nothing saturates: a sum is exact while it is below 2^31.
"""

# llvmlite and numba leave much untyped:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

LANES = 16  # columns of a block
DEPTH = 4  # values of k that lie beside each other
BLOCK = LANES * DEPTH  # bytes of a block at each k // 4

_BYTE, _HALF, _WORD, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_WORDS = ir.VectorType(_WORD, LANES)


def _vector(element: ir.Type, count: int) -> ir.Type:
    return ir.VectorType(element, count)


def _splat(builder: Any, value: Any, count: int) -> Any:
    """A vector of `count` times the same."""
    one = builder.insert_element(ir.Constant(_vector(value.type, count), ir.Undefined), value, _WORD(0))
    return builder.shuffle_vector(one, one, ir.Constant(_vector(_WORD, count), [0] * count))


def _pick(builder: Any, vector: Any, indices: list[int], other: Any = None) -> Any:
    mask = ir.Constant(_vector(_WORD, len(indices)), indices)
    return builder.shuffle_vector(vector, vector if other is None else other, mask)


def _concatenate(builder: Any, parts: list[Any]) -> Any:
    while len(parts) > 1:
        width = 2 * parts[0].type.count
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [_pick(builder, a, list(range(width)), b) for a, b in pairs]
    return parts[0]


class _Portable:
    """Sums of 32-bit products, as LLVM likes to do them."""

    name = "32-bit products"
    rows, blocks = 2, 1  # as many as the registers hold
    registers = (_WORDS,)  # the accumulators of a block

    def begin(self, builder: Any, begin: Any) -> list[Any]:
        return [begin]

    def add(self, builder: Any, sums: list[Any], x: Any, w: Any) -> list[Any]:
        """Add four products to each sum; x is a word of four bytes, w is 64 bytes."""
        values = builder.bitcast(x, _vector(_BYTE, DEPTH))
        total = sums[0]
        for k in range(DEPTH):
            column = builder.sext(_pick(builder, w, list(range(k, BLOCK, DEPTH))), _WORDS)
            value = builder.zext(builder.extract_element(values, _WORD(k)), _WORD)
            total = builder.add(total, builder.mul(column, _splat(builder, value, LANES)))
        return [total]

    def end(self, builder: Any, sums: list[Any]) -> Any:
        return sums[0]


class _Instruction(_Portable):
    """One instruction, `intrinsic`, of vectors of `lanes` words."""

    def __init__(self, name: str, lanes: int, rows: int, blocks: int, intrinsic: str) -> None:
        self.name = f"{name}, {32 * lanes} bits"
        self.lanes, self.rows, self.blocks, self.intrinsic = lanes, rows, blocks, intrinsic
        self.registers = (_vector(_WORD, lanes),) * (LANES // lanes)

    def begin(self, builder: Any, begin: Any) -> list[Any]:
        return [_pick(builder, begin, list(range(at, at + self.lanes))) for at in range(0, LANES, self.lanes)]

    def end(self, builder: Any, sums: list[Any]) -> Any:
        return _concatenate(builder, sums)

    def call(self, builder: Any, returns: Any, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(returns, [argument.type for argument in arguments])
        return builder.call(builder.module.declare_intrinsic(self.intrinsic, fnty=kind), arguments)


class _DotProduct(_Instruction):
    """VNNI: four products of bytes at a time, added to a word without saturation."""

    def add(self, builder: Any, sums: list[Any], x: Any, w: Any) -> list[Any]:
        kind = _vector(_WORD, self.lanes)
        words, value = builder.bitcast(w, _WORDS), _splat(builder, x, self.lanes)
        return [
            self.call(builder, kind, [total, value, part])
            for total, part in zip(sums, self.begin(builder, words), strict=True)
        ]


class _PairProducts(_Instruction):
    """vpmaddwd: two products of 16-bit numbers at a time, so that each column has two sums."""

    def __init__(self, name: str, lanes: int, rows: int, blocks: int, intrinsic: str) -> None:
        super().__init__(name, lanes, rows, blocks, intrinsic)
        self.registers = self.registers * 2

    def begin(self, builder: Any, begin: Any) -> list[Any]:
        zero = ir.Constant(_WORDS, None)
        halves = [
            [at // 2 if at % 2 == 0 else LANES for at in range(side, side + LANES)] for side in (0, LANES)
        ]
        wide = [_pick(builder, begin, half, zero) for half in halves]
        return [part for half in wide for part in super(_PairProducts, self).begin(builder, half)]

    def add(self, builder: Any, sums: list[Any], x: Any, w: Any) -> list[Any]:
        halves = 2 * self.lanes
        kind = _vector(_WORD, self.lanes)
        four = builder.zext(builder.bitcast(x, _vector(_BYTE, DEPTH)), _vector(_HALF, DEPTH))
        value = _pick(builder, four, [at % DEPTH for at in range(halves)])
        found: list[Any] = []
        for number, total in enumerate(sums):
            part = _pick(builder, w, list(range(number * halves, (number + 1) * halves)))
            wide = builder.sext(part, _vector(_HALF, halves))
            found.append(builder.add(total, self.call(builder, kind, [wide, value])))
        return found

    def end(self, builder: Any, sums: list[Any]) -> Any:
        both = _concatenate(builder, sums)
        even, odd = (_pick(builder, both, list(range(at, 2 * LANES, 2))) for at in (0, 1))
        return builder.add(even, odd)


def _choose() -> _Portable:
    """By what numba compiles for."""
    has = {
        name[1:]
        for name in cpu_target.target_context.codegen().magic_tuple()[2].split(",")
        if name[:1] == "+"
    }
    if {"avx512vnni", "avx512f"} <= has:
        return _DotProduct("vpdpbusd", 16, 4, 4, "llvm.x86.avx512.vpdpbusd.512")
    if "avxvnni" in has:
        return _DotProduct("vpdpbusd", 8, 2, 2, "llvm.x86.avx512.vpdpbusd.256")
    if {"avx512bw", "avx512f"} <= has:
        return _PairProducts("vpmaddwd", 16, 4, 2, "llvm.x86.avx512.pmaddw.d.512")
    if "avx2" in has:
        return _PairProducts("vpmaddwd", 8, 2, 1, "llvm.x86.avx2.pmadd.wd")
    return _Portable()


INSTRUCTIONS = _choose()


def _emit(
    builder: Any,
    rows: int,
    blocks: int,
    x: Any,
    x_stride: Any,
    w: Any,
    w_stride: Any,
    depth: Any,
    begin: Any,
    out: Any,
    out_stride: Any,
) -> None:
    """A loop over k for `rows` x `blocks` sums that are held in registers."""
    kind = INSTRUCTIONS
    firsts = [
        kind.begin(builder, _load(builder, begin, _LONG(4 * LANES * block), _WORDS))
        for block in range(blocks)
    ]
    before = builder.block
    head, end = builder.append_basic_block("products"), builder.append_basic_block("done")
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(_LONG)
    k.add_incoming(_LONG(0), before)
    sums = {
        (row, block): [builder.phi(first.type) for first in firsts[block]]
        for row in range(rows)
        for block in range(blocks)
    }
    for (_, block), phis in sums.items():
        for phi, first in zip(phis, firsts[block], strict=True):
            phi.add_incoming(first, before)
    columns = [
        _load(
            builder,
            w,
            builder.add(builder.mul(k, _LONG(BLOCK)), builder.mul(w_stride, _LONG(block))),
            _vector(_BYTE, BLOCK),
        )
        for block in range(blocks)
    ]
    for row in range(rows):
        at = builder.add(builder.mul(k, _LONG(DEPTH)), builder.mul(x_stride, _LONG(row)))
        value = _load(builder, x, at, _WORD)
        for block in range(blocks):
            added = kind.add(builder, sums[row, block], value, columns[block])
            for phi, new in zip(sums[row, block], added, strict=True):
                phi.add_incoming(new, head)
            sums[row, block] = added
    following = builder.add(k, _LONG(1))
    k.add_incoming(following, head)
    builder.cbranch(builder.icmp_signed("<", following, depth), head, end)
    builder.position_at_end(end)
    for (row, block), found in sums.items():
        at = builder.add(builder.mul(out_stride, _LONG(4 * row)), _LONG(4 * LANES * block))
        builder.store(kind.end(builder, found), _at(builder, out, at, _WORDS), align=4)


def _at(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    return builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())


def _load(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    return builder.load(_at(builder, base, offset, kind), align=1)


def _tile(rows: int, blocks: int) -> Callable[..., Any]:
    """An intrinsic for `rows` x 16 * `blocks` sums."""

    @intrinsic
    def tile(
        typing: Any,
        x: Any,
        x_at: Any,
        x_stride: Any,
        w: Any,
        w_at: Any,
        w_stride: Any,
        depth: Any,
        begin: Any,
        begin_at: Any,
        out: Any,
        out_at: Any,
        out_stride: Any,
    ) -> Any:
        """out[r, c] = begin[c] + sum_k x[r, k] * w[k, c], for contiguous 1-D arrays.

        Args:
            x: uint8; row r is x[x_at + r * x_stride:], 4 * depth values.
            w: int8; block b is w[w_at + b * w_stride:], [depth, 16, 4].
            begin, out: int32; row r of out is out[out_at + r * out_stride:].
        """

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def pointer(number: int) -> Any:
                """Where an array's part begins, as a pointer to bytes."""
                array_type = signature.args[number]
                data = context.make_array(array_type)(context, builder, arguments[number]).data
                return builder.bitcast(builder.gep(data, [arguments[number + 1]]), _BYTE.as_pointer())

            x, w, begin, out = (pointer(number) for number in (0, 3, 7, 9))
            x_stride, w_stride, depth, out_stride = (arguments[number] for number in (2, 5, 6, 11))
            for row in range(0, rows, INSTRUCTIONS.rows):
                for block in range(0, blocks, INSTRUCTIONS.blocks):
                    _emit(
                        builder,
                        min(INSTRUCTIONS.rows, rows - row),
                        min(INSTRUCTIONS.blocks, blocks - block),
                        builder.gep(x, [builder.mul(x_stride, _LONG(row))]),
                        x_stride,
                        builder.gep(w, [builder.mul(w_stride, _LONG(block))]),
                        w_stride,
                        depth,
                        builder.gep(begin, [_LONG(4 * LANES * block)]),
                        builder.gep(
                            out,
                            [
                                builder.mul(
                                    builder.add(builder.mul(out_stride, _LONG(row)), _LONG(LANES * block)),
                                    _LONG(4),
                                )
                            ],
                        ),
                        out_stride,
                    )
            return context.get_dummy_value()

        integers = (types.int64,) * 2
        signature = types.void(x, *integers, w, *integers, types.int64, begin, types.int64, out, *integers)
        return signature, emit

    return tile


TILE_ROWS, TILE_BLOCKS = 4, 4
tile_4x4: Any = _tile(TILE_ROWS, TILE_BLOCKS)
tile_4x1: Any = _tile(TILE_ROWS, 1)
tile_1x4: Any = _tile(1, TILE_BLOCKS)
tile_1x1: Any = _tile(1, 1)

"""What each step from floats to integers costs, in bits per byte: `python -m laconic.train.integers RUN`.

Each step alone is simulated in the float model of a finished run: the roundings to 8 bits and fewer, all of
these, then each rule of the fixed-point arithmetic in between (train/arithmetic.py). The frozen checkpoint
comes last, as it is and with the softmax of its logits in floats. All is measured on the same sequences of
validation text.
"""

import argparse
import copy
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..coder.checkpoint import FrozenCheckpoint
from ..coder.engine import load_engine
from ..coder.errors import LaconicError
from ..coder.fixedpoint import LOGIT_BITS
from ..data.batches import spread_batches
from ..data.shards import open_shard
from ..data.tokenshard import TokenShard
from ..models.freeze import Arrays, calibrate, linears
from ..models.quantise import INT8_MAX, Clip, QuantLinear, fake_quantise_rows
from ..models.rounding import Array, levels_of, round_rows
from ..models.transformer import Transformer
from .arithmetic import Step, arithmetic_steps
from .configuration import build_recipe, read_yaml
from .export import calibration_batches, compare
from .language import load_language_module
from .recipe import TrainingRecipe
from .run import Run

SEQUENCES = 256


def _round_inputs(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (fake_quantise_rows(inputs[0]),)


def _inputs_of(name: str) -> Step:
    def step(model: Transformer) -> None:
        for full_name, linear in linears(model).items():
            if full_name.endswith(f".{name}"):
                linear.register_forward_pre_hook(_round_inputs)

    return step


def _static_ranges(model: Transformer) -> None:
    for module in model.modules():
        if isinstance(module, Clip):
            module.quantised = True


class _Unrounded(QuantLinear):
    """A layer that has attention round its weights, and rounds nothing itself."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight)


def _attention_weights(model: Transformer) -> None:
    for block in model.layers:
        qkv = block.attention.qkv
        plain = _Unrounded(qkv.in_features, qkv.out_features)
        plain.load_state_dict(qkv.state_dict())
        plain.quantised = True
        block.attention.qkv = plain


class _RoundedHead(Transformer):
    """Rounds what the head reads, and nothing else."""

    def trunk(self, ids_BT: Tensor, entering: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        rows, head = super().trunk(ids_BT, entering)
        return fake_quantise_rows(rows), head


def _last_rows(model: Transformer) -> None:
    model.__class__ = _RoundedHead


def _rounded(matrix: Tensor, levels: int, moment: Array | None, sparsity: float = 0.0) -> Tensor:
    integers, step = round_rows(matrix.detach().double().numpy(), levels, moment, sparsity)
    return torch.from_numpy(integers * step[:, None]).float()


def steps_of(recipe: TrainingRecipe, moments: Arrays) -> dict[str, Step]:
    """Name -> what has a float model simulate that step alone.

    Args:
        recipe: how many bits, and which share of zeros.
        moments: of the inputs of each matrix, as `calibrate` measures them.
    """
    levels, table_levels = levels_of(recipe.weight_bits), levels_of(recipe.table_bits)

    def table(model: Transformer) -> None:
        read = moments["head"] if table_levels < INT8_MAX else None
        tied = model.head is None
        model.embed.weight.data = _rounded(model.embed.weight, table_levels, read if tied else None)
        if model.head is not None:
            model.head.weight.data = _rounded(model.head.weight, table_levels, read)
        model.table_levels = table_levels

    def weights(model: Transformer) -> None:
        for name, linear in linears(model).items():
            linear.weight.data = _rounded(linear.weight, levels, moments[name], recipe.sparsity)
            linear.levels = levels

    return {
        f"matrices of the blocks, {recipe.weight_bits} bits": weights,
        f"embedding and head, {recipe.table_bits} bits": table,
        "inputs of queries, keys and values, 8 bits a row": _inputs_of("qkv"),
        "inputs of attention's output, 8 bits a row": _inputs_of("out"),
        "inputs of the feed-forward layer, 8 bits a row": _inputs_of("up"),
        "its hidden channels, 8 bits a row": _inputs_of("down"),
        "inputs of the head, 8 bits a row": _last_rows,
        "queries, keys and values in static ranges, 8 bits": _static_ranges,
        "attention weights, 8 bits": _attention_weights,
    }


@torch.no_grad()
def _bits_per_byte(model: Transformer, shard: TokenShard, lengths: Tensor, seq_len: int) -> float:
    nats, num_bytes = 0.0, 0
    for inputs, targets in spread_batches(shard, seq_len, 64, SEQUENCES // 64, model.begin_id):
        inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets)
        logits = model(inputs).flatten(0, 1).double()  # sums of float32 would hide the smallest steps
        nats += float(F.cross_entropy(logits, targets.flatten(), reduction="sum"))
        num_bytes += int(lengths[targets].sum())
    return nats / math.log(2) / num_bytes


def _softmax_of_integers(
    checkpoint: FrozenCheckpoint, shard: TokenShard, lengths: Tensor, seq_len: int
) -> float:
    """Bits per byte of the frozen logits under an exact softmax."""
    engine, bits, num_bytes = load_engine(checkpoint), 0.0, 0
    begin_id = checkpoint.config.vocab_size
    for inputs, targets in spread_batches(shard, seq_len, 64, SEQUENCES // 64, begin_id):
        for row, wanted in zip(inputs, targets, strict=True):
            logits = engine.advance(engine.start(1), row[None])[0].astype(np.float64) / (1 << LOGIT_BITS)
            bits += float(
                (np.logaddexp2.reduce(logits, axis=-1) - logits[np.arange(len(wanted)), wanted]).sum()
            )
        num_bytes += int(lengths[targets].sum())
    return bits / num_bytes


def measure_integers(folder: Path) -> Iterator[tuple[str, float, float]]:
    """(step, bits per byte, what it adds to the float model's), the whole graph last.

    Args:
        folder: of a run that came to its end.

    Raises:
        LaconicError: it did not, or is no run.
    """
    trained, recipe = folder / "student" / "final.ckpt", folder / "recipe.yaml"
    if not trained.is_file() or not recipe.is_file():
        raise LaconicError(f"{folder} holds no finished run of a transformer: give one of laconic train")
    run = Run(folder, build_recipe(read_yaml(recipe)))
    checkpoint, module = FrozenCheckpoint.load(run.checkpoint), load_language_module(trained)
    model = module.transformer.eval()
    model.simulate_integers(False)
    validation = open_shard(run.shards, "validation")
    seq_len = min(run.recipe.training.seq_len, validation.num_tokens)
    batches = calibration_batches(run, model.begin_id)
    calibration = calibrate(model, [inputs for inputs, _ in batches], moments=True)
    steps = steps_of(run.recipe.training, calibration.moments)
    of_weights = list(steps.values())[:2]

    def measured(step: Step | None) -> float:
        changed = copy.deepcopy(model)
        if step is not None:
            step(changed)
        return _bits_per_byte(changed, validation, module.byte_lengths, seq_len)

    def all_of_them(changed: Transformer) -> None:
        for step in of_weights:
            step(changed)
        changed.simulate_integers()

    base = measured(None)
    yield "float", base, 0.0
    for name, step in steps.items():
        bits_per_byte = measured(step)
        yield name, bits_per_byte, bits_per_byte - base
    simulated = measured(all_of_them)
    yield "all of these", simulated, simulated - base
    for name, step in arithmetic_steps(calibration).items():
        bits_per_byte = measured(step)
        yield name, bits_per_byte, bits_per_byte - base
    frozen = compare(module, checkpoint, validation, SEQUENCES)
    integers = frozen.integer_bits_per_byte
    yield "the frozen integers", integers, integers - frozen.float_bits_per_byte
    exact = _softmax_of_integers(checkpoint, validation, module.byte_lengths, seq_len)
    yield "these with an exact softmax of their logits", exact, exact - frozen.float_bits_per_byte


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m laconic.train.integers", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    args = parser.parse_args(arguments)
    try:
        for name, bits_per_byte, added in measure_integers(args.run):
            print(f"{bits_per_byte:.5f}  {added:+.5f}  {name}", flush=True)
    except LaconicError as error:
        print(f"laconic: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

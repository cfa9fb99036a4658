"""What a training step consists of, beside the machine's peak: `python -m laconic.bench.training`.

Parts are torch's operators, by their own time as its profiler tells. That slows small ones down, so the step
itself is timed without it. Text is of random tokens, the processor trains, and nothing is compiled, but for a
second timing of the whole.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ..coder.errors import LaconicError
from ..models.loss import sliced_cross_entropy
from ..train.commands.common import add_recipe, recipe_from
from ..train.compiling import compile_step
from ..train.language import LanguageModule
from ..train.optimizer import build_optimizer
from ..train.recipe import Recipe
from ..train.trainer import limited_threads, resolve_precision
from ..train.usage import peak_rate
from .report import table
from .timing import median

STEPS = 3  # that are profiled
LINEARS, HEAD, SCORES, MUON = (
    "products of the linear layers",
    "products of the head",
    "products of attention",
    "products of Muon's iteration",
)
SOFTMAX, LOSS, OTHERS, UPDATES = (
    "attention: masks, softmax, copies",
    "loss: exponentials and their gradient",
    "embedding, norms, activations, sums",
    "optimiser: clipping, momenta, updates",
)
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm")
OF_ATTENTION = 5  # dimensions that its tensors have at least, and no others


@dataclass
class Part:
    """Seconds of a step that a part takes, and its multiplies and adds where it is of products."""

    seconds: float = 0.0
    operations: float = 0.0


@dataclass
class Profile:
    """A training step.

    Attributes:
        seconds: of a step as it runs.
        compiled_seconds: of one whose blocks and loss are compiled; None where this machine cannot.
        operations: of the model, by `LanguageModule.operations_per_token`.
        peak: operations a second of large products of the type that training computes in.
        parts: by name.
    """

    seconds: float
    compiled_seconds: float | None
    operations: float
    peak: float
    parts: dict[str, Part]

    def as_text(self) -> str:
        total = sum(part.seconds for part in self.parts.values())
        rows = [["part of a training step", "ms", "share", "G operations/s", "of the peak"]]
        for name, part in self.parts.items():
            rows.append([name, f"{part.seconds * 1e3:,.1f}", f"{part.seconds / total:.1%}", "", ""])
            if part.operations:
                rate = part.operations / part.seconds
                rows[-1][3:] = [f"{rate / 1e9:.1f}", f"{rate / self.peak:.0%}"]
        lines = [table(rows), f"peak {self.peak / 1e9:.1f} G operations/s"]
        for name, seconds in (("a step", self.seconds), ("compiled", self.compiled_seconds)):
            if seconds is not None:
                lines.append(
                    f"{name} {seconds * 1e3:,.1f} ms: MFU {self.operations / seconds / self.peak:.1%}"
                )
        return "\n".join(lines)


class _Step:
    """A training step on random tokens, in stages that can be profiled one by one."""

    def __init__(self, recipe: Recipe) -> None:
        training, size = recipe.training, recipe.tokenizer.vocab_size
        torch.manual_seed(training.seed)
        self.module = LanguageModule(recipe.model, [1] * size, training, "")
        self.optimizer = build_optimizer(self.module, training)
        self.clip_norm = training.clip_norm
        shape = (training.batch_size, training.seq_len)
        self.inputs, self.targets = torch.randint(size, shape), torch.randint(size, shape)
        low = resolve_precision(training) == "bf16-mixed"
        self.kind = torch.bfloat16 if low else torch.float32
        self.stages = (self.forward, self.head, self.backward, self.update)
        self.found: dict[str, torch.Tensor] = {}

    def __call__(self) -> None:
        for stage in self.stages:
            stage()

    def forward(self) -> None:
        with self._cast():
            rows, head = self.module.transformer.trunk(self.inputs)
        self.found = {"out": rows, "rows": rows.detach().requires_grad_(), "head": head}

    def head(self) -> None:
        rows, work = self.found["rows"].flatten(0, 1), self.module._slice_work
        with self._cast():
            loss = sliced_cross_entropy(rows, self.found["head"], self.targets.flatten(), work)
        loss.backward(retain_graph=True)

    def backward(self) -> None:
        self.found["out"].backward(self.found["rows"].grad)

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _cast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.kind == torch.bfloat16)


def _part_of(stage: str, operator: str, shapes: Sequence[list[int]]) -> str:
    product = operator in PRODUCTS
    if stage == "head":
        return HEAD if product else LOSS
    if stage == "update":
        return MUON if product else UPDATES
    if product:
        return SCORES if operator == "aten::bmm" else LINEARS
    return SOFTMAX if max((len(shape) for shape in shapes), default=0) >= OF_ATTENTION else OTHERS


def profile_step(recipe: Recipe) -> Profile:
    """Take a training step of a recipe apart, on as many threads as torch has."""
    step = _Step(recipe)
    peak = peak_rate(torch.device("cpu"), step.kind)
    step()
    seconds, _ = median(step)
    parts = {name: Part() for name in (LINEARS, HEAD, SCORES, MUON, SOFTMAX, LOSS, OTHERS, UPDATES)}
    for _ in range(STEPS):
        for stage in step.stages:
            with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
                stage()
            for event in profiler.key_averages(group_by_input_shape=True):
                shapes = [shape for shape in event.input_shapes or [] if shape]
                part = parts[_part_of(stage.__name__, event.key, shapes)]
                part.seconds += event.self_cpu_time_total / 1e6 / STEPS
                if event.key in PRODUCTS:
                    a, b = shapes[1:3] if "addmm" in event.key else shapes[:2]  # (..., M, K) and (..., K, N)
                    part.operations += 2.0 * math.prod(a) * b[-1] * event.count / STEPS
    tokens = recipe.training.batch_size * recipe.training.seq_len
    operations = step.module.operations_per_token() * tokens
    return Profile(seconds, _compiled_seconds(step), operations, peak, parts)


def _compiled_seconds(step: _Step) -> float | None:
    training = step.module.training_recipe
    training.compile = True
    try:
        step.module._slice_work = compile_step(step.module.transformer, training)
    except LaconicError:
        return None
    step()
    return median(step)[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m laconic.bench.training", description=__doc__, allow_abbrev=False
    )
    add_recipe(parser)
    args, args.settings = parser.parse_known_args(arguments)
    try:
        recipe = recipe_from(args)
        if recipe.kind == "ngram":
            raise LaconicError("n-grams are counted, in no steps: leave --model out, or name a --tier")
        with limited_threads(recipe.training.threads):
            print(profile_step(recipe).as_text())
    except LaconicError as error:
        print(f"laconic: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

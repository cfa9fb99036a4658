"""Who teaches a student: the run's own teacher and frozen checkpoints; and what they say of its text."""

import hashlib
import json

import numpy as np
import torch
from numpy.typing import NDArray

from ..coder.errors import LaconicError
from ..data.batches import sequence_batch
from ..data.predictions import Predictions, write_predictions
from ..data.shards import shard_path
from ..data.tokenshard import TokenShard
from ..models.loss import SLICE, product_type
from ..models.teaching import mean_log_probs
from ..models.transformer import Transformer
from .consolidate import FINAL, is_done
from .language import load_language_module, sha256_of
from .processes import device_type
from .rank import rank_and_world
from .run import Run, say
from .start import find_start
from .trainer import limited_threads, resolve_precision

CONTEXT, STRETCH = 512, 4096  # tokens that are read before those that are predicted at a time


def find_teachers(run: Run) -> list[Transformer]:
    """The run's own teacher, where it has one, and those that its recipe names.

    Raises:
        LaconicError: there is none, one of them is missing or damaged, or has another tokenizer.
    """
    recipe, own = run.recipe.distillation, run.stage("teacher")
    has_own = is_done(own)
    if not has_own and (recipe.teacher_share or not recipe.teachers):
        raise LaconicError(
            f"{run.folder} has no teacher yet: run `laconic pretrain --stage teacher -o {run.folder}`, "
            "or name some in distillation.teachers"
        )
    if not has_own:
        return named_teachers(run)
    module = load_language_module(own / FINAL)
    _check_tokenizer(run, str(own / FINAL), module.tokenizer_sha256)
    module.transformer.simulate_integers(False)
    return [module.transformer, *named_teachers(run)]


def named_teachers(run: Run) -> list[Transformer]:
    """Those that the recipe names.

    Raises:
        LaconicError: one of them is missing or damaged, or has another tokenizer.
    """
    found: list[Transformer] = []
    for name in run.recipe.distillation.teachers:
        start = find_start(name)
        _check_tokenizer(run, name, _sha256(start.checkpoint.tokenizer.to_json().encode()))
        found.append(start.transformer)
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_tokenizer(run: Run, name: str, found: str) -> None:
    wanted = _sha256(run.tokenizer().to_json().encode())
    if found != wanted:
        raise LaconicError(
            f"the tokenizer of teacher {name} is {found[:16]}, the student's is {wanted[:16]}: both must "
            f"share one; begin the run with --tokenizer.source {name}, or choose other teachers"
        )


def cached_predictions(run: Run, teachers: list[Transformer]) -> Predictions | None:
    """What the teachers say of the run's training text, computed unless it is there; None without top_k.

    Each token is predicted after 512 others at least, but for the text's beginning, while a student sees what
    its sequence holds before it. In return the teachers read the text once, whatever the number of passes.

    Raises:
        LaconicError: it cannot be written, or is not there and this process is one of several.
    """
    recipe = run.recipe.distillation
    if not recipe.top_k:
        return None
    shard = TokenShard.open(shard_path(run.shards, "train"))
    key = {
        "teachers": [sha256_of(teacher) for teacher in teachers],
        "shard": [shard.sha256, shard.tokenizer_sha256, _sha256(shard.offsets.tobytes())],
        "temperature": recipe.temperature,
        "stretches": [CONTEXT, STRETCH],
    }
    path = run.shards / f"train.{_sha256(json.dumps(key).encode())[:16]}.top{recipe.top_k}"
    if not path.is_file():
        if (place := rank_and_world()) is not None and place[1] > 1:
            raise LaconicError(
                f"{path} is not there, and {place[1]} processes would write it: run `laconic distill --cache "
                f"-o {run.folder}` in one process first"
            )
        say("the teachers read the training text")
        predict = _Predictor(run, teachers, shard)
        with limited_threads(run.recipe.training.threads):
            write_predictions(path, shard.vocab_size, recipe.top_k, shard.num_tokens, STRETCH, predict)
    return Predictions.open(path, shard.vocab_size, recipe.top_k, shard.num_tokens)


class _Predictor:
    """The teachers on stretches of a shard; memory is a stretch's."""

    def __init__(self, run: Run, teachers: list[Transformer], shard: TokenShard) -> None:
        training, self.recipe, self.shard = run.recipe.training, run.recipe.distillation, shard
        self.device = device_type(training.accelerator)
        self.low = resolve_precision(training) == "bf16-mixed"
        self.transformers = [teacher.eval().to(self.device) for teacher in teachers]

    @torch.no_grad()
    def __call__(self, begin: int, end: int) -> tuple[NDArray, NDArray]:
        start = max(0, begin - CONTEXT)
        inputs, _ = sequence_batch(self.shard, [0], end - start, self.shard.vocab_size, start)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.low):
            trunks = [t.trunk(torch.from_numpy(inputs).to(self.device)) for t in self.transformers]
            product = product_type(trunks[0][0])
        rows = [x[0, begin - start :].to(product) for x, _ in trunks]
        tables = [table.to(product) for _, table in trunks]
        ids: list[NDArray] = []
        log_probs: list[NDArray] = []
        for first in range(0, end - begin, SLICE):
            logits = [x[first : first + SLICE] @ table.T for x, table in zip(rows, tables, strict=True)]
            top = mean_log_probs(logits, self.recipe.temperature).topk(self.recipe.top_k)
            rest = torch.log1p(-top.values.exp().sum(dim=-1, keepdim=True).clamp_max(1.0))
            ids.append(top.indices.cpu().numpy())
            log_probs.append(torch.cat((top.values, rest), dim=-1).cpu().numpy())
        return np.concatenate(ids), np.concatenate(log_probs)

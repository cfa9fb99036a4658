"""The LightningModule of a language model: cross-entropy in nats, read as a code length."""

import hashlib
import json
import pickle
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ..coder.errors import LaconicError
from ..models.config import ModelConfig
from ..models.freeze import calibrate
from ..models.loss import SliceWork, slice_of_gradient, sliced_cross_entropy
from ..models.rounding import levels_of
from ..models.transformer import Transformer
from .compiling import compile_step, eagerly
from .metrics import BitsPerByte
from .optimizer import build_optimizer, learning_rate_factor
from .recipe import TrainingRecipe
from .saving import damaged, fault
from .strategies import clip_gradients, diverged
from .usage import Usage, forward_operations

CALIBRATION_BATCHES = 8


class LanguageModule(pl.LightningModule):
    """Trains a Transformer on batches (inputs [B, T], targets [B, T]).

    Args:
        model: its shape.
        byte_lengths: bytes of each token id, V of them.
        training: the recipe's training section.
        tokenizer_sha256: names the vocabulary, so that a teacher of another one is noticed.
    """

    def __init__(
        self, model: ModelConfig, byte_lengths: list[int], training: TrainingRecipe, tokenizer_sha256: str
    ) -> None:
        super().__init__()
        self.save_hyperparameters(
            {
                "model": asdict(model),
                "byte_lengths": list(byte_lengths),
                "training": asdict(training),
                "tokenizer_sha256": tokenizer_sha256,
            }
        )
        self.transformer = Transformer(model, len(byte_lengths))
        self.transformer.table_levels = levels_of(training.table_bits)
        for block in self.transformer.layers:
            for linear in (block.attention.qkv, block.attention.out, block.ffn.up, block.ffn.down):
                linear.levels = levels_of(training.weight_bits)
            block.recomputes = training.checkpoint_activations
        self.training_recipe = training
        self.anchor = 0.0  # how strongly weights are drawn to what they began with: see MuonAdamW
        self.tokenizer_sha256 = tokenizer_sha256
        self.byte_lengths: Tensor
        self.register_buffer("byte_lengths", torch.tensor(byte_lengths), persistent=False)
        self.train_bits_per_byte = BitsPerByte()
        self.validation_bits_per_byte = BitsPerByte()
        self.elapsed_seconds = 0.0
        self.tokens_seen = 0
        self.usage = Usage()  # of all steps; the callback Throughput keeps it
        self._clock: float | None = None
        self._slice_work: SliceWork = slice_of_gradient
        self._recent: list[Tensor] = []  # inputs of the last batches, to calibrate on
        self._random: Tensor | None = None  # state of the generator where training goes on

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> logits [B, T, V] in nats."""
        return self.transformer(ids)

    def operations_per_token(self) -> float:
        """Multiplies and adds of the products of a training step: see `Usage.figures`."""
        return 3.0 * forward_operations(self.transformer, self.training_recipe.seq_len)

    # progress ---------------------------------------------------------------------------------------------

    def progress(self) -> float:
        """Share of the run that is done: of the steps where they are given, else of the minutes."""
        recipe = self.training_recipe
        if recipe.max_steps is not None:
            return min(1.0, self.global_step / recipe.max_steps)
        assert recipe.minutes is not None
        return min(1.0, self.elapsed_seconds / (60 * recipe.minutes))

    def tick(self) -> None:
        """Bring `elapsed_seconds` up to date: rank 0's clock is that of all, for they decide by it."""
        now = time.monotonic()
        if self._clock is not None:
            self.elapsed_seconds += now - self._clock
        self._clock = now
        if self.trainer.world_size > 1:
            shared = torch.tensor(self.elapsed_seconds, dtype=torch.float64, device=self.device)
            torch.distributed.broadcast(shared, src=0)
            self.elapsed_seconds = shared.item()

    def _of_ranks(self, own: Tensor) -> Tensor:
        """[...] of each of N ranks -> [N, ...]."""
        if self.trainer.world_size == 1:
            return own[None]
        gathered = self.all_gather(own.to(self.device))
        assert isinstance(gathered, Tensor)
        return gathered

    def _whole(self, inputs: Tensor) -> Tensor:
        """Inputs [B, T] of each of N ranks -> [N * B, T], as one process would have had them."""
        return self._of_ranks(inputs).flatten(0, 1)

    def on_fit_start(self) -> None:
        self._slice_work = compile_step(self.transformer, self.training_recipe)

    def on_train_start(self) -> None:
        self._clock = time.monotonic()
        if self._random is not None:  # what Lightning draws while it sets itself up is over
            self._generator().set_state(self._random.cpu())
            self._random = None

    def _generator(self) -> torch.Generator:
        """What random numbers of this rank's training come from."""
        cuda = self.device.type == "cuda"
        return torch.cuda.default_generators[self.device.index] if cuda else torch.default_generator

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = torch.stack((self.train_bits_per_byte.total_nats, self.train_bits_per_byte.total_bytes))
        checkpoint["laconic"] = {
            "elapsed_seconds": self.elapsed_seconds,
            "tokens_seen": self.tokens_seen,
            "quantised": self.transformer.quantised,
            "usage": asdict(self.usage),
            "recent": [self._whole(inputs) for inputs in self._recent],
            "sums": self._of_ranks(sums),
            "random": self._of_ranks(self._generator().get_state()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["laconic"]
        self.elapsed_seconds, self.tokens_seen = saved["elapsed_seconds"], saved["tokens_seen"]
        self.transformer.simulate_integers(saved["quantised"])
        self.usage = Usage(**saved.get("usage", {}))  # an older one has none
        rank, world = self._rank_and_world()
        self._recent = [inputs.chunk(world)[rank] for inputs in saved["recent"]]
        if "sums" in saved and len(saved["sums"]) == world:  # else read by a process that trains no more
            self.train_bits_per_byte.reset()
            self.train_bits_per_byte.update(*saved["sums"][rank].to(self.train_bits_per_byte.device))
            self._random = saved["random"][rank].clone()  # torch crashes on a part of a tensor

    def _rank_and_world(self) -> tuple[int, int]:
        trainer = self._trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    # training ---------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        factor = learning_rate_factor(self.progress(), self.training_recipe)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _simulate_integers_when_late(self) -> None:
        """Calibrate and switch, once; within a training step, where sharded weights can be had."""
        share = self.training_recipe.quantised_share
        if not share or self.progress() < 1 - share or self.transformer.quantised or not self._recent:
            return
        with eagerly(), torch.autocast(self.device.type, enabled=False):
            calibrate(self.transformer, [self._whole(inputs) for inputs in self._recent])
        self.transformer.simulate_integers()

    def code_length(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean code length of the targets [B, T] after the inputs [B, T], in nats a token."""
        x_BTD, table = self.transformer.trunk(inputs)
        return sliced_cross_entropy(x_BTD.flatten(0, 1), table, targets.flatten(), self._slice_work)

    def loss(self, inputs: Tensor, targets: Tensor, *cached: Tensor) -> tuple[Tensor, Tensor]:
        """(what is minimised, code length in nats a token)."""
        nats = self.code_length(inputs, targets)
        return nats, nats

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        inputs, targets, *cached = batch
        self._simulate_integers_when_late()
        loss, nats = self.loss(inputs, targets, *cached)
        if not torch.isfinite(loss):
            raise diverged(f"the loss became {loss.item()}", f"{self.global_step}; the step was not taken")
        self._recent = [*self._recent[1 - CALIBRATION_BATCHES :], inputs.detach()]
        self.tokens_seen += targets.numel() * self.trainer.world_size
        self.train_bits_per_byte.update(nats.detach() * targets.numel(), self.byte_lengths[targets])
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients, wherever they are."""
        norm = clip_gradients(self.trainer.strategy, self, self.training_recipe.clip_norm)
        if not torch.isfinite(norm):
            fault = f"the gradient's norm became {norm.item()}"
            raise diverged(fault, f"{self.global_step}; the step was not taken")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        inputs, targets = batch
        with eagerly():
            nats = self.code_length(inputs, targets)
        if targets.numel():  # an empty batch keeps this rank in step with the others
            self.validation_bits_per_byte.update(nats * targets.numel(), self.byte_lengths[targets])

    def on_validation_epoch_end(self) -> None:
        bits_per_byte = self.validation_bits_per_byte.compute().float()
        self.validation_bits_per_byte.reset()
        if not torch.isfinite(bits_per_byte):  # before it takes the place of a checkpoint that is good
            fault = f"the code length of validation text became {bits_per_byte.item()}"
            raise diverged(fault, f"{self.global_step}, which is not saved")
        self.log("validation/bits_per_byte", bits_per_byte, prog_bar=True, logger=False)
        minutes = self.elapsed_seconds / 60
        figures = {"validation/bits_per_byte": bits_per_byte.item(), "elapsed_minutes": minutes}
        for logger in self.loggers:  # Lightning's own rows would have the number of the step before
            logger.log_metrics(figures, self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self, self.training_recipe, self.anchor)


def sha256_of(transformer: Transformer) -> str:
    """Names its shape and weights, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(asdict(transformer.config)).encode())
    for name, tensor in sorted(transformer.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """What training saved: nothing but tensors and plain values is read.

    Raises:
        LaconicError: it is damaged.
    """
    if path.is_file() and (reason := fault(path)) is not None:
        raise damaged(path, reason)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"hyper_parameters", "state_dict", "laconic"} - set(checkpoint)
    except (RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise damaged(path, error) from None
    if missing:
        raise LaconicError(
            f"{path} is no checkpoint of laconic's training: remove it, or choose another folder"
        )
    return checkpoint


def load_language_module(path: Path) -> LanguageModule:
    """The module in a checkpoint of training.

    Raises:
        LaconicError: the checkpoint is damaged.
    """
    checkpoint = read_training_checkpoint(path)
    saved = checkpoint["hyper_parameters"]
    module = LanguageModule(
        ModelConfig(**saved["model"]),
        saved["byte_lengths"],
        TrainingRecipe(**saved["training"]),
        saved["tokenizer_sha256"],
    )
    weights = {k: v for k, v in checkpoint["state_dict"].items() if k.startswith("transformer.")}
    module.load_state_dict(weights)
    module.on_load_checkpoint(checkpoint)
    return module

"""Distillation: a student learns from the true tokens and from teachers."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor, nn

from ..models.loss import product_type, slice_of_gradient, sliced_loss
from ..models.teaching import attention_distance, cached_slice, hidden_distance, taught_slice
from ..models.transformer import Transformer, rms_norm
from .language import LanguageModule
from .recipe import DistillationRecipe
from .usage import forward_operations

Trunk = tuple[Tensor, Tensor, Tensor]  # last rows [B, T, D], head [V, D], input of the last block [B, T, D]


def _trunk(transformer: Transformer, inputs: Tensor) -> Trunk:
    entering: list[Tensor] = []
    rows, table = transformer.trunk(inputs, entering)
    return rows, table, entering[-1]


def _attention(transformer: Transformer, trunk: Trunk) -> Tensor:
    return transformer.layers[-1].attention.map(rms_norm(trunk[2]))


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


class DistillationModule(LanguageModule):
    """A LanguageModule whose loss is text and what teachers add to it, by the weights of the recipe.

    Teachers may differ from the student in shape; they share its tokenizer. Neither they nor the projections
    of the student's last rows to theirs are part of the trained model. Where predictions are cached, batches
    hold them, and no teacher is needed here.
    """

    def __init__(
        self, student: LanguageModule, teachers: Sequence[Transformer], recipe: DistillationRecipe
    ) -> None:
        super().__init__(
            student.transformer.config,
            student.byte_lengths.tolist(),
            student.training_recipe,
            student.tokenizer_sha256,
        )
        self.transformer.load_state_dict(student.transformer.state_dict())
        self.hparams["distillation"] = asdict(recipe)
        self.recipe = recipe
        self._cached_work, self._taught_work = cached_slice, taught_slice
        # In a list, so that no checkpoint holds them.
        self._teachers = [teacher.eval().requires_grad_(False) for teacher in teachers]
        if recipe.hidden_weight:
            width = student.transformer.config.d_model
            self.projections = nn.ModuleList(
                nn.Linear(width, teacher.config.d_model, bias=False) for teacher in teachers
            )

    def on_fit_start(self) -> None:
        super().on_fit_start()
        for teacher in self._teachers:
            teacher.to(self.device)
        if self._slice_work is not slice_of_gradient:  # it was compiled
            self._cached_work = torch.compile(cached_slice, dynamic=False)
            self._taught_work = torch.compile(taught_slice, dynamic=False)

    def operations_per_token(self) -> float:
        """Those of the student, and the teachers' way forward."""
        seq_len = self.training_recipe.seq_len
        teachers = sum(forward_operations(teacher, seq_len) for teacher in self._teachers)
        return super().operations_per_token() + teachers

    def share(self) -> float:
        """What is left of the teachers' weights: 1 at first, `final_weight` at the end of the run."""
        return 1 + (self.recipe.final_weight - 1) * self.progress()

    def loss(self, inputs: Tensor, targets: Tensor, *cached: Tensor) -> tuple[Tensor, Tensor]:
        """(the weighted sum of the terms, code length of the text in nats a token).

        Args:
            cached: where predictions are, ids int64 [B, T, k] and log-probabilities [B, T, k + 1].
        """
        recipe, share = self.recipe, self.share()
        student = _trunk(self.transformer, inputs)
        with torch.no_grad():
            teachers = [_trunk(teacher, inputs) for teacher in self._teachers]
        loss, text = self._distributions(student, teachers, targets, cached, recipe.weight * share)
        if recipe.hidden_weight:
            pairs = zip(self.projections, teachers, strict=True)
            hidden = _mean([hidden_distance(project(student[0]), teacher[0]) for project, teacher in pairs])
            self.log("train/hidden_distance", hidden.detach())
            loss = loss + recipe.hidden_weight * share * hidden
        if recipe.attention_weight:
            own = _attention(self.transformer, student)
            with torch.no_grad():
                maps = [_attention(*pair) for pair in zip(self._teachers, teachers, strict=True)]
            attention = _mean([attention_distance(own, each) for each in maps])
            self.log("train/attention_nats", attention.detach())
            loss = loss + recipe.attention_weight * share * attention
        return loss, text

    def _distributions(
        self,
        student: Trunk,
        teachers: list[Trunk],
        targets: Tensor,
        cached: tuple[Tensor, ...],
        weight: float,
    ) -> tuple[Tensor, Tensor]:
        """((1 - weight) * text + weight * teachers', text), in nats a token."""
        rows, table, _ = student
        x_ND, columns = rows.flatten(0, 1), (targets.flatten(),)
        if not self.recipe.weight:
            nats = sliced_loss(x_ND, table, columns, self._slice_work)
            return nats, nats
        settings = {
            "weight": torch.tensor(weight, device=rows.device),
            "temperature": self.recipe.temperature,
        }
        if cached:
            columns += tuple(column.flatten(0, 1) for column in cached)
            work = partial(self._cached_work, **settings)
        else:
            product = product_type(rows)
            columns += tuple(teacher[0].flatten(0, 1).to(product) for teacher in teachers)
            tables = [teacher[1].to(product) for teacher in teachers]

            def work(logits: Tensor, targets: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor]:
                theirs = [row @ table.T for row, table in zip(rows, tables, strict=True)]
                return self._taught_work(logits, targets, theirs, **settings)

        loss, text, taught = sliced_loss(x_ND, table, columns, work)
        self.log("train/text_nats", text.detach())
        self.log("train/teacher_nats", taught.detach())
        return loss, text.detach()

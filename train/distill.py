"""Distillation: a student learns from the true tokens and from a teacher's distributions."""

from dataclasses import asdict

import torch
from torch import Tensor
from torch.nn import functional as F

from ..coder.errors import LaconicError
from .language import LanguageModule
from .recipe import DistillationRecipe
from .usage import forward_operations


def teacher_code_length(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Forward KL from teacher to student at a temperature, in nats a token.

    The factor temperature^2 keeps its gradient beside the true token's (Hinton et al. 2015,
    arXiv:1503.02531). Shapes: both [B, T, V].
    """
    student = F.log_softmax(student_logits.float().flatten(0, 1) / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float().flatten(0, 1) / temperature, dim=-1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


class DistillationModule(LanguageModule):
    """A LanguageModule whose loss is a weighted sum of named terms: `text` and `teacher`.

    The teacher may differ in depth and width; it shares the tokenizer. Other terms (hidden states,
    attention maps) are further entries of `terms`.
    """

    def __init__(self, student: LanguageModule, teacher: LanguageModule, recipe: DistillationRecipe) -> None:
        if student.tokenizer_sha256 != teacher.tokenizer_sha256:
            raise LaconicError(
                f"the teacher's tokenizer is {teacher.tokenizer_sha256[:16]}, the student's is "
                f"{student.tokenizer_sha256[:16]}: both must share one; train the teacher with this run's"
            )
        super().__init__(
            student.transformer.config,
            student.byte_lengths.tolist(),
            student.training_recipe,
            student.tokenizer_sha256,
        )
        self.hparams["distillation"] = asdict(recipe)
        self.recipe = recipe
        frozen = teacher.transformer.eval().requires_grad_(False)
        self._teacher = [frozen]  # in a list, so that no checkpoint holds it

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._teacher[0].to(self.device)

    def operations_per_token(self) -> float:
        """Those of the student, and the teacher's way forward."""
        forward = forward_operations(self._teacher[0], self.training_recipe.seq_len)
        return super().operations_per_token() + forward

    def terms(
        self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """Name -> (weight, nats a token)."""
        weight, temperature = self.recipe.weight, self.recipe.temperature
        return {
            "text": (1 - weight, F.cross_entropy(student_logits.float().flatten(0, 1), targets.flatten())),
            "teacher": (weight, teacher_code_length(student_logits, teacher_logits, temperature)),
        }

    def loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(the weighted sum of the terms, code length of the text in nats a token)."""
        with torch.no_grad():
            teacher_logits = self._teacher[0](inputs)
        terms = self.terms(self(inputs), teacher_logits, targets)
        for name, (_, nats) in terms.items():
            self.log(f"train/{name}_nats", nats.detach())
        return torch.stack([weight * nats for weight, nats in terms.values()]).sum(), terms["text"][1]

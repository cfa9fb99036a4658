"""What a student learns from a teacher: distributions, hidden states, attention.

Notation: n tokens of a slice, V vocabulary, k cached tokens, w the teacher's weight in 0..1, t a temperature.
The losses of distributions are slices' work for `sliced_loss`: sums over the slice of

    (1 - w) * text + w * teacher        text: code length of the targets, in nats
    text                                teacher: t^2 KL(p || q), in nats, of teacher p and student q
    teacher

and the gradient of the first by the logits. The factor t^2 keeps a gradient beside the text's (Hinton et al.
2015, arXiv:1503.02531).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_TAIL = 1e-6  # probability that a student is held to leave to all tokens but k
LEAST_SHARE = 1e-9  # of attention


def mean_log_probs(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Logarithm of the teachers' mean probabilities: logits [n, V] of each -> float32 [n, V].

    The arithmetic mean: its code length is at most the mean of the teachers' code lengths, whatever the text
    (Jensen), and no teacher alone can rule a token out, as one could in a geometric mean.
    """
    each = [F.log_softmax(x.float() / temperature, dim=-1) for x in logits]
    if len(each) == 1:
        return each[0]
    return torch.logsumexp(torch.stack(each), dim=0) - math.log(len(each))


def _text(logits: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(log q [n, V] at temperature 1, code length of the targets, gradient of weight times that)."""
    log_q = F.log_softmax(logits.float(), dim=-1)
    gradient = log_q.exp() * weight
    gradient.scatter_add_(1, targets[:, None], (-weight).expand(len(targets), 1))
    return log_q, -log_q.gather(1, targets[:, None]).sum(), gradient


def taught_slice(
    logits: Tensor, targets: Tensor, teachers: Sequence[Tensor], weight: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Text and teachers that are there: `teachers` are their logits [n, V], weight is float32 []."""
    log_q, text, gradient = _text(logits, targets, 1 - weight)
    if temperature != 1.0:
        log_q = F.log_softmax(logits.float() / temperature, dim=-1)
    log_p = mean_log_probs(teachers, temperature)
    p = log_p.exp()
    teacher = (p * (log_p - log_q)).sum() * temperature**2
    gradient += (log_q.exp() - p) * (weight * temperature)
    return _sums(text, teacher, weight), gradient.to(logits.dtype)


def cached_slice(
    logits: Tensor, targets: Tensor, ids: Tensor, log_p: Tensor, weight: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Text and a teacher's k likeliest tokens: KL over k + 1 outcomes, all other tokens being the last.

    Args:
        ids: int64 [n, k].
        log_p: [n, k + 1], at the same temperature; normalised here, for they were rounded.
    """
    log_q, text, gradient = _text(logits, targets, 1 - weight)
    if temperature != 1.0:
        log_q = F.log_softmax(logits.float() / temperature, dim=-1)
    log_p = F.log_softmax(log_p.float(), dim=-1)
    p, log_top = log_p.exp(), log_q.gather(1, ids)
    top = log_top.exp()
    log_tail = torch.log1p(-top.sum(dim=-1, keepdim=True).clamp_max(1 - LEAST_TAIL))
    teacher = (p * (log_p - torch.cat((log_top, log_tail), dim=-1))).sum() * temperature**2
    # By the logits: q - p at the k tokens, and q (1 - p_tail / q_tail) at the others.
    scale, ratio = weight * temperature, (log_p[:, -1:] - log_tail).exp()
    gradient += (log_q.exp() * (1 - ratio)).scatter_(1, ids, top - p[:, :-1]) * scale
    return _sums(text, teacher, weight), gradient.to(logits.dtype)


def _sums(text: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    return torch.stack(((1 - weight) * text + weight * teacher, text, teacher))


def hidden_distance(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of rows of unit root mean square: [B, T, D] both -> 0..4.

    (FitNets: Romero et al. 2015, arXiv:1412.6550; the rows here are the last, which the head reads.)
    """
    projected, teacher = (F.rms_norm(x.float(), (x.shape[-1],), eps=1e-6) for x in (projected, teacher))
    return F.mse_loss(projected, teacher)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """KL from the teacher's attention to the student's, in nats a token, over the distances that both see.

    Maps [B, T, W] as of `Attention.map`; W may differ. (MiniLM: Wang et al. 2020, arXiv:2002.10957.)
    """
    common = min(student.shape[-1], teacher.shape[-1])
    q, p = (x[..., :common].clamp_min(LEAST_SHARE) for x in (student, teacher))
    q, p = (x / x.sum(dim=-1, keepdim=True) for x in (q, p))
    return (p * (p.log() - q.log())).sum(dim=-1).mean()

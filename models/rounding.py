"""Weights rounded to few levels, zeros among them, so that what a layer makes of its inputs changes least.

Notation: N rows (outputs), K columns (inputs).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DAMPING = 0.01  # of the moment's mean diagonal, added to it
SHRINKS = np.linspace(1.0, 0.6, 21)  # of a row's largest magnitude: what may be the last level


def levels_of(bits: int) -> int:
    """The largest magnitude of an integer of so many bits, its sign included: 127 for 8."""
    return (1 << (bits - 1)) - 1


def damped(moment: Array) -> Array:
    """A moment [K, K] that can be inverted."""
    return moment + np.eye(len(moment)) * (DAMPING * max(float(np.diag(moment).mean()), 1e-12))


def round_rows(
    weight: Array, levels: int, moment: Array | None = None, sparsity: float = 0.0
) -> tuple[NDArray[np.int8], Array]:
    """A matrix as integers and a step a row.

    Without a moment every weight goes to the nearest level. With one, columns are rounded in turn, the
    largest inputs first, and what a column loses is made good by those that are still to come (Frantar et
    al. 2022, "GPTQ", arXiv:2210.17323), what became zero likewise (Frantar & Alistarh 2023, "SparseGPT",
    arXiv:2301.00774).

    Args:
        weight: [N, K].
        levels: the largest integer, 1..127; below 127 the largest weights of a row may saturate where that
            serves the others.
        moment: [K, K], the mean of x x^T over the layer's inputs x.
        sparsity: share of the weights that become zero, those whose loss costs least.

    Returns:
        int8 [N, K] in -levels..levels, and steps [N]: weight ~ integers * step.
    """
    step = np.maximum(np.abs(weight).max(axis=1), 1e-8) / levels
    importance = np.ones(weight.shape[1]) if moment is None else np.diag(moment)
    if levels < 127:
        step = _best_step(weight, step, levels, importance)
    if moment is None:
        kept = _kept(weight**2, sparsity)
        return (_nearest(weight, step[:, None], levels) * kept).astype(np.int8), step
    return _compensated(weight, step, levels, moment, sparsity), step


def _kept(cost: Array, sparsity: float) -> NDArray[np.bool_]:
    """All but a share of the places [N, K], those of the least cost."""
    kept = np.ones(cost.size, dtype=np.bool_)
    kept[np.argsort(cost, axis=None, kind="stable")[: round(sparsity * cost.size)]] = False
    return kept.reshape(cost.shape)


def _nearest(weight: Array, step: Array, levels: int) -> Array:
    return np.clip(np.rint(weight / step), -levels, levels)


def _best_step(weight: Array, step: Array, levels: int, importance: Array) -> Array:
    """Of the steps that SHRINKS allows, each row's with the least error, inputs weighted by their square."""
    errors: list[Array] = []
    for shrink in SHRINKS:
        tried = (step * shrink)[:, None]
        errors.append(((_nearest(weight, tried, levels) * tried - weight) ** 2 * importance).sum(axis=1))
    return step * SHRINKS[np.argmin(errors, axis=0)]


def _compensated(weight: Array, step: Array, levels: int, moment: Array, sparsity: float) -> NDArray[np.int8]:
    order = np.argsort(-np.diag(moment), kind="stable")
    inverse = np.linalg.inv(damped(moment)[np.ix_(order, order)])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    rest = weight[:, order].copy()
    kept = _kept(rest**2 / np.diag(inverse), sparsity)
    rounded = np.empty(weight.shape, dtype=np.int8)
    for column, place in enumerate(order):
        chosen = _nearest(rest[:, column], step, levels) * kept[:, column]
        rounded[:, place] = chosen
        lost = (rest[:, column] - chosen * step) / upper[column, column]
        rest[:, column + 1 :] -= lost[:, None] * upper[column, column + 1 :]
    return rounded

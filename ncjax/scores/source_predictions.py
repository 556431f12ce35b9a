"""What a network's own classifier says of a target's images: for LEEP and NCE, which are of predictions, not features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from ncjax.scores.moments import chunks


def expected_log_prediction(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> float:
    """(1/N) sum_i log sum_z P(y_i | z) p_i(z), with P(y, z) = (1/N) sum_{i: y_i = y} p_i(z): LEEP of soft assignments."""
    _, of, count = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(of, kind="stable")
    ends = np.cumsum(count)
    classes = [order[end - n : end] for end, n in zip(ends, count, strict=True)]
    joint = np.stack([probabilities[rows].sum(0) for rows in classes]) / len(labels)
    source = joint.sum(0)
    given = joint / np.where(source > 0, source, 1)  # P(y | z); a source class that is never assigned says nothing
    each = [np.log(probabilities[rows] @ given[k]) for k, rows in enumerate(classes)]
    return float(np.mean(np.concatenate(each)))


def probabilities_of(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Softmax in float64."""
    out = np.empty(logits.shape)
    for at, x in chunks(logits):
        x -= x.max(axis=1, keepdims=True)
        np.exp(x, out=x)
        np.divide(x, x.sum(axis=1, keepdims=True), out=out[at])
    return out

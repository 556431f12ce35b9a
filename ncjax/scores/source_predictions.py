"""What a network's own classifier says of a target's images: for LEEP and NCE, which are of predictions, not features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

ROWS = 512  # at a time, so that they stay in the processor's cache


def expected_log_prediction(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> float:
    """(1/N) sum_i log sum_z P(y_i | z) p_i(z), with P(y, z) = (1/N) sum_{i: y_i = y} p_i(z): LEEP of soft assignments."""
    _, of, count = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(of, kind="stable")
    ends = np.cumsum(count)
    p = probabilities[order]  # class after class, so that each is read in one piece
    classes = [p[end - n : end] for end, n in zip(ends, count, strict=True)]
    joint = np.stack([x.sum(0, dtype=np.float64) for x in classes]) / len(labels)
    source = joint.sum(0)
    given = joint / np.where(source > 0, source, 1)  # P(y | z); a source class that is never assigned says nothing
    given = given.astype(p.dtype)
    each = [np.log((x @ given[k]).astype(np.float64)) for k, x in enumerate(classes)]
    return float(np.mean(np.concatenate(each)))


def probabilities_of(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Softmax, in float32 of logits z that come in it or in less (right to |z - max z| 6e-8 of itself), else in float64."""
    out = np.empty(logits.shape, np.float64 if logits.dtype.itemsize > 4 else np.float32)
    for start in range(0, len(logits), ROWS):
        x = logits[start : start + ROWS].astype(out.dtype)
        x -= x.max(axis=1, keepdims=True)
        np.exp(x, out=x)
        np.divide(x, x.sum(axis=1, keepdims=True), out=out[start : start + ROWS])
    return out

"""What a network's own classifier says of a target's images: for LEEP and NCE, which are of predictions, not features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax


def expected_log_prediction(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> float:
    """(1/N) sum_i log sum_z P(y_i | z) p_i(z), with P(y, z) = (1/N) sum_{i: y_i = y} p_i(z): LEEP of soft assignments."""
    _, of, count = np.unique(labels, return_inverse=True, return_counts=True)
    joint = np.zeros((len(count), probabilities.shape[1]))
    order = np.argsort(of, kind="stable")
    joint[:] = np.add.reduceat(probabilities[order], np.concatenate([[0], np.cumsum(count)[:-1]]), axis=0)
    joint /= len(labels)
    source = joint.sum(0)
    given = joint / np.where(source > 0, source, 1)  # P(y | z); a source class that is never assigned says nothing
    each = np.einsum("nz,nz->n", probabilities, given[of])
    return float(np.mean(np.log(each)))


def probabilities_of(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Softmax in float64."""
    return softmax(np.asarray(logits, np.float64), axis=1)

"""LogME."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from ncjax.core.types import Array
from ncjax.scores.score import score

ITERATIONS = 100


def _evidence(sigma: np.ndarray, x2: np.ndarray, rest: float, count: int, alpha: float, beta: float) -> float:
    """log p(y | F, alpha, beta) of Bayesian linear regression in the eigenbasis of F^T F (sigma [D], x2 [D])."""
    t = alpha / beta
    fitted = np.sum(sigma * x2 / np.square(sigma + t))
    residual = np.sum(x2 * np.square(t / (sigma + t))) + rest
    return 0.5 * (
        len(sigma) * math.log(alpha)
        + count * math.log(beta)
        - np.sum(np.log(alpha + beta * sigma))
        - beta * residual
        - alpha * fitted
        - count * math.log(2 * math.pi)
    )


@score(label="LogME", higher_is_better=True)
def logme(features: Float[Array, "N D"], labels: Int[Array, " N"], num_classes: int) -> float:
    """LogME (You et al., 2021): mean over classes of the maximal log evidence per example of one-hot labels, y = F w + e.

    max over alpha, beta > 0 of (1/N) log N(y; 0, F F^T / alpha + I / beta), by MacKay's fixed point. Higher is better.

    Args:
      features: F, [N, D].
      labels: [N].
      num_classes: K; classes without examples are left out.
    """
    f = np.asarray(features, np.float64)
    labels, count = np.asarray(labels), len(f)
    wide = f.shape[1] > count  # then by the N x N products: what they lack of D eigenvalues is zero, and changes nothing
    sigma, vectors = np.linalg.eigh(f @ f.T if wide else f.T @ f)
    sigma = np.maximum(sigma, 0.0)
    kept = sigma > 1e-10 * sigma.max(initial=0.0)
    found = []
    for k in range(num_classes):
        y = (labels == k).astype(np.float64)
        if not y.any():
            continue
        x2 = np.zeros_like(sigma)
        x2[kept] = np.square(y @ vectors[:, kept]) if wide else np.square((f.T @ y) @ vectors[:, kept]) / sigma[kept]
        rest = max(float(y @ y - x2.sum()), 1e-12)
        alpha = beta = 1.0
        for _ in range(ITERATIONS):
            t = alpha / beta
            gamma = np.sum(sigma / (sigma + t))
            alpha_new = gamma / max(np.sum(sigma * x2 / np.square(sigma + t)), 1e-300)
            beta = (count - gamma) / (np.sum(x2 * np.square(t / (sigma + t))) + rest)
            done = abs(alpha_new / beta - t) <= 1e-6 * t
            alpha = min(alpha_new, 1e12 * beta)  # a class the features say nothing of: weights of zero
            if done:
                break
        found.append(_evidence(sigma, x2, rest, count, alpha, beta) / count)
    return float(np.mean(found))

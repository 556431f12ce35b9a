"""LogME."""

from __future__ import annotations

import numpy as np

from ncjax.scores.moments import Moments
from ncjax.scores.score import score

ITERATIONS = 100


@score(label="LogME", higher_is_better=True)
def logme(moments: Moments) -> float:
    """LogME (You et al., 2021): mean over classes of the maximal log evidence per example of one-hot labels, y = F w + e.

    max over alpha, beta > 0 of (1/N) log N(y; 0, F F' / alpha + I / beta), by MacKay's fixed point, all classes at once in
    the eigenbasis of F' F. Higher is better.

    Args:
      moments: of the features F; classes without examples are left out.
    """
    raw, count = moments.raw, moments.size
    kept = raw.values > 1e-10 * raw.values[0] if len(raw.values) else np.zeros(0, bool)
    sigma = raw.values[kept]
    # x = V' F' y / sqrt(sigma): F' y is the class's sum.
    x2 = np.square(moments.count[:, None] * raw.means[:, kept]) / sigma
    rest = np.maximum(moments.count - x2.sum(1), 1e-12)
    alpha, beta = np.ones(len(x2)), np.ones(len(x2))
    going = np.ones(len(x2), bool)
    for _ in range(ITERATIONS):
        t = (alpha / beta)[going, None]
        gamma = np.sum(sigma / (sigma + t), axis=1)
        new = gamma / np.maximum(np.sum(sigma * x2[going] / np.square(sigma + t), axis=1), 1e-300)
        beta[going] = (count - gamma) / (np.sum(x2[going] * np.square(t / (sigma + t)), axis=1) + rest[going])
        done = np.abs(new / beta[going] - t[:, 0]) <= 1e-6 * t[:, 0]
        alpha[going] = np.minimum(new, 1e12 * beta[going])  # a class the features say nothing of: weights of zero
        going[np.flatnonzero(going)[done]] = False
        if not going.any():
            break
    return float(np.mean(_evidence(sigma, x2, rest, count, alpha[:, None], beta[:, None])) / count)


def _evidence(
    sigma: np.ndarray, x2: np.ndarray, rest: np.ndarray, count: int, alpha: np.ndarray, beta: np.ndarray
) -> np.ndarray:
    """log p(y | F, alpha, beta) of Bayesian linear regression, [K]; directions without spread change nothing."""
    t = alpha / beta
    fitted = np.sum(sigma * x2 / np.square(sigma + t), axis=1)
    residual = np.sum(x2 * np.square(t / (sigma + t)), axis=1) + rest
    return 0.5 * (
        len(sigma) * np.log(alpha[:, 0])
        + count * np.log(beta[:, 0])
        - np.sum(np.log(alpha + beta * sigma), axis=1)
        - beta[:, 0] * residual
        - alpha[:, 0] * fitted
        - count * np.log(2 * np.pi)
    )

"""H-score with a shrunk covariance."""

from __future__ import annotations

import numpy as np

from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="H-score, regularised", higher_is_better=True)
def h_score_regularised(moments: Moments) -> float:
    """tr(S_a^-1 (1 - a) cov(E[h | y])) with the covariance shrunk as Ledoit and Wolf do (Ibrahim et al., 2021).

    S_a = (1 - a) S + a (tr S / D) I with S = sum (h - mean)(h - mean)' / N and a = min(b, d) / d, where
    b = (sum ||h - mean||^4 / N - ||S||_F^2) / (D N) and d = (||S||_F^2 - (tr S)^2 / D) / D (Ledoit & Wolf, 2004).
    """
    total, n, d = moments.total, moments.size, moments.width
    values = total.values / n
    square, trace = float(np.square(values).sum()), float(values.sum())
    beta = (moments.quartic / n - square) / (d * n)
    delta = (square - trace**2 / d) / d
    alpha = 1.0 if delta <= 0 else min(max(beta, 0.0), delta) / delta
    shrunk = (1 - alpha) * values + alpha * trace / d
    between = moments.count[:, None] * np.square(total.means) / (n - 1)
    return float((1 - alpha) * np.sum(between / shrunk))

"""Variability collapse index of the target's training features."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="VCI", higher_is_better=False)
def vci(moments: Moments) -> float:
    """1 - tr(S_T^+ S_B) / rank(S_B), S_T = S_W + S_B, classes weighing alike (Xu & Liu, 2023). From 0, collapsed, to 1.

    Of classes of one size it orders networks as the H-score does, of which it is a linear function then.
    """
    means = moments.total.means - moments.total.means.mean(0)
    between = means.T @ means / len(means)
    total = moments.within_total / moments.size + between
    rank = np.linalg.matrix_rank(means)
    return float(1 - np.trace(linalg.pinvh(total) @ between) / max(rank, 1))

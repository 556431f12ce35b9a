"""Variability collapse index of the target's training features."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from ncjax.scores.h_score import refuse_exact_fit
from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="VCI", higher_is_better=False)
def vci(moments: Moments) -> float:
    """1 - tr(S_T^+ S_B) / rank(S_B), S_T = S_W + S_B (Xu & Liu, 2023). From 0, collapsed, to 1.

    Classes weigh alike in S_B, images in S_W. Of classes of one size it orders networks as the H-score does, of which it
    is a linear function then.

    Raises:
      UserError: as for `ncjax.scores.h_score`.
    """
    refuse_exact_fit(moments)
    means = moments.total.means - moments.total.means.mean(0)
    between = means.T @ means / len(means)
    total = moments.within_total / moments.size + between
    rank = np.linalg.matrix_rank(means)
    return float(1 - np.trace(linalg.pinvh(total) @ between) / max(rank, 1))

"""RankMe of the target's training features."""

from __future__ import annotations

import numpy as np

from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="RankMe", higher_is_better=True)
def rankme(moments: Moments) -> float:
    """exp of the entropy of s_i / sum s + 1e-7, s the min(N, D) singular values of the features (Garrido et al., 2023)."""
    values = np.zeros(min(moments.size, moments.width))
    found = np.sqrt(moments.raw.values)[: len(values)]
    values[: len(found)] = found
    share = values / values.sum() + 1e-7
    return float(np.exp(-np.sum(share * np.log(share))))

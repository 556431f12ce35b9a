"""LiDAR."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy import linalg

from ncjax.core.values import POSITIVE
from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="LiDAR", higher_is_better=True)
def lidar(moments: Moments, ridge: Annotated[float, POSITIVE] = 1e-4) -> float:
    """Effective rank of S_w^-1/2 S_b S_w^-1/2, S_w = within covariance + d I (Thilak et al., 2024), classes for surrogates.

    exp of the entropy of l_i / sum l + 1e-7 over its D eigenvalues l.

    Args:
      moments: of the target's training images.
      ridge: d.
    """
    means = moments.total.means - moments.total.means.mean(0)
    inner = moments.within_total / moments.size + ridge * np.eye(means.shape[1])
    found = linalg.eigvalsh(means @ linalg.solve(inner, means.T, assume_a="pos") / len(means))
    values = np.zeros(moments.width)
    kept = min(len(found), moments.width)
    values[:kept] = np.maximum(found[::-1][:kept], 0)
    share = values / values.sum() + 1e-7
    return float(np.exp(-np.sum(share * np.log(share))))

"""FaCe."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ncjax.scores.score import between_extremes, pooled


@pooled(label="FaCe", higher_is_better=True)
def face(face_variance: Float[np.ndarray, " B"], face_fairness: Float[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    """Variance collapse plus class fairness (Ding et al., 2023), each from 0 to 1 between the pool's extremes.

    The paper's own way to bring the two to one scale could not be read.

    Args:
      face_variance, face_fairness: of every network.
    """
    return between_extremes(face_variance) + between_extremes(face_fairness)

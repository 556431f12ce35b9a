"""NCTI."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ncjax.scores.score import between_extremes, pooled


@pooled(label="NCTI", higher_is_better=True)
def ncti(
    ncti_features: Float[np.ndarray, " B"],
    ncti_confidence: Float[np.ndarray, " B"],
    ncti_compactness: Float[np.ndarray, " B"],
) -> Float[np.ndarray, " B"]:
    """Features plus confidence less compactness, each from 0 to 1 between the pool's extremes (Wang et al., 2023).

    A network's score so depends on which others there are, as in the authors' code.

    Args:
      ncti_features, ncti_confidence, ncti_compactness: of every network.
    """
    return between_extremes(ncti_features) + between_extremes(ncti_confidence) - between_extremes(ncti_compactness)

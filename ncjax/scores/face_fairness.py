"""FaCe's class fairness."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.core.values import COUNT, POSITIVE
from ncjax.scores.bhattacharyya import coefficients
from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="FaCe, class fairness", higher_is_better=True)
def face_fairness(
    features: Float[Array, "N D"],
    moments: Moments,
    temperature: Annotated[float, POSITIVE] = 0.05,
    components: Annotated[int, COUNT] = 64,
) -> float:
    """How evenly each class overlaps with the others, the second term of FaCe (Ding et al., 2023); from 0 to 1.

    The mean over classes of the entropy of softmax_j(b_kj / t) over the others, by log(K - 1), with b Bhattacharyya
    coefficients of the Gaussians of classes. The paper leaves t undefined, and this form is our reading of it.

    Args:
      features, moments: of the target's training images.
      temperature: t.
      components: principal components.

    Raises:
      UserError: fewer than three classes.
    """
    k = len(moments.classes)
    if k < 3:
        raise UserError(f"{k} classes: fairness is among the others, of which there must be two")
    b = coefficients(features, moments, components, "spherical")
    p = softmax(b[~np.eye(k, dtype=bool)].reshape(k, k - 1) / temperature, axis=1)
    return float(np.mean(-np.sum(p * np.log(np.maximum(p, 1e-300)), axis=1)) / np.log(k - 1))

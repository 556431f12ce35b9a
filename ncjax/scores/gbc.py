"""Gaussian Bhattacharyya coefficient."""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float

from ncjax.core.types import Array
from ncjax.core.values import COUNT, OneOf
from ncjax.scores.bhattacharyya import coefficients
from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="GBC", higher_is_better=True)
def gbc(
    features: Float[Array, "N D"],
    moments: Moments,
    components: Annotated[int, COUNT] = 64,
    covariance: Annotated[str, OneOf("spherical", "diagonal")] = "spherical",
) -> float:
    """-sum_{k != j} exp(-B_kj), B the Bhattacharyya distance of the Gaussians of two classes (Pandy et al., 2022).

    At most 0, where no two classes overlap. On all features of a wide layer every coefficient underflows; hence, as in the
    paper, on 64 principal components.

    Args:
      features, moments: of the target's training images.
      components: principal components.
      covariance: "spherical" or "diagonal".
    """
    found = coefficients(features, moments, components, covariance)
    return float(len(found) - found.sum())

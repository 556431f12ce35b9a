"""PARC."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import scipy
from jaxtyping import Float

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.core.values import COUNT, SEED
from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="PARC", higher_is_better=True)
def parc(
    features: Float[Array, "N D"],
    moments: Moments,
    components: Annotated[int, COUNT] = 32,
    images: Annotated[int, COUNT] = 4000,
    seed: Annotated[int, SEED] = 0,
) -> float:
    """Spearman's correlation, over pairs of images, of 1 - Pearson's correlation of features with whether labels differ.

    Features on their first principal components, each then of mean 0 and variance 1 (Bolya et al., 2021). Pearson's
    correlation across components depends on their signs, which no definition gives: the largest loading of each is
      positive.

    Args:
      features, moments: of the target's training images.
      components: principal components; at least three are needed for a correlation to say something.
      images: at most, drawn at random where there are more: pairs grow with their square.
      seed: of that draw.

    Raises:
      UserError: features of fewer than three dimensions.
    """
    x = moments.centred_in(components, features)
    if x.shape[1] < 3:
        raise UserError(f"features of {x.shape[1]} dimensions: correlations across them say nothing")
    x, labels = x / x.std(0), moments.labels
    if len(x) > images:
        rows = np.random.default_rng(seed).permutation(len(x))[:images]
        x, labels = x[rows], labels[rows]
    upper = np.triu_indices(len(x), 1)
    ranks = scipy.stats.rankdata(1 - np.corrcoef(x)[upper])
    differ = (labels[upper[0]] != labels[upper[1]]).astype(np.float64)  # any two numbers have the ranks of these
    return float(np.corrcoef(ranks, differ)[0, 1])

"""NLEEP."""

from __future__ import annotations

import warnings
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.core.values import COUNT, SEED, SHARE
from ncjax.scores.moments import Moments
from ncjax.scores.score import score
from ncjax.scores.source_predictions import expected_log_prediction


@score(label="NLEEP", higher_is_better=True, seeds=3)
def nleep(
    features: Float[Array, "N D"],
    labels: Int[Array, " N"],
    moments: Moments,
    components: Annotated[int, COUNT] = 5,
    energy: Annotated[float, SHARE] = 0.8,
    seed: Annotated[int, SEED] = 0,
) -> float:
    """LEEP with the assignments to a Gaussian mixture in place of source classes (Li et al., 2021). Random.

    Features on the principal components that hold 80 % of their variance; a mixture of 5 K Gaussians with full covariances.
    The benchmark of scores tells its standard deviation over three further seeds.

    Args:
      features, labels, moments: of the target's training images.
      components: Gaussians for each class.
      energy: share of the variance that is kept.
      seed: of the mixture's start.

    Raises:
      UserError: fewer than two examples for each Gaussian.
    """
    count = components * len(moments.classes)
    if 2 * count > moments.size:
        raise UserError(f"{moments.size} examples for a mixture of {count} Gaussians: at least two for each")
    share = np.cumsum(moments.total.values) / moments.total.values.sum()
    x = moments.centred_in(int(np.searchsorted(share, energy)) + 1, features)
    x = x / x[:, 0].std()  # what the mixture adds to variances, 1e-6, is small beside them then
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = GaussianMixture(count, random_state=seed).fit(x)
    return expected_log_prediction(mixture.predict_proba(x), np.asarray(labels))

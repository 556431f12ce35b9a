"""How much the Gaussians of two classes overlap, for GBC and FaCe."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ncjax.core.types import Array
from ncjax.scores.moments import Moments

SMALLEST = 1e-4  # of a variance, as in the authors' code


def coefficients(
    features: Float[Array, "N D"], moments: Moments, components: int, covariance: str
) -> Float[np.ndarray, "K K"]:
    """Bhattacharyya coefficients exp(-B) of classes, features on their first principal components. 1 on the diagonal.

    B = (1/8) sum_d (mu_d - mu'_d)^2 / s_d + (1/2) sum_d [log s_d - (log v_d + log v'_d) / 2], s = (v + v') / 2, v a class's
    variances; one variance for all directions where `covariance` is "spherical", but the sum is over all of them still.
    """

    def compute() -> np.ndarray:
        x = moments.centred_in(components, features)
        means = moments.total.means[:, : x.shape[1]]
        apart = np.square(x - means[moments.labels])
        variance = np.stack([apart[moments.labels == k].mean(0) for k in range(len(moments.classes))])
        variance = np.maximum(variance, SMALLEST)
        if covariance == "spherical":
            variance = np.repeat(variance.mean(1, keepdims=True), x.shape[1], axis=1)
        out, logs = np.ones((len(means), len(means))), np.log(variance).sum(1)
        for k in range(len(means)):
            s = (variance[k] + variance) / 2
            distance = np.sum(np.square(means[k] - means) / s, axis=1) / 8
            out[k] = np.exp(-(distance + 0.5 * (np.log(s).sum(1) - (logs[k] + logs) / 2)))
        np.fill_diagonal(out, 1.0)
        return out

    return moments.once(f"bhattacharyya {components} {covariance}", compute)

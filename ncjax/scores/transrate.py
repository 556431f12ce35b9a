"""TransRate."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from jaxtyping import Float
from scipy import linalg

from ncjax.core.types import Array
from ncjax.core.values import POSITIVE
from ncjax.nc.null import blas
from ncjax.scores.moments import Moments
from ncjax.scores.score import score

SMALL = 1024  # of matrices this small more BLAS threads than one make nothing faster, and wait for one another


@score(label="TransRate", higher_is_better=True)
def transrate(features: Float[Array, "N D"], moments: Moments, distortion: Annotated[float, POSITIVE] = 1e-4) -> float:
    """Coding rate of all features less the mean coding rate of those of a class (Huang et al., 2022).

    R(Z) - (1/K) sum_k R(Z_k) with R(Z) = 1/2 log det(I + Z' Z / (n e)), Z [n, D] features less the mean of *all*; nats.

    Args:
      features, moments: of the target's training images.
      distortion: e.
    """
    x, e = np.asarray(features), distortion
    whole = 0.5 * float(np.sum(np.log1p(moments.total.values / (moments.size * e))))
    order = np.argsort(moments.labels, kind="stable")
    each = np.split(order, np.cumsum(moments.count)[:-1])
    small = min(max(map(len, each)), x.shape[1]) < SMALL
    with blas().limit(limits=1 if small else None, user_api="blas"):
        return whole - float(np.mean([_rate(x[rows].astype(np.float64) - moments.middle, e) for rows in each]))


def _rate(z: Float[np.ndarray, "n D"], distortion: float) -> float:
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    factor = linalg.cholesky(np.eye(len(gram)) + gram / (len(z) * distortion), lower=True, check_finite=False)
    return float(np.sum(np.log(np.diagonal(factor))))

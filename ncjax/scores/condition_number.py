"""Condition number of a block's kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.scores.score import score


@score(label="condition number", higher_is_better=False)
def condition_number(kernels: Sequence[Array]) -> float:
    """Geometric mean of sigma_max / sigma_min over a block's kernels, each as a matrix (`trees.matrix_shape`).

    KappaTune (Ludwig, 2025) tunes tensors where it is smallest.

    Raises:
      UserError: a block without kernels.
    """
    if not kernels:
        raise UserError("the block has no kernels")
    values = [np.linalg.svd(np.asarray(x, np.float64), compute_uv=False) for x in kernels]
    return float(np.exp(np.mean([math.log(s[0] / max(s[-1], 1e-12 * s[0])) for s in values])))

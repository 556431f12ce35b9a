"""Relative gradient norm of a block."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.scores.score import score


@score(label="relative gradient norm", higher_is_better=True)
def relative_gradient_norm(gradient: Iterable[Array], params: Iterable[Array]) -> float:
    """||g|| / ||theta|| over the leaves of a block (Lee et al., 2023).

    Raises:
      UserError: a block without parameters.
    """
    below = _squared(params)
    if below <= 0:
        raise UserError("the block has no parameters")
    return math.sqrt(_squared(gradient) / below)


def _squared(arrays: Iterable[Array]) -> float:
    return sum(float(np.sum(np.square(np.asarray(x, np.float64)))) for x in arrays)

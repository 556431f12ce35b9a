"""Numerical rank of the target's training features."""

from __future__ import annotations

from ncjax import nc
from ncjax.core.types import Array
from ncjax.scores.score import score


@score(label="numerical rank", higher_is_better=False)
def numerical_rank(features: Array, labels: Array) -> float:
    """(1/K) sum_k ||H_k||_*^2 / ||H_k||_F^2 of the training features: between 1 and the images of a class."""
    return nc.numerical_rank(features, labels)

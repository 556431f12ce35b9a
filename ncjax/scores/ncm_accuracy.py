"""Nearest class mean on validation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from ncjax.core.types import Array
from ncjax.scores.moments import Moments
from ncjax.scores.score import score


@score(label="nearest class mean, validation", higher_is_better=True)
def ncm_accuracy(moments: Moments, val_features: Float[Array, "V D"], val_labels: Int[Array, " V"]) -> float:
    """Validation accuracy of the nearest mean of the training features."""
    x = np.asarray(val_features, np.float64) - moments.middle
    means = moments.apart
    nearest = np.argmax(x @ means.T - 0.5 * np.square(means).sum(1), axis=1)
    return float(np.mean(moments.classes[nearest] == np.asarray(val_labels)))

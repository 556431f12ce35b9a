"""LEEP."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from ncjax.core.types import Array
from ncjax.scores.score import score
from ncjax.scores.source_predictions import expected_log_prediction, probabilities_of


@score(label="LEEP", higher_is_better=True)
def leep(source_logits: Float[Array, "N C"], labels: Int[Array, " N"]) -> float:
    """LEEP, the mean log probability of the label if the source class that the network sees were all that is known.

    (1/N) sum_i log sum_z P(y_i | z) p_i(z), p_i the network's own softmax over its source classes z, and P(y | z) from
    P(y, z) = (1/N) sum_{i: y_i = y} p_i(z) (Nguyen et al., 2020). At most 0.
    """
    return expected_log_prediction(probabilities_of(np.asarray(source_logits)), np.asarray(labels))

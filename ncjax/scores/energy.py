"""ETran's energy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from ncjax.core.types import Array
from ncjax.scores.score import score


@score(label="energy (ETran)", higher_is_better=True)
def energy(source_logits: Float[Array, "N C"]) -> float:
    """Mean of log sum_z exp(logit_z) of the network's own classifier: low energy, in distribution (Gholami et al., 2023).

    It has not seen the target's labels.
    """
    return float(np.mean(logsumexp(np.asarray(source_logits, np.float64), axis=1)))

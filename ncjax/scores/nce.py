"""Negative conditional entropy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from ncjax.core.types import Array
from ncjax.scores.score import score


@score(label="NCE", higher_is_better=True)
def nce(source_logits: Float[Array, "N C"], labels: Int[Array, " N"]) -> float:
    """-H(y | z) = sum_{y, z} P(y, z) log P(y | z), z the source class that the network decides for (Tran et al., 2019).

    In nats; at most 0.
    """
    source = np.unique(np.argmax(np.asarray(source_logits), axis=1), return_inverse=True)[1]
    target = np.unique(np.asarray(labels), return_inverse=True)[1]
    joint = np.zeros((target.max() + 1, source.max() + 1))
    np.add.at(joint, (target, source), 1 / len(target))
    given = joint / joint.sum(0)
    return float(np.sum(joint * np.log(np.where(joint > 0, given, 1))))

"""H-score."""

from __future__ import annotations

import numpy as np

from ncjax.core.errors import UserError
from ncjax.scores.moments import Moments
from ncjax.scores.score import score


def refuse_exact_fit(moments: Moments) -> None:
    """Refuses features that vary in as many directions as there are examples, less one.

    Raises:
      UserError: they do.
    """
    if len(moments.total.values) >= moments.size - 1:
        raise UserError(
            f"{moments.size} examples of {moments.width} features: class means fit exactly whatever these are, and the "
            "score is a constant"
        )


@score(label="H-score", higher_is_better=True)
def h_score(moments: Moments) -> float:
    """H-score, tr(cov(h)^+ cov(E[h | y])) of the training features (Bao et al., 2019). Between 0 and classes - 1.

    Raises:
      UserError: as many directions as examples less one: every class mean is then a combination of examples that fits
        exactly, and the score is classes - 1 whatever the features.
    """
    refuse_exact_fit(moments)
    total = moments.total
    return float(np.sum(moments.count[:, None] * np.square(total.means) / total.values))

"""FaCe's variance collapse."""

from __future__ import annotations

from ncjax.nc import Report
from ncjax.scores.nc1 import nc1
from ncjax.scores.score import score


@score(label="FaCe, variance collapse", higher_is_better=True)
def face_variance(report: Report) -> float:
    """-tr(Sigma_W Sigma_B^+) / K, the first term of FaCe (Ding et al., 2023): NC1 with its sign turned.

    Raises:
      UserError: as for `ncjax.scores.nc1`.
    """
    return -nc1(report)

"""NC1 over its no-signal floor."""

from __future__ import annotations

from ncjax.nc import Report
from ncjax.scores.nc1 import refuse_narrow
from ncjax.scores.score import score


@score(label="NC1 / floor", higher_is_better=False)
def nc1_over_floor(report: Report) -> float:
    """NC1 of the training features, as a share of what labels without signal would give.

    Raises:
      UserError: as for `ncjax.scores.nc1`.
    """
    refuse_narrow(report)
    return report.over_floor["nc1"]

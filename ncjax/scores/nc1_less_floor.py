"""NC1 less its no-signal floor."""

from __future__ import annotations

from ncjax.nc import Report
from ncjax.scores.nc1 import refuse_narrow
from ncjax.scores.score import score


@score(label="NC1 − floor", higher_is_better=False)
def nc1_less_floor(report: Report) -> float:
    """NC1 of the training features less what labels without signal are expected to give; below 0 where there is signal.

    Beside `nc1_over_floor`, the ratio: the two order networks alike where their floors are alike.

    Raises:
      UserError: as for `ncjax.scores.nc1`.
    """
    refuse_narrow(report)
    return report.nc1 - report.floor["nc1"]

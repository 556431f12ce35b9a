"""NC1 of the target's training features."""

from __future__ import annotations

from ncjax.nc import Report
from ncjax.scores.score import score


@score(label="NC1", higher_is_better=False)
def nc1(report: Report) -> float:
    """NC1 of the training features; small NC1 implies that they are nearly separable."""
    return report.nc1

"""CDNV of the target's training features."""

from __future__ import annotations

from ncjax.nc import Report
from ncjax.scores.score import score


@score(label="CDNV", higher_is_better=False)
def cdnv(report: Report) -> float:
    """Class-distance normalised variance of the training features, mean over pairs (Galanti et al., 2022)."""
    return report.cdnv

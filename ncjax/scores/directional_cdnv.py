"""Directional CDNV of the target's training features."""

from __future__ import annotations

from ncjax.nc import Report
from ncjax.scores.score import score


@score(label="directional CDNV", higher_is_better=False)
def directional_cdnv(report: Report) -> float:
    """Variance of the training features along the lines between class means, over their squared distances.

    Mean over ordered pairs of u' Sigma_i u / ||mu_i - mu_j||^2 (Luthra, Salunkhe & Galanti, 2026).
    """
    return report.directional_cdnv

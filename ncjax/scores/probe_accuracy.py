"""A linear probe on validation."""

from __future__ import annotations

from ncjax.scores.score import score


@score(label="probe, validation", higher_is_better=True)
def probe_accuracy(val_accuracy: float) -> float:
    """Validation accuracy of a linear probe."""
    return val_accuracy

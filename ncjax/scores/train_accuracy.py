"""A linear probe on its own training images, a control."""

from __future__ import annotations

from ncjax.scores.score import score


@score(label="probe, train", higher_is_better=True)
def train_accuracy(train_accuracy: float) -> float:
    """Training accuracy of a linear probe."""
    return train_accuracy

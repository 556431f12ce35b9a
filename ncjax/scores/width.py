"""Feature width, a control."""

from __future__ import annotations

from ncjax.scores.score import score


@score(label="feature width", higher_is_better=True)
def width(width: int) -> float:
    """D of the features."""
    return float(width)

"""Size, a control."""

from __future__ import annotations

from ncjax.scores.score import score


@score(label="parameters", higher_is_better=True)
def parameters(parameters: int) -> float:
    """Parameters of the backbone: an order that has not seen the target."""
    return float(parameters)

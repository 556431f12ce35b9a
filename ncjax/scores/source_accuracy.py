"""Accuracy on the source, a control."""

from __future__ import annotations

from ncjax.core.errors import UserError
from ncjax.scores.score import score


@score(label="source accuracy", higher_is_better=True)
def source_accuracy(source_accuracy: float) -> float:
    """Accuracy of the network on its own task.

    Raises:
      UserError: it is not known.
    """
    if not source_accuracy:
        raise UserError("the accuracy on the source is not known")
    return source_accuracy

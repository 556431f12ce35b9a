"""NC1 of the target's training features."""

from __future__ import annotations

from ncjax.core.errors import UserError
from ncjax.nc import Report
from ncjax.scores.score import score


def refuse_narrow(report: Report) -> None:
    """Refuses features whose NC1 has their width for its rank.

    Raises:
      UserError: there are fewer features than classes - 1.
    """
    if "narrow" in report.flags:
        raise UserError(f"{report.dim} features for {report.num_classes} classes: too narrow for NC1 to compare")


@score(label="NC1", higher_is_better=False)
def nc1(report: Report) -> float:
    """NC1 of the training features; small NC1 implies that they are nearly separable.

    Raises:
      UserError: there are fewer features than classes - 1: the rank of such an NC1 is its width, with which it grows.
    """
    refuse_narrow(report)
    return report.nc1

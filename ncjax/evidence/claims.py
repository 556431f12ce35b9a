"""Rules, fixed before a run, that turn evidence into verdicts on a paper's claims."""

from __future__ import annotations

from ncjax.evidence.correlation import Correlation


def verdict(found: Correlation | None, *, weakest: float) -> str:
    """What a claim of a negative correlation comes to.

    Args:
      found: the correlation.
      weakest: the weakest one that would still be worth the claim, such as -0.3.

    Returns:
      "supported" if the whole interval is below 0; "not supported" if all of it is above `weakest`; else "undecided".
    """
    if found is None:
        return "undecided"
    return "supported" if found.high < 0 else "not supported" if found.low > weakest else "undecided"

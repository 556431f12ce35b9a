"""Rules, fixed before a run, that turn evidence into verdicts on a paper's claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from ncjax.evidence.correlation import Correlation
from ncjax.evidence.intervals import Interval, mean


def verdict(found: Correlation | None, *, weakest: float) -> str:
    """What a claim of a negative correlation comes to.

    Args:
      found: the correlation.
      weakest: the weakest one that would still be worth the claim, such as -0.3.

    Returns:
      "supported" if the whole interval is below 0, "contradicted" if all of it is above 0, "not supported" if it is above
      `weakest`; else "undecided".
    """
    if found is None:
        return "undecided"
    if found.high < 0:
        return "supported"
    return "contradicted" if found.low > 0 else "not supported" if found.low > weakest else "undecided"


class Comparison(NamedTuple):
    """Two methods, seed by seed."""

    difference: Interval  # 95 %
    p_level: float  # of the two one-sided tests: small where the two are within the margin of one another
    word: str  # "ahead", "behind", "level" or "not told apart"


def compared(values: Sequence[float], others: Sequence[float], *, margin: float) -> Comparison:
    """Whether paired values are ahead of others, behind them, or level with them; or whether that cannot be told.

    "level" if two one-sided t tests at 5 % put the mean difference within +- margin (Schuirmann, 1987), which is the 90 %
    interval lying inside; else "ahead" or "behind" if the 95 % interval leaves out 0; else "not told apart".

    Args:
      values, others: paired by seed.
      margin: the largest difference that does not matter, fixed before the run.
    """
    apart, count = np.asarray(values, np.float64) - np.asarray(others, np.float64), len(values)
    found = mean(apart)
    if count < 2:
        return Comparison(found, 1.0, "not told apart")
    error = apart.std(ddof=1) / np.sqrt(count)
    room = margin - abs(found.mean)
    p = float(special.stdtr(count - 1, -room / error)) if error > 0 else float(room < 0)
    if p < 0.05:
        return Comparison(found, p, "level")
    word = "ahead" if found.low > 0 else "behind" if found.high < 0 else "not told apart"
    return Comparison(found, p, word)

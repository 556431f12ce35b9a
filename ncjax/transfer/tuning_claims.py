"""What a comparison of fine-tuning methods says of the paper's claims on them: C2, C13, C14 and C16.

A setting is one network, target and number of images per class. In each, methods were run with the same seeds; an entry
is what `studies.compare` keeps of a method there: accuracies and NC1 by seed, and the share of parameters it tunes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ncjax.evidence import intervals
from ncjax.evidence.claims import compared
from ncjax.evidence.variants import FEWEST, judged, resampled, spearman

Entries = dict[str, dict[str, Any]]  # by method
SKIP, NO_SKIP, FULL = "tuning.scl_ft", "tuning.layer_ft", "tuning.full_ft"
FEW = 0.10  # the share of parameters that "at least 90 % fewer" leaves
RULES = (
    "Rules, fixed before the run, in every setting. C2: Spearman's correlation over methods of NC1 (test, readout) with "
    "test accuracy, supported if its 95 % interval, over methods and seeds, is below 0, contradicted if above, not "
    "supported if above −{weakest:g}. C13: SCL FT less full fine-tuning, supported if level within {margin:g} points or "
    "ahead, contradicted if behind by more than that beyond the 95 % interval; not tested where the block is over 10 % of "
    "the parameters. C14: supported where accuracy is ahead of layer FT's and NC1 (test, readout) lower, both beyond 95 % "
    "intervals, half supported with one of them, contradicted where one goes the other way beyond its own. C16: supported "
    "where SCL FT's gap of train and test accuracy is smaller than full fine-tuning's beyond the 95 % interval and its "
    "accuracy not behind, contradicted where the gap is larger beyond it. Else undecided."
)


def what_the_skip_does(entries: Entries, margin: float) -> dict[str, Any]:
    """C14, SCL FT against layer FT: accuracy, and the logarithm of NC1 of held-out features where the classifier reads.

    "supported" where the accuracy is ahead and NC1 lower beyond their 95 % intervals over seeds; "contradicted" where one
    of them goes the other way beyond its own; "half supported" where one does as claimed; else "undecided".
    """
    ours, theirs = entries[SKIP]["seeds"], entries[NO_SKIP]["seeds"]
    accuracy = compared(ours["test"], theirs["test"], margin=margin)
    found: dict[str, Any] = {"accuracy": accuracy._asdict(), "log_nc1_readout": None}
    lower = higher = False
    values = [ours["nc1_readout_test"], theirs["nc1_readout_test"]]
    if all(v is not None and v > 0 for each in values for v in each):
        ratio = intervals.paired(*(np.log(each).tolist() for each in values))
        found["log_nc1_readout"] = list(ratio)
        lower, higher = ratio.high < 0, ratio.low > 0
    ahead, behind = accuracy.difference.low > 0, accuracy.difference.high < 0
    word = "contradicted" if behind or higher else "supported" if ahead and lower else "undecided"
    return {**found, "verdict": "half supported" if word == "undecided" and (ahead or lower) else word}


def collapse_and_accuracy(entries: Entries, weakest: float) -> dict[str, Any]:
    """C2: correlations over methods of NC1 at the readout, on test and on train, with test accuracy.

    The verdict is on NC1 of the test images: on the training images a low one may only say that they were fitted. Methods
    without an NC1, their features beyond float32, are left out; of fewer than five the claim is not tested.
    """
    known = [
        e["seeds"]
        for e in entries.values()
        if all(v is not None for s in ("test", "train") for v in e["seeds"][f"nc1_readout_{s}"])
    ]

    def over(split: str) -> Any:
        return resampled([[e[f"nc1_readout_{split}"] for e in known], [e["test"] for e in known]], spearman)

    found = {split: over(split) for split in ("test", "train")}
    less = found["test"] and found["test"]._replace(
        value=-found["test"].value, low=-found["test"].high, high=-found["test"].low
    )
    word = judged(less, weakest=weakest) if len(known) >= FEWEST else "not tested"
    return {**{k: v and v._asdict() for k, v in found.items()}, "verdict": word}


def one_block_or_all(entries: Entries, margin: float) -> dict[str, Any]:
    """C13: SCL FT less full fine-tuning, for at most `FEW` of the parameters."""
    found = compared(entries[SKIP]["seeds"]["test"], entries[FULL]["seeds"]["test"], margin=margin)
    word = "undecided"
    if entries[SKIP]["share"] > FEW:
        word = "not tested"
    elif found.word in ("level", "ahead"):
        word = "supported"
    elif found.difference.high < -margin:
        word = "contradicted"
    return {"accuracy": found._asdict(), "share": entries[SKIP]["share"], "verdict": word}


def overfitting(entries: Entries, margin: float) -> dict[str, Any]:
    """C16: the gap of train and test accuracy, and test accuracy, of SCL FT less full fine-tuning's."""
    ours, theirs = entries[SKIP]["seeds"], entries[FULL]["seeds"]

    def gaps(seeds: dict[str, Sequence[float]]) -> list[float]:
        return [a - b for a, b in zip(seeds["train"], seeds["test"], strict=True)]

    gap, accuracy = intervals.paired(gaps(ours), gaps(theirs)), compared(ours["test"], theirs["test"], margin=margin)
    word = "contradicted" if gap.low > 0 else "undecided"
    if gap.high < 0 and accuracy.word != "behind":
        word = "supported"
    return {"gap": list(gap), "accuracy": accuracy._asdict(), "verdict": word}


def judge(entries: Entries, *, margin: float, weakest: float) -> dict[str, dict[str, Any]]:
    """{claim: what was found in a setting, its "verdict" among it} of the claims whose methods are there.

    Args:
      entries: by method, of one setting.
      margin: of accuracy that does not matter.
      weakest: as for `evidence.variants.judged`.
    """
    found = {"C2": collapse_and_accuracy(entries, weakest)}
    if {SKIP, FULL} <= entries.keys():
        found |= {"C13": one_block_or_all(entries, margin), "C16": overfitting(entries, margin)}
    if {SKIP, NO_SKIP} <= entries.keys():
        found["C14"] = what_the_skip_does(entries, margin)
    return dict(sorted(found.items(), key=lambda item: int(item[0][1:])))

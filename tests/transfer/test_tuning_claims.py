"""What a comparison of fine-tuning methods says of C2, C13, C14 and C16."""

import numpy as np
import pytest

from ncjax.studies import compare
from ncjax.transfer.tuning_claims import FULL, NO_SKIP, SKIP, judge, overfitting, what_the_skip_does


def entry(test, nc1=(1.0, 1.1, 1.2), train=(1.0, 1.0, 1.0), share=0.07):
    seeds = {"test": test, "train": train, "nc1_readout_test": nc1, "nc1_readout_train": nc1}
    return {"seeds": seeds, "share": share}


@pytest.mark.parametrize(
    ("test", "nc1", "word"),
    [
        ([0.80, 0.81, 0.82], [1.0, 1.1, 1.2], "supported"),
        ([0.80, 0.81, 0.82], [2.0, 3.0, 2.5], "half supported"),
        ([0.70, 0.76, 0.73], [1.0, 1.1, 1.2], "half supported"),
        ([0.70, 0.76, 0.73], [2.0, 3.0, 2.5], "undecided"),
        ([0.80, 0.81, 0.82], [4.0, 4.4, 4.8], "contradicted"),
        ([0.60, 0.61, 0.62], [1.0, 1.1, 1.2], "contradicted"),
        ([0.80, 0.81, 0.82], [None, 1.1, 1.2], "half supported"),
    ],
)
def test_c14_needs_accuracy_and_collapse(test, nc1, word):
    entries = {SKIP: entry(test, nc1), NO_SKIP: entry([0.72, 0.73, 0.74], [2.0, 2.2, 2.4])}
    found = what_the_skip_does(entries, 0.01)
    assert found["verdict"] == word
    assert "points" in compare._found("C14", found)


FULL_TEST = [0.80, 0.82, 0.81]


@pytest.mark.parametrize(
    ("by_how_much", "share", "word"),
    [
        ([0.001, -0.001, 0.0], 0.07, "supported"),  # level
        ([0.03, 0.035, 0.04], 0.07, "supported"),  # ahead
        ([-0.03, -0.035, -0.04], 0.07, "contradicted"),
        ([-0.01, -0.02, 0.02], 0.07, "undecided"),
        ([-0.011, -0.013, -0.012], 0.07, "undecided"),  # behind, but not by more than the margin for sure
        ([0.001, -0.001, 0.0], 0.12, "not tested"),
    ],
)
def test_c13_is_a_margin_and_a_share(by_how_much, share, word):
    entries = {
        SKIP: entry([a + b for a, b in zip(FULL_TEST, by_how_much, strict=True)], share=share),
        FULL: entry(FULL_TEST),
    }
    assert judge(entries, margin=0.01, weakest=0.3)["C13"]["verdict"] == word


@pytest.mark.parametrize(
    ("train", "test", "word"),
    [
        ([0.90, 0.91, 0.92], [0.80, 0.82, 0.81], "supported"),  # a smaller gap at the same accuracy
        ([0.70, 0.71, 0.72], [0.60, 0.62, 0.61], "undecided"),  # a smaller gap, for it learns less
        ([1.0, 1.0, 1.0], [0.60, 0.62, 0.61], "contradicted"),
        ([1.0, 1.0, 1.0], [0.80, 0.83, 0.80], "undecided"),
    ],
)
def test_c16_is_a_gap_that_accuracy_does_not_pay_for(train, test, word):
    entries = {SKIP: entry(test, train=train), FULL: entry(FULL_TEST)}
    assert overfitting(entries, 0.01)["verdict"] == word


def test_c2_is_over_methods_and_held_out():
    steps = np.arange(8)
    entries = {
        f"m{i}": entry([0.5 + 0.05 * i + 0.001 * s for s in range(3)], nc1=[10.0 - i + 0.01 * s for s in range(3)])
        for i in steps
    }
    found = judge(entries, margin=0.01, weakest=0.3)
    assert list(found) == ["C2"]
    assert found["C2"]["test"]["value"] == -1
    assert found["C2"]["verdict"] == "supported"
    entries["m0"] = entry([0.5] * 3, nc1=[None, 1.0, 1.0])  # left out
    assert judge(entries, margin=0.01, weakest=0.3)["C2"]["test"]["variants"] == 7
    few = dict(list(entries.items())[:4])
    assert judge(few, margin=0.01, weakest=0.3)["C2"]["verdict"] == "not tested"

"""Methods side by side: what the skip is said to do."""

import pytest

from ncjax.studies import compare


def entry(test, nc1):
    return {"seeds": {"test": test, "nc1_readout_test": nc1}}


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
    entries = {compare.SKIP: entry(test, nc1), compare.NO_SKIP: entry([0.72, 0.73, 0.74], [2.0, 2.2, 2.4])}
    found = compare.what_the_skip_does(entries, 0.01)
    assert found["verdict"] == word
    assert word in compare._about_the_skip(found)

"""What rules lose, and which loses least."""

import numpy as np

from ncjax.evidence import intervals, regret


def test_the_rule_loses_least_and_its_choice_is_tried_where_it_was_not_made():
    lost = {"a": [0.01, 0.02, 0.03], "b": [0.0, 0.0, 0.12], "c": [0.2, 0.21, 0.22]}
    rule = regret.least_regret(lost)
    assert rule.name == "a"
    assert rule.regret == intervals.mean(lost["a"])
    # Without the third target b loses nothing on the others, and is chosen: 0.12 there; a is chosen without the others.
    assert rule.nested == intervals.mean([0.01, 0.02, 0.12])
    assert rule.order == ["a", "b", "c"]
    assert rule.level == ["b"]  # c loses 0.19 more on each
    alone = regret.least_regret({"a": [0.1], "b": [0.2]})
    assert alone.name == "a"
    assert np.isnan(alone.nested.mean)

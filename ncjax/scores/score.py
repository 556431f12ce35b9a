"""What a score is: a number that says, before any tuning, how well features, a block or a network may serve a target.

A score is a function of the inputs that it names, without a default where it cannot do without:

    features, labels, num_classes     [N, D] and [N] of the target's training images at the layer in question, and K
    val_features, val_labels          the same of its validation images
    report                            their collapse, an `ncjax.nc.Report`
    train_accuracy, val_accuracy      of a linear probe, its strength chosen on validation
    gradient, params                  leaves of the block: of the training loss's gradient, and themselves
    kernels                           the block's kernels as matrices [rows, columns]
    parameters, width                 of the backbone, and D
    source_accuracy                   of the network on its own task

`@score(label=..., higher_is_better=...)` says how it is read. It returns a float; where it does not apply it raises
`UserError` with the reason. Scores are found by name (`scores.logme`, `file.py:function`), nothing else is to be edited.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ncjax.core.errors import UserError
from ncjax.core.inputs import named_inputs
from ncjax.core.resolve import own_name, unbound
from ncjax.core.roles import SCORE, resolve

INPUTS = (
    "features",
    "labels",
    "num_classes",
    "val_features",
    "val_labels",
    "report",
    "train_accuracy",
    "val_accuracy",
    "gradient",
    "params",
    "kernels",
    "parameters",
    "width",
    "source_accuracy",
)


class Score(NamedTuple):
    """A score as a study holds it."""

    name: str
    label: str  # of columns and axes
    higher_is_better: bool
    function: Callable[..., float]
    asks_for: tuple[str, ...]
    can_do_without: tuple[str, ...]

    def better(self, value: float | None) -> float:
        """The value turned so that more is better; minus infinity where there is none."""
        if value is None or math.isnan(value):
            return -math.inf
        return value if self.higher_is_better else -value


def score(*, label: str, higher_is_better: bool) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Says how a score is read."""

    def decorate(function: Callable[..., float]) -> Callable[..., float]:
        function.label, function.higher_is_better = label, higher_is_better  # type: ignore[attr-defined]
        return function

    return decorate


def named(text: str) -> Score:
    """The score that a config names.

    Raises:
      UserError: no such function, one that `@score` does not describe, or one that asks for an unknown input.
    """
    function = resolve(text, SCORE)
    plain = unbound(function)
    if not hasattr(plain, "label"):
        raise UserError(f"{text} is no score: say how it is read with @score(label=..., higher_is_better=...)")
    asked = named_inputs(function, f"score {text}", INPUTS)
    return Score(
        name=own_name(function),
        label=plain.label,
        higher_is_better=plain.higher_is_better,
        function=function,
        asks_for=tuple(name for name, needed in asked.items() if needed),
        can_do_without=tuple(name for name, needed in asked.items() if not needed),
    )


def all_named(texts: Sequence[str]) -> dict[str, Score]:
    """The scores that a config names, by their own names.

    Raises:
      UserError: as for `named`, or two of one name.
    """
    found: dict[str, Score] = {}
    for text in texts:
        each = named(text)
        if each.name in found:
            raise UserError(f"scores: two are called {each.name!r}")
        found[each.name] = each
    return found


def installed() -> list[str]:
    """Names of all scores that come with ncjax."""
    package = __name__.rpartition(".")[0]
    modules = pkgutil.iter_modules(__import__(package, fromlist=["x"]).__path__)
    return [f"scores.{m.name}" for m in modules if m.name != "score"]


def applied(scores: dict[str, Score], inputs: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, str]]:
    """(values, reasons why there is none) of every score.

    Args:
      scores: from `all_named`.
      inputs: by name; None or absent where something is not there.
    """
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, each in scores.items():
        values[name] = None
        missing = [n for n in each.asks_for if inputs.get(n) is None]
        if missing:
            reasons[name] = f"needs {', '.join(missing)}"
            continue
        given = {n: inputs[n] for n in (*each.asks_for, *each.can_do_without) if inputs.get(n) is not None}
        try:
            value = float(each.function(**given))
        except UserError as e:
            reasons[name] = str(e)
            continue
        if math.isfinite(value):
            values[name] = value
        else:
            reasons[name] = "not finite"
    return values, reasons

"""What a score is: a number that says, before any tuning, how well features, a block or a network may serve a target.

A score is a function of the inputs that it names, without a default where it cannot do without:

    features, labels, num_classes     [N, D] and [N] of the target's training images at the layer in question, and K
    moments                           their class means and scatters, `ncjax.scores.moments.Moments`, once for all scores
    source_logits                     [N, C] of the same images, of the network's own classifier
    val_features, val_labels          the same of its validation images
    report                            their collapse, an `ncjax.nc.Report`
    train_accuracy, val_accuracy      of a linear probe, its strength chosen on validation
    gradient, params                  leaves of the block: of the training loss's gradient, and themselves
    kernels                           the block's kernels as matrices [rows, columns]
    parameters, width                 of the backbone, and D
    source_accuracy                   of the network on its own task

`@score(label=..., higher_is_better=...)` says how it is read. It returns a float; where it does not apply it raises
`UserError` with the reason. A score that depends on which networks it is compared with is `@pooled`: it names other scores,
which it is given as arrays over the pool, and returns an array. Scores are found by name (`scores.logme`,
`file.py:function`), nothing else is to be edited.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.inputs import named_inputs
from ncjax.core.resolve import own_name, unbound
from ncjax.core.roles import SCORE, known_of, resolve
from ncjax.scores.moments import Moments

INPUTS = (
    "features",
    "labels",
    "num_classes",
    "moments",
    "source_logits",
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


FURTHER = 1_000_000  # seeds from here on tell a score's spread


class Score(NamedTuple):
    """A score as a study holds it."""

    name: str
    label: str  # of columns and axes
    higher_is_better: bool
    function: Callable[..., float]
    asks_for: tuple[str, ...]
    can_do_without: tuple[str, ...]
    over_pool: bool = False  # whether it asks for other scores, of all networks
    seeds: int = 1  # of a score that takes a seed: how many its spread is told over

    @property
    def sign(self) -> int:
        """1 where more of it promises a higher accuracy, else -1."""
        return 1 if self.higher_is_better else -1

    def better(self, value: float | None) -> float:
        """The value turned so that more is better; minus infinity where there is none."""
        if value is None or math.isnan(value):
            return -math.inf
        return self.sign * value


def score(*, label: str, higher_is_better: bool, seeds: int = 1) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Says how a score is read; of one with a random part, which takes `seed`, over how many seeds its spread is told."""

    def decorate(function: Callable[..., float]) -> Callable[..., float]:
        function.label, function.higher_is_better = label, higher_is_better  # type: ignore[attr-defined]
        function.seeds = seeds  # type: ignore[attr-defined]
        return function

    return decorate


def pooled(*, label: str, higher_is_better: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Says how a score over a pool is read."""
    plain = score(label=label, higher_is_better=higher_is_better)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.over_pool = True  # type: ignore[attr-defined]
        return plain(function)

    return decorate


def between_extremes(values: np.ndarray) -> np.ndarray:
    """From 0 for the smallest of a pool to 1 for the largest; 0 where all are one."""
    low, high = np.min(values), np.max(values)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def named(text: str) -> Score:
    """The score that a config names.

    Raises:
      UserError: no such function, one that `@score` does not describe, or one that asks for an unknown input.
    """
    function = resolve(text, SCORE)
    plain = unbound(function)
    if not hasattr(plain, "label"):
        raise UserError(f"{text} is no score: say how it is read with @score(label=..., higher_is_better=...)")
    over_pool = getattr(plain, "over_pool", False)
    known = tuple(x.rpartition(".")[2] for x in installed()) if over_pool else INPUTS
    seeded = "seed" in inspect.signature(plain).parameters
    if plain.seeds > 1 and not seeded:
        raise UserError(f"score {text}: seeds={plain.seeds} asks for its spread, but the function takes no seed")
    asked = named_inputs(function, f"score {text}", known)
    return Score(
        name=own_name(function),
        label=plain.label,
        higher_is_better=plain.higher_is_better,
        function=function,
        asks_for=tuple(name for name, needed in asked.items() if needed),
        can_do_without=tuple(name for name, needed in asked.items() if not needed),
        over_pool=over_pool,
        seeds=plain.seeds,
    )


def all_named(texts: Sequence[str]) -> dict[str, Score]:
    """The scores that a config names, by their own names, and those that a pooled one among them is made of.

    Raises:
      UserError: as for `named`, or two of one name or label.
    """
    found: dict[str, Score] = {}
    for text in texts:
        each = named(text)
        if each.name in found:
            raise UserError(f"scores: two are called {each.name!r}")
        found[each.name] = each
    parts = dict.fromkeys(part for each in found.values() if each.over_pool for part in each.asks_for)
    found = {part: named(f"scores.{part}") for part in parts if part not in found} | found
    owner: dict[str, str] = {}
    for each in found.values():
        if (twin := owner.setdefault(each.label, each.name)) != each.name:
            raise UserError(f"scores: {twin} and {each.name} are both labelled {each.label!r}; give one another label")
    return found


def installed() -> list[str]:
    """Names of all scores that come with ncjax."""
    return known_of(SCORE)


ABSENT = {"source_logits": "the network comes without a classifier"}  # why an input is not there, where that is known


def applied(
    scores: dict[str, Score],
    inputs: dict[str, Any],
    seconds: dict[str, float] | None = None,
    spreads: dict[str, float] | None = None,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """(values, reasons why there is none) of every score.

    Args:
      scores: from `all_named`.
      inputs: by name; None or absent where something is not there. Moments are made of features and labels.
      seconds: where what each took is written, by name, and "moments".
      spreads: where the standard deviation of those with a random part over `seeds` further seeds is written, by name;
        None computes none.
    """
    seconds = {} if seconds is None else seconds
    started = time.perf_counter()
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    inputs, why = _with_moments(scores, inputs)
    seconds["moments"] = time.perf_counter() - started
    for name, each in scores.items():
        values[name] = None
        if each.over_pool:
            continue  # `complete` gives it
        if why and "moments" in each.asks_for:
            reasons[name] = why
            continue
        missing = [n for n in each.asks_for if inputs.get(n) is None]
        if missing:
            known = [ABSENT[n] for n in missing if n in ABSENT and "features" in inputs]
            reasons[name] = "; ".join(known) or f"needs {', '.join(missing)}"
            continue
        given = {n: inputs[n] for n in (*each.asks_for, *each.can_do_without) if inputs.get(n) is not None}
        started = time.perf_counter()
        try:
            value = float(each.function(**given))
            if each.seeds > 1 and spreads is not None:
                others = [float(each.function(**given, seed=FURTHER + s)) for s in range(each.seeds)]
                if np.isfinite(others).all():
                    spreads[name] = float(np.std(others, ddof=1))
        except (ValueError, np.linalg.LinAlgError) as e:  # a UserError, or what a library says of features it cannot take
            reasons[name] = str(e).splitlines()[0]
            continue
        finally:
            seconds[name] = time.perf_counter() - started
        if math.isfinite(value):
            values[name] = value
        else:
            reasons[name] = "not finite"
    return values, reasons


def _with_moments(scores: Mapping[str, Score], inputs: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(inputs with the moments if a score asks for them, why they cannot be had)."""
    wanted = any("moments" in each.asks_for for each in scores.values())
    if not wanted or any(inputs.get(name) is None for name in ("features", "labels")) or inputs.get("moments") is not None:
        return inputs, ""
    try:
        return {**inputs, "moments": Moments(inputs["features"], inputs["labels"])}, ""
    except UserError as e:
        return inputs, str(e)


def complete(scores: dict[str, Score], values: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """{network: {score: value}} with the scores over the pool; None for networks that lack a part of one.

    Args:
      scores: from `all_named`.
      values: what `applied` found of every network, or block.
    """
    out = {network: dict(found) for network, found in values.items()}
    for name, each in scores.items():
        if not each.over_pool:
            continue
        whole = [n for n, found in values.items() if all(found.get(part) is not None for part in each.asks_for)]
        if whole:
            columns = {part: np.array([values[n][part] for n in whole], np.float64) for part in each.asks_for}
            made = np.asarray(each.function(**columns), np.float64)
            for network, value in zip(whole, made, strict=True):
                out[network][name] = float(value) if np.isfinite(value) else None
    return out


def complete_cells(scores: dict[str, Score], cells: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Writes the scores over the pool into every cell's "predictors", target by target.

    Args:
      scores: from `all_named`.
      cells: {target: {network: {"predictors": {score: value}, ...}}}.
    """
    for many in cells.values():
        for network, found in complete(scores, {n: c["predictors"] for n, c in many.items()}).items():
            many[network]["predictors"] = found

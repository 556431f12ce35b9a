"""What is lost by going by a rule: accuracy of the best in hindsight, less that of what the rule takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncjax.evidence import intervals
from ncjax.evidence.claims import compared

PERMUTATIONS = 5000


def regrets(tuned: dict[str, list[float]], picks: dict[str, list[str]]) -> dict[str, Any]:
    """What each rule loses in test accuracy against the best block in hindsight, seed by seed, with 95 % t intervals.

    Args:
      tuned: {block: test accuracy by seed}.
      picks: {rule: its block by seed}. "random" is added: the mean over blocks.
    """
    best = max(tuned, key=lambda b: sum(tuned[b]))
    seeds = range(len(tuned[best]))
    lost = {rule: [tuned[best][s] - tuned[blocks[s]][s] for s in seeds] for rule, blocks in picks.items()}
    lost["random"] = [tuned[best][s] - sum(x[s] for x in tuned.values()) / len(tuned) for s in seeds]
    return {"best": best, "by_seed": lost, "regret": {rule: list(intervals.mean(x)) for rule, x in lost.items()}}


def blocks_differ(tuned: dict[str, list[float]], *, seed: int = 0) -> float:
    """p of as large a variance of blocks' mean accuracies if all blocks were one: they are permuted within every seed.

    The best block in hindsight beats a random one even then.

    Args:
      tuned: {block: test accuracy by seed}.
      seed: of the permutations.
    """
    x = np.array(list(tuned.values()))
    mixed = np.random.default_rng(seed).permuted(np.tile(x, (PERMUTATIONS, 1, 1)), axis=1)
    as_large = np.sum(mixed.mean(2).var(1) >= x.mean(1).var() - 1e-15)
    return float((1 + as_large) / (1 + PERMUTATIONS))


def over_studies(regret: Sequence[dict[str, Any]], margin: float) -> dict[str, dict[str, Any]]:
    """{rule: "regret" over studies, "worst" of them, "against_best": compared with the rule that loses least}, it first.

    Args:
      regret: of every study, {rule: (mean, ...)}; rules that some study lacks, as NC1 where every block is narrow, are
        judged on the others.
      margin: difference that does not matter.
    """
    losses = {rule: {i: r[rule][0] for i, r in enumerate(regret) if rule in r} for r in regret for rule in r}
    losses = {rule: found for rule, found in losses.items() if len(found) > 1}
    order = sorted(losses, key=lambda rule: sum(losses[rule].values()) / len(losses[rule]))
    best = next(rule for rule in order if len(losses[rule]) == len(regret))
    out = {}
    for rule in [best, *(r for r in order if r != best)]:
        mine = losses[rule]
        against = compared(list(mine.values()), [losses[best][i] for i in mine], margin=margin)
        out[rule] = {
            "regret": list(intervals.mean(list(mine.values()))),
            "studies": len(mine),
            "worst": max(mine.values()),
            "against_best": against._asdict(),
        }
    return out


def mean_regrets(regrets: Sequence[dict[str, Any]]) -> list[float]:
    """Accuracy lost on each target, mean over truths: those of one target are not independent.

    Args:
      regrets: what `predictors.regret` found by each truth, of the same targets.
    """
    return [float(np.mean([r["by_target"][t] for r in regrets])) for t in regrets[0]["by_target"]]


class Rule(NamedTuple):
    """The predictor to go by."""

    name: str
    regret: intervals.Interval  # of its first choice, over targets
    nested: intervals.Interval  # of the one chosen on the other targets, on each in turn: where the choice was not made
    order: list[str]  # all, the least regret first
    level: list[str]  # those whose regret is not told apart from its own, target by target; the least first


def least_regret(lost: Mapping[str, Sequence[float]]) -> Rule:
    """The predictor whose first choice loses least, mean over targets.

    Args:
      lost: {predictor: accuracy lost on each target}, the same targets for all.
    """
    order = sorted(lost, key=lambda name: float(np.mean(lost[name])))
    best, each = order[0], {name: np.asarray(x, np.float64) for name, x in lost.items()}

    def without(i: int) -> float:
        return float(each[min(lost, key=lambda name: float(np.delete(each[name], i).mean()))][i])

    return Rule(
        name=best,
        regret=intervals.mean(lost[best]),
        nested=intervals.mean([without(i) if len(lost[best]) > 1 else np.nan for i in range(len(lost[best]))]),
        order=order,
        level=[name for name in order[1:] if not intervals.paired(lost[name], lost[best]).low > 0],
    )

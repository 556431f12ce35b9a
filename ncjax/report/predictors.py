"""Tables of what predicts transfer, from `evidence.predictors.summary` as a record holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ncjax.evidence import intervals
from ncjax.report.tables import Cell, Table, number, spread, text

JACKKNIFE = "Intervals: 95 %, jackknife over families of networks."


def random_parts(cells: Iterable[dict[str, Any]], labels: dict[str, str]) -> str:
    """What a caption says of scores shown with a spread; "" where no cell holds one, as in records of before.

    Args:
      cells: of networks, each with {score: spread} as "spreads".
      labels: {score: label}; the scores are named in this order.
    """
    held = {name for cell in cells for name in cell.get("spreads", {})}
    some = [label for name, label in labels.items() if name in held]
    return f" {', '.join(some)}: ± standard deviation over further seeds of its random part." if some else ""


def correlation(found: Sequence[Any] | None, source: str) -> Cell:
    """`+0.71 [+0.20, +0.91]`, and of how many networks and families."""
    if found is None:
        return text("–")
    *interval, count, families = found
    return Cell(interval[0], intervals.signed(interval), f"{source} ({count} networks of {families} families)")


def correlations(
    name: str, caption: str, summary: dict[str, Any], how: str, labels: dict[str, str], targets: Sequence[str], at: str
) -> Table:
    """A row a predictor, a column a target and their mean.

    Args:
      name, caption: of the table.
      summary: {predictor: {how: {target, "mean": correlation}}}.
      how: "spearman", "weighted_kendall" or "differences".
      labels: of predictors.
      targets: their names.
      at: where the numbers stand.
    """
    rows = [
        [text(labels[p]), *(correlation(both[how][t], f"{at}{p}.{how}.{t}") for t in ("mean", *targets))]
        for p, both in summary.items()
    ]
    return Table(name, f"{caption} {JACKKNIFE}", ["predictor", "mean over targets", *targets], rows)


def by_chance(found: dict[str, Any] | None, labels: dict[str, str]) -> str:
    """What the best of many predictors is worth, in a sentence; "" where it is not known."""
    if found is None:
        return ""
    p = "p < 0.001" if found["p"] < 1e-3 else f"p = {found['p']:.2g}"
    return (
        f"The best of {found['of']} predictors, {labels[found['best']]}, reaches {found['value']:+.2f} in the direction "
        "that "
        f"it promises; were none of them worth anything, one of them would as often as {p} says (accuracies permuted over "
        "networks)."
    )


def stands(
    name: str,
    summary: dict[str, Any],
    labels: dict[str, str],
    chance: dict[str, Any] | None,
    short: dict[str, str],
    at: str,
) -> Table:
    """Whether correlations stand: without each network, for differences, and what the first choice loses.

    Args:
      name: of the table.
      summary, labels, at: as for `correlations`.
      chance: of `evidence.predictors.best_by_chance`.
      short: names of networks.
    """
    rows = []
    for p, found in summary.items():
        without, lost = found["without"], found["regret"]
        ends = [
            text("–") if without is None else number(without[k][0])._replace(text=f"{without[k][0]:+.2f}")
            for k in ("low", "high")
        ]
        rows.append(
            [
                text(labels[p]),
                correlation(found["weighted_kendall"]["mean"], f"{at}{p}.weighted_kendall.mean"),
                *ends,
                text("–" if without is None else ", ".join(str(short.get(n, n)) for n in without["flips"]) or "none"),
                correlation(found["differences"]["mean"], f"{at}{p}.differences.mean"),
                spread(lost and lost["mean"], f"{at}{p}.regret.mean"),
            ]
        )
    caption = (
        "Does it stand? Weighted Kendall correlation, mean over targets; its smallest and largest value with one network "
        "left out, and the networks without which its sign turns; Pearson's correlation, which is that of differences "
        "between "
        "networks in the predictor (its logarithm, where it spans more than a factor of ten) with differences in accuracy; "
        "test accuracy lost by taking the predictor's first choice, with a t interval over targets. "
        f"{by_chance(chance, labels)} {JACKKNIFE}"
    )
    columns = ["predictor", "weighted Kendall", "lowest without one", "highest", "turns without", "differences", "regret %"]
    return Table(name, caption, columns, rows)

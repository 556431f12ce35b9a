"""How well what lies outside the distribution is told from what lies inside, block by block: a table and a figure.

Points are {variant: {target: {layer: {score: (mean, low, high)}}}}, AUROCs over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncjax.report import figures
from ncjax.report.figures import Drawn
from ncjax.report.tables import Cell, Table, text

SCORES = ("neco", "nci")
ALIAS = "penultimate"  # the last block under another name

Points = dict[str, dict[str, dict[str, Any]]]


def blocks_of(points: Points) -> list[str]:
    """Layers of every variant and target, in order; none where they were not looked at."""
    found = [auroc for targets in points.values() for auroc in targets.values() if auroc]
    names = [name for name in dict.fromkeys(name for auroc in found for name in auroc) if name != ALIAS]
    shared = [name for name in names if all(name in auroc for auroc in found)]
    return shared if len(shared) > 1 else []


def table(points: Points, blocks: Sequence[str], name: str, at: str) -> Table:
    """A row a target, variant and score; `at` is where the numbers stand."""
    rows = []
    for target in _targets(points):
        for variant, targets in points.items():
            for score in SCORES:
                source = f"{at}{variant}.targets.{target}.auroc."
                cells = [_cell(targets[target].get(b, {}).get(score), f"{source}{b}.{score}") for b in blocks]
                rows.append([text(f"{target}, {variant}, {score.upper()}"), *cells])
    caption = (
        "AUROC of the source's test images against the target's after each block, means over seeds with 95 % t intervals: "
        "NECO, the share of a centred feature within the span of class means, and NCI, its cosine with the class vector "
        "plus its length; class means stand for the classifier's rows except at the readout."
    )
    return Table(name, caption, ["target, variant, score", *blocks], rows)


def _cell(found: Sequence[float] | None, source: str) -> Cell:
    if found is None:
        return text("–")
    mean, low, high = found
    return Cell(mean, f"{mean:.3f} [{low:.3f}, {high:.3f}]", source)


def _targets(points: Points) -> list[str]:
    return [t for t, auroc in next(iter(points.values())).items() if auroc]


def curves(points: Points, blocks: Sequence[str], name: str) -> Drawn:
    """A panel a target and score, a line a variant."""
    panels = [(target, score) for target in _targets(points) for score in SCORES]
    with figures.panels(len(panels), 2, 4.0) as (figure, axes):
        for axis, (target, score) in zip(axes, panels, strict=True):
            for i, (variant, targets) in enumerate(points.items()):
                if any(targets[target][b][score] is None for b in blocks):
                    continue
                mean = [targets[target][b][score][0] for b in blocks]
                colour, style = figures.COLOURS[i % len(figures.COLOURS)], ("-", "--", ":")[i // len(figures.COLOURS) % 3]
                axis.plot(range(len(blocks)), mean, style, lw=1, color=colour, label=variant)
            axis.axhline(0.5, color="#888888", lw=0.8)
            axis.set(title=f"{target}, {score.upper()}", ylabel="AUROC")
            axis.set_xticks(range(len(blocks)), blocks, rotation=60, fontsize=6)
        figures.legend_below(figure, axes[0], 3)
        return Drawn(name, figure)

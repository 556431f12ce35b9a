"""From the cells of a sweep over pre-training variants to tables, correlations and verdicts (claims C3 to C9 and C17).

A point is a variant, or a variant at an epoch; it has a cell a seed, as `transfer.reading.Reader.read` returns it.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ncjax.core.errors import UserError
from ncjax.evidence import intervals, paper
from ncjax.evidence.variants import Resampled, judged, partial, resampled, spearman

METRICS = ("nc1", "nc1_over_floor", "cdnv", "directional_cdnv", "numerical_rank")  # on the scale of their logarithms
Cell = dict[str, Any]
Points = dict[str, list[Cell]]

CLAIMS = {name: paper.CLAIMS[name].says for name in ("C3", "C4", "C5", "C6", "C7", "C8", "C9", "C17")}


def source_nc1(cell: Cell) -> float:
    """NC1 of the source's training images at the penultimate layer; NaN where it is not defined."""
    found = cell["source"]["layers"]["penultimate"]["train"]["nc1"]
    return math.nan if found is None else float(found)


def _source(layer: str, split: str, metric: str) -> Callable[[Cell, str], float | None]:
    return lambda cell, target: cell["source"]["layers"][layer][split][metric]


def _target(metric: str) -> Callable[[Cell, str], float | None]:
    return lambda cell, target: cell["targets"][target]["train"][metric]


PREDICTORS: dict[str, tuple[str, Callable[[Cell, str], float | None]]] = {
    "nc1": ("source NC1, train", _source("penultimate", "train", "nc1")),
    "nc1_test": ("source NC1, test", _source("penultimate", "test", "nc1")),
    "cdnv": ("source CDNV, train", _source("penultimate", "train", "cdnv")),
    "directional_cdnv": ("source directional CDNV, train", _source("penultimate", "train", "directional_cdnv")),
    "numerical_rank": ("source numerical rank, train", _source("penultimate", "train", "numerical_rank")),
    "nc1_readout": ("source NC1 at the readout, train", _source("readout", "train", "nc1")),
    "source_accuracy": ("source accuracy, test", lambda cell, target: cell["source"]["accuracy"]["test"]),
    "target_nc1": ("target NC1, train", _target("nc1")),
    "target_cdnv": ("target CDNV, train", _target("cdnv")),
    "target_directional_cdnv": ("target directional CDNV, train", _target("directional_cdnv")),
    "knn": ("target kNN", lambda cell, target: cell["targets"][target]["knn"]),
}


def accuracy(cell: Cell, target: str) -> float:
    """What transfer is judged by: the probe's test accuracy."""
    return cell["targets"][target]["probe"]


def mean_accuracy(cell: Cell) -> float:
    """Its mean over targets."""
    return float(np.mean([t["probe"] for t in cell["targets"].values()]))


def defined(points: Points) -> tuple[Points, dict[str, int]]:
    """(points with the cells that have an NC1 of the source, how many of each have none, their network being dead)."""
    kept = {name: [c for c in cells if not math.isnan(source_nc1(c))] for name, cells in points.items()}
    lost = {name: len(cells) - len(kept[name]) for name, cells in points.items() if len(cells) > len(kept[name])}
    return {name: cells for name, cells in kept.items() if cells}, lost


def values(points: Points, of: Callable[[Cell], float | None]) -> list[list[float]]:
    """A quantity by point and seed, NaN where it is not defined."""
    return [[math.nan if (x := of(cell)) is None else x for cell in cells] for cells in points.values()]


def over_points(points: Points, targets: Sequence[str], predictor: str) -> dict[str, Resampled | None]:
    """Spearman's correlation of a predictor with transfer over points: {target: ..., "mean": mean over targets}."""
    of = PREDICTORS[predictor][1]
    tables = {t: (values(points, lambda c, t=t: of(c, t)), values(points, lambda c, t=t: accuracy(c, t))) for t in targets}
    found = {t: resampled(pair, spearman) for t, pair in tables.items()}
    return {**found, "mean": resampled([x for pair in tables.values() for x in pair], _mean_spearman)}


def _mean_spearman(*arrays: np.ndarray) -> np.ndarray:
    return np.mean([spearman(x, y) for x, y in zip(arrays[::2], arrays[1::2], strict=True)], axis=0)


def given_accuracy(points: Points, targets: Sequence[str]) -> Resampled | None:
    """Partial correlation of source NC1 (train) with transfer given source accuracy, mean over targets."""
    nc1 = values(points, source_nc1)
    known = values(points, lambda c: c["source"]["accuracy"]["test"])
    each = [values(points, lambda c, t=t: accuracy(c, t)) for t in targets]

    def statistic(nc1: np.ndarray, known: np.ndarray, *each: np.ndarray) -> np.ndarray:
        return np.mean([partial(nc1, y, known) for y in each], axis=0)

    return resampled([nc1, known, *each], statistic)


def target_over_source(points: Points, targets: Sequence[str]) -> Resampled | None:
    """C17: by how much NC1 of the target predicts better than that of the source, -rho_target - rho_source.

    Each in the direction that the paper claims: less collapse on the source, more on the target.
    """
    tables = []
    for t in targets:
        for name in ("target_nc1", "nc1"):
            tables.append(values(points, lambda c, t=t, of=PREDICTORS[name][1]: of(c, t)))
        tables.append(values(points, lambda c, t=t: accuracy(c, t)))

    def statistic(*arrays: np.ndarray) -> np.ndarray:
        triples = zip(arrays[::3], arrays[1::3], arrays[2::3], strict=True)
        return np.mean([-spearman(target, y) - spearman(source, y) for target, source, y in triples], axis=0)

    return resampled(tables, statistic)


def comparable(points: Points, within: float) -> Points:
    """The points whose mean source accuracy on test is within so much of the best one's."""
    mean = {name: float(np.mean([c["source"]["accuracy"]["test"] for c in cells])) for name, cells in points.items()}
    best = max(mean.values(), default=0.0)
    return {name: cells for name, cells in points.items() if mean[name] >= best - within}


def contrast(points: Points, text: str) -> dict[str, Any]:
    """Two variants seed by seed, `"C9: nt_xent - cross_entropy"`: differences in log NC1 of the source and in transfer.

    "supported" where the less collapsed of the two transfers better, both beyond their 95 % t intervals over seeds;
    "contradicted" where it transfers worse; else, and with fewer than two seeds in common, "undecided".
    """
    claim, _, pair = text.partition(": ")
    ours, _, theirs = pair.partition(" - ")
    by_seed = [{cell["seed"]: cell for cell in points.get(name, [])} for name in (ours, theirs)]
    seeds = [s for s in sorted(by_seed[0].keys() & by_seed[1].keys()) if all(source_nc1(c[s]) > 0 for c in by_seed)]
    if len(seeds) < 2:
        return {"claim": claim, "pair": [ours, theirs], "log_nc1": None, "accuracy": None, "word": "undecided"}
    logs, accuracies = (
        [[of(cells[s]) for s in seeds] for cells in by_seed] for of in (lambda c: math.log(source_nc1(c)), mean_accuracy)
    )
    nc1, gain = intervals.paired(*logs), intervals.paired(*accuracies)
    sure = nc1.low * nc1.high > 0 and gain.low * gain.high > 0
    word = ("supported" if nc1.mean * gain.mean > 0 else "contradicted") if sure else "undecided"
    return {"claim": claim, "pair": [ours, theirs], "log_nc1": list(nc1), "accuracy": list(gain), "word": word}


def parse_contrast(text: str, names: Any) -> tuple[str, str, str]:
    """(claim, variant, variant) of `"C9: nt_xent - cross_entropy"`.

    Raises:
      UserError: not of that form, or a variant that is none.
    """
    claim, colon, pair = text.partition(": ")
    ours, minus, theirs = pair.partition(" - ")
    if not (colon and minus) or claim not in CLAIMS:
        raise UserError(f"contrasts: {text!r}: expected 'CLAIM: variant - variant', CLAIM one of {', '.join(CLAIMS)}")
    for name in (ours, theirs):
        if name not in names:
            raise UserError(f"contrasts: {text!r}: {name!r} is none of the variants: {', '.join(names)}")
    return claim, ours, theirs


def over_a_run(points: dict[int, list[Cell]]) -> dict[str, Any]:
    """C4 and C3 along one training run: transfer at its best epoch against the first and the last that were read.

    The best is that of the highest mean accuracy on the targets' validation images; differences are of test accuracy,
    paired by seed. C4, of which there is a word where the first is the initialisation, is "supported" where the best beats
    it beyond the 95 % interval and it is the less collapsed of the two, "contradicted" where it beats the best, or is the
    best and beats the last; C3 is "supported" where the best beats a later, more collapsed last one, "not supported" where
    the last is the best; else they are "undecided".

    Args:
      points: cells by epoch.
    """

    def nc1(cells: list[Cell]) -> float:
        return float(np.mean([source_nc1(c) for c in cells]))

    first, last = min(points), max(points)
    chosen = {e: np.mean([t["probe_val"] for c in cells for t in c["targets"].values()]) for e, cells in points.items()}
    best = max(chosen, key=lambda epoch: chosen[epoch])
    tests = {epoch: [mean_accuracy(c) for c in points[epoch]] for epoch in (first, best, last)}
    over_first, over_last = (intervals.paired(tests[best], tests[end]) for end in (first, last))
    start = intervals.paired(tests[last], tests[first])
    c4 = "supported" if over_first.low > 0 and nc1(points[first]) > nc1(points[best]) else "undecided"
    c4 = "contradicted" if over_first.high < 0 or (best == first and start.high < 0) else c4
    c3 = "not supported" if best == last else "undecided"
    c3 = "supported" if best != last and over_last.low > 0 and nc1(points[best]) > nc1(points[last]) else c3
    return {
        "best": best,
        "first": first,
        "last": last,
        "over_first": list(over_first),
        "over_last": list(over_last),
        "verdicts": {**({"C4": c4} if first == 0 else {}), "C3 within the run": c3},
    }


def summary(points: Points, targets: Sequence[str], *, claim: str, within: float, weakest: float) -> dict[str, Any]:
    """Correlations of every predictor, over all points and over the comparable ones, and the verdicts that follow.

    Args:
      points: cells by variant.
      targets: their names.
      claim: beside C3, what the sweep is about.
      within: of the best source accuracy, for a variant to be comparable.
      weakest: as for `evidence.variants.judged`.
    """
    near = comparable(points, within)
    main = over_points(near, targets, "nc1")["mean"]
    gain = target_over_source(points, targets)
    return {
        "comparable": list(near),
        "correlations": {name: over_points(points, targets, name) for name in PREDICTORS},
        "among_comparable": {name: over_points(near, targets, name)["mean"] for name in PREDICTORS},
        "given_source_accuracy": given_accuracy(points, targets),
        "target_over_source": gain,
        "verdicts": {
            **dict.fromkeys(dict.fromkeys(("C3", claim)), judged(main, weakest=weakest)),
            "C17": judged(gain, weakest=weakest),
        },
    }


def entry(cells: list[Cell]) -> dict[str, Any]:
    """A row of the table of variants: means over seeds with 95 % t intervals; of `METRICS`, geometric means.

    Accuracies, AUROCs and certificates are shares, their intervals cut to [0, 1].
    """

    def share(of: Callable[[Cell], float | None]) -> list[float] | None:
        return intervals.mean_if_known([of(c) for c in cells], intervals.share)

    def metrics(of: Callable[[Cell], dict[str, float | None]]) -> dict[str, list[float] | None]:
        return {m: intervals.mean_if_known([of(c)[m] for c in cells], intervals.ratio) for m in METRICS}

    def few_shot(of: Callable[[Cell], dict[str, dict[str, float | None]]]) -> dict[str, Any]:
        return {m: {k: share(lambda c, m=m, k=k: of(c)[m][k]) for k in ("accuracy", "certificate")} for m in of(cells[0])}

    out: dict[str, Any] = {
        "accuracy": {s: share(lambda c, s=s: c["source"]["accuracy"].get(s)) for s in ("train", "val", "test")},
        "source": {
            layer: {
                split: metrics(lambda c, layer=layer, split=split: c["source"]["layers"][layer][split])
                for split in ("train", "test")
            }
            for layer in ("penultimate", "readout")
        },
        "few_shot": few_shot(lambda c: c["source"]["few_shot"]),
        "robust_accuracy": share(lambda c: c["source"].get("robust_accuracy")),
        "mean_probe": share(mean_accuracy),
        "targets": {},
    }
    for target, some in cells[0]["targets"].items():

        def on(*path: str, target: str = target) -> Callable[[Cell], Any]:
            return lambda cell: functools.reduce(operator.getitem, path, cell["targets"][target])

        out["targets"][target] = {
            **{name: share(on(name)) for name in ("probe", "probe_val", "knn")},
            **metrics(on("train")),
            "few_shot": few_shot(on("few_shot")),
            "auroc": {
                layer: {s: share(on("auroc", layer, s)) for s in found}
                for layer, found in some.get("auroc", {}).items()
                if all(layer in one["targets"][target]["auroc"] for one in cells)  # of before: the last layers alone
            },
        }
    return out

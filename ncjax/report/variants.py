"""Tables of variants of pre-training, from what `transfer.source_claims.entry` says of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncjax.evidence import intervals
from ncjax.report.collect import Finished
from ncjax.report.tables import Cell, Row, Table, of_rows, spread, text

CERTIFIED = (
    "Certified: what accuracy the collapse of the training features guarantees such a classifier on training images, 0 "
    "where it guarantees nothing. It is no promise for the test images that the other columns are of."
)


def _interval(found: Sequence[float] | None, source: str) -> Cell:
    return text("–") if found is None else Cell(found[0], intervals.digits(found), source)


def on_source(run: Finished, stem: str) -> Table:
    """A row a variant: collapse and few-shot accuracy on what it was trained on."""
    caption = (
        "Variants on their source: means over seeds with 95 % t intervals, geometric ones of collapse metrics; at the "
        f"penultimate layer unless said. {CERTIFIED}"
    )
    return of_rows(f"variants_{stem}", caption, [_variant(run, name) for name in run.results["points"]])


def _variant(run: Finished, name: str) -> Row:
    e, attack, at = run.results["points"][name], run.config["attack"], f"{run.name}/results.json: points.{name}."
    train, test, readout = (
        {m: _interval(found, f"{at}source.{layer}.{split}.{m}") for m, found in e["source"][layer][split].items()}
        for layer, split in (("penultimate", "train"), ("penultimate", "test"), ("readout", "train"))
    )
    attacked = []
    if attack:
        attacked = [(f"test % under attack, {attack:g}/255", spread(e["robust_accuracy"], at + "robust_accuracy"))]
    return [
        ("variant", text(name)),
        ("source train %", spread(e["accuracy"]["train"], at + "accuracy.train")),
        ("source test %", spread(e["accuracy"]["test"], at + "accuracy.test")),
        ("NC1 train", train["nc1"]),
        ("NC1 test", test["nc1"]),
        ("NC1 / floor", train["nc1_over_floor"]),
        ("CDNV train", train["cdnv"]),
        ("directional CDNV train", train["directional_cdnv"]),
        ("numerical rank", train["numerical_rank"]),
        ("NC1 at the readout", readout["nc1"]),
        *_few_shot(e["few_shot"], run.config["shots"], at),
        *attacked,
    ]


def on_targets(run: Finished, stem: str) -> Table:
    """A row for every target and variant: how it transfers, and how far the target has collapsed."""
    caption = (
        "Variants on their targets: means over seeds with 95 % t intervals. Probe strength chosen on validation; episodes "
        f"are the same for all. {CERTIFIED} AUROC: the source's test images "
        "against the target's, at the penultimate layer."
    )
    r = run.results
    rows = [_on_target(run, target, name) for target in r["targets"] for name in r["points"]]
    return of_rows(f"targets_{stem}", caption, rows)


def _on_target(run: Finished, target: str, name: str) -> Row:
    x, at = run.results["points"][name]["targets"][target], f"{run.name}/results.json: points.{name}.targets.{target}."
    auroc = x["auroc"].get("penultimate", {})
    return [
        ("target, variant", text(f"{target}, {name}")),
        ("probe %", spread(x["probe"], at + "probe")),
        ("kNN %", spread(x["knn"], at + "knn")),
        *_few_shot(x["few_shot"], run.config["shots"], at),
        ("NC1 train", _interval(x["nc1"], at + "nc1")),
        ("CDNV train", _interval(x["cdnv"], at + "cdnv")),
        ("directional CDNV train", _interval(x["directional_cdnv"], at + "directional_cdnv")),
        ("AUROC, NECO", _interval(auroc.get("neco"), at + "auroc.penultimate.neco")),
        ("AUROC, NCI", _interval(auroc.get("nci"), at + "auroc.penultimate.nci")),
    ]


def _few_shot(found: dict[str, Any], shots: Sequence[int], at: str) -> Row:
    """What a nearest-class-mean classifier reaches, and what is certified of it."""
    return [
        *((f"nearest mean, {m} shot %", spread(found[f"{m}"]["accuracy"], f"{at}few_shot.{m}.accuracy")) for m in shots),
        *((f"certified, {m} shot %", _certified(found[f"{m}"], f"{at}few_shot.{m}")) for m in shots),
    ]


def _certified(found: dict[str, Any], source: str) -> Cell:
    bound = found["certificate"]
    if bound is None:
        return text("–")
    return spread([1 - x for x in (bound[0], bound[2], bound[1])], source + ".certificate")

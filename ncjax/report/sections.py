"""A section of the page: what a study says of its finished runs, in words, figures and tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ncjax.core.resolve import short_name
from ncjax.report.collect import Finished
from ncjax.report.figures import Drawn
from ncjax.report.tables import Table, in_percent, number, text, trusted, whole

TRUST = (
    "Intervals of NC1 and CDNV: other draws of as many examples of the same classes. Grey: at least half of "
    "what labels without signal would give, or no less than they would by chance (p > 0.05)."
)


class Section(NamedTuple):
    """A heading, what to know before reading, figures (caption, drawing) and tables; and sentences for the page's head."""

    title: str
    intro: str
    figures: list[tuple[str, Drawn]]
    tables: list[Table]
    verdict: tuple[str, ...] = ()  # what the numbers say, by rule and with intervals: what collapsed, transfers, to tune


TERMS = (
    ("NC1", "Spread of features within classes beside that of class means, (1/K) tr(Σ_W Σ_B⁺). 0: fully collapsed."),
    ("NC2", "Distance of the class means' Gram matrix from that of a simplex (equal norms, equal angles). 0: collapsed."),
    ("NC3", "Distance of the classifier's weights from the class means, both normalised. 0: aligned."),
    ("NC4", "Share of images on which the classifier says what the nearest class mean says. 1: collapsed."),
    ("CDNV", "Variance of two classes over twice the squared distance of their means, averaged over pairs. 0: collapsed."),
    (
        "floor",
        "What a metric would be if labels carried no signal, drawn from the same features; NC1 / floor near 1 is none.",
    ),
    ("probe", "Logistic regression on frozen features, its strength chosen on validation."),
    (
        "penultimate, readout",
        "The last feature of the backbone; what the classifier reads. With a skip connection they differ.",
    ),
    ("SCL FT", "Tunes one block, whose feature is joined to the penultimate one before a new classifier."),
    ("[95 %]", "An interval: of a share of test images Wilson's, over seeds Student's t, over backbones the jackknife's."),
    ("†", "An accuracy that is no better than to say the largest class of every image."),
)


def nc1_words(found: dict[str, Any]) -> str:
    """NC1 of a layer with its interval and how it stands to its floor."""
    over = found.get("nc1_over_floor")
    return trusted(found, "nc1").text + ("" if over is None else f" ({in_percent(over)} of its no-signal floor)")


def file_stem(kind: str, name: str) -> str:
    """A file's name for what is said of a data set or a run."""
    return f"{kind}_" + "".join(c if c.isalnum() else "_" for c in name.split("/")[-1])


def row(run: Finished, epoch: int, split: str, layer: str, metric: str) -> str:
    """Where a number stands in a run's rows, for the pointer that rests on it."""
    return f"{run.name}/metrics.jsonl: epoch {epoch}, split {split}, layer {layer}, metric {metric}"


def named(run: Finished) -> str:
    """A sweep's network and target in a few words."""
    return f"{run.config['init'].split('/')[-1]} on {run.config['data']}"


def short_names(run: Finished) -> dict[str, str]:
    """A run's networks, named as short as they stay distinct: by their files, or without the folders they share."""
    short = {b: Path(b.split(":")[-1]).stem for b in run.config["backbones"]}
    if len(set(short.values())) == len(short):
        return short
    parts = {b: b.split("/") for b in short}
    folders = zip(*(many[:-1] for many in parts.values()), strict=False)
    shared = len(list(itertools.takewhile(lambda same: len(set(same)) == 1, folders)))
    return {b: "/".join(many[shared:]) for b, many in parts.items()}


def own_metrics(runs: Sequence[Finished]) -> list[str]:
    """Collapse metrics that users added to any of the runs: they get columns of their own."""
    return list(dict.fromkeys(short_name(text) for run in runs for text in run.config.get("metrics", [])))


def provenance(runs: Sequence[Finished]) -> Section:
    """Data, seed, machine, commit and version of every run."""
    rows = []
    for run in runs:
        e, data = run.environment, run.results.get("data") or {}
        hashes = ", ".join(f"{k} {v['hash']}" for k, v in data.items())
        name = run.config.get("data") or ", ".join(run.config.get("targets", []))
        rows.append(
            [
                text(run.name),
                text(run.study),
                text(name or "–"),
                text(hashes or "–"),
                whole(run.config["seed"]) if "seed" in run.config else text("–"),
                number(run.seconds),
                text(f"{len(e['devices'])} × {e['devices'][0]}, {e['cpus']} CPUs"),
                text(e["commit"] or "–"),
                text(f"jax {e['versions'].get('jax', '?')}"),
            ]
        )
    noted = [[text(run.name), text(note)] for run in runs for note in run.results.get("notes", [])]
    columns = ["run", "study", "data", "content hash", "seed", "seconds", "machine", "commit", "version"]
    return Section(
        "Where the numbers come from",
        "Rest the pointer on a number to see the file and row it was read from. "
        "Each run's folder holds config.json, results.json and, where epochs or layers were measured, metrics.jsonl.",
        [],
        [Table("runs", "Every run on this page.", columns, rows)]
        + (
            [Table("notes", "What was left out of the data, and what else to know of them.", ["run", "note"], noted)]
            if noted
            else []
        ),
    )

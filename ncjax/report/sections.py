"""A section of the page: what a study says of its finished runs, in words, figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ncjax.core.resolve import short_name
from ncjax.report.collect import Finished
from ncjax.report.figures import Drawn
from ncjax.report.tables import Table, number, text, whole

TRUST = (
    "Intervals of NC1 and CDNV: other draws of as many examples of the same classes. Grey: at least half of "
    "what labels without signal would give, or no less than they would by chance (p > 0.05)."
)


class Section(NamedTuple):
    """A heading, what to know before reading, figures (caption, drawing) and tables."""

    title: str
    intro: str
    figures: list[tuple[str, Drawn]]
    tables: list[Table]


def file_stem(kind: str, name: str) -> str:
    """A file's name for what is said of a data set or a run."""
    return f"{kind}_" + "".join(c if c.isalnum() else "_" for c in name.split("/")[-1])


def row(run: Finished, epoch: int, split: str, layer: str, metric: str) -> str:
    """Where a number stands in a run's rows, for the pointer that rests on it."""
    return f"{run.name}/metrics.jsonl: epoch {epoch}, split {split}, layer {layer}, metric {metric}"


def named(run: Finished) -> str:
    """A sweep's network and target in a few words."""
    return f"{run.config['init'].split('/')[-1]} on {run.config['data']}"


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
    columns = ["run", "study", "data", "content hash", "seed", "seconds", "machine", "commit", "version"]
    return Section(
        "Where the numbers come from",
        "Rest the pointer on a number to see the file and row it was read from. "
        "Each run's folder holds config.json, results.json and metrics.jsonl.",
        [],
        [Table("runs", "Every run on this page.", columns, rows)],
    )

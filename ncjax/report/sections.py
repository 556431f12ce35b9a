"""What the page says of single runs: pre-training, layers, fine-tuning, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.tables import Cell, Table, number, percent, text, trusted, whole, wilson

TRUST = ("Intervals of NC1 and CDNV: other draws of as many examples of the same classes. Grey: at least half of what "
         "labels without signal would give.")


class Section(NamedTuple):
    """A heading, what to know before reading, figures (caption, drawing) and tables."""

    title: str
    intro: str
    figures: list[tuple[str, figures.Drawn]]
    tables: list[Table]


def file_stem(kind: str, name: str) -> str:
    """A file's name for what is said of a data set or a run."""
    return f"{kind}_" + "".join(c if c.isalnum() else "_" for c in name.split("/")[-1])


def _row(run: Finished, epoch: int, split: str, layer: str, metric: str) -> str:
    return f"{run.name}/metrics.jsonl: epoch {epoch}, split {split}, layer {layer}, metric {metric}"


def pretraining(runs: Sequence[Finished]) -> Section:
    """How collapsed the features became over the epochs."""
    rows = []
    for run in runs:
        r, epoch = run.results, run.config["epochs"]
        for split in ("train", "test"):
            found = r["final"].get(split, {})

            def cell(metric: str, layer: str, found=found, run=run, epoch=epoch, split=split) -> Cell:
                return number(found.get(layer, {}).get(metric), _row(run, epoch, split, layer, metric))

            count = r["data"][split]["size"]
            rows.append([text(f"{run.name}, {split}"),
                         percent(found["output"]["accuracy"], _row(run, epoch, split, "output", "accuracy"), count),
                         *(trusted(found.get(r["penultimate"], {}), m, _row(run, epoch, split, r["penultimate"], m))
                           for m in ("nc1", "cdnv")),
                         *(cell(m, r["penultimate"]) for m in ("nc1_over_floor", "nc2")),
                         *(cell(m, r["readout"]) for m in ("nc2_w", "nc3", "nc4"))])
    columns = ["run, split", "accuracy % [95 %]", "NC1 [95 %]", "CDNV [95 %]", "NC1 / floor", "NC2", "NC2 of W", "NC3",
               "NC4"]
    table = Table("pretraining", "The last epoch. NC1, NC2 and CDNV at the penultimate layer; NC2 of W, NC3 and NC4 where "
                  "the classifier reads (behind the projection head, if there is one). NC4 uses the training set's class "
                  "means for both splits. " + TRUST, columns, rows)
    drawn = [("Collapse and accuracy over epochs, train solid, test dashed; epoch 0 is the random initialisation.",
              figures.over_epochs(runs)),
             ("NC1 on the training set, every layer. \"projection\" is the output of the projection head.",
              figures.layers_over_epochs(runs))]
    intro = ("Smaller NC1, NC2, NC3 and CDNV mean more collapse; NC4 is the share of examples on which the classifier "
             "agrees with the nearest class mean, 1 when collapsed. NC1 depends on sample size, width and number of "
             "classes: compare it within a column, and read NC1 / floor, its share of what labels without signal give.")
    return Section("How collapsed did the features become?", intro, drawn, [table])


def layers(runs: Sequence[Finished]) -> list[Section]:
    """A section for every data set that was measured."""
    sections = []
    for data in dict.fromkeys(run.config["data"] for run in runs):
        here = [run for run in runs if run.config["data"] == data]
        rows = []
        for run in here:
            count = run.results["data"]["test"]["size"]
            for layer, entry in run.results["layers"].items():
                def source(split: str, metric: str, run=run, layer=layer) -> str:
                    return _row(run, 0, split, layer, metric)

                probe = entry.get("probe", {})
                rows.append([text(f"{run.name}, {layer}"), whole(entry["dim"]),
                             trusted(entry["train"], "nc1", source("train", "nc1")),
                             number(entry["train"]["nc1_over_floor"], source("train", "nc1_over_floor")),
                             trusted(entry["test"], "nc1", source("test", "nc1")),
                             number(entry["test"].get("nc1_about"), source("test", "nc1_about")),
                             trusted(entry["train"], "cdnv", source("train", "cdnv")),
                             percent(probe.get("train"), source("train", "probe_accuracy")),
                             percent(probe.get("test"), source("test", "probe_accuracy"), count),
                             text(", ".join(entry["train"].get("flags", [])) or "–")])
        columns = ["run, layer", "D", "NC1 train [95 %]", "NC1 / floor", "NC1 test [95 %]", "NC1 test about train",
                   "CDNV train [95 %]", "probe train %", "probe test % [95 %]", "flags, train"]
        sizes = ", ".join(f"{k} {v['size']}" for k, v in here[0].results["data"].items())
        stem = file_stem("layers", data)
        table = Table(stem, f"Every layer on {data} ({sizes}). The probe is multinomial logistic regression, its "
                      "regularisation chosen on validation. \"About train\": test features about the training "
                      "set's class means. " + TRUST, columns, rows)
        drawn = [("Collapse beside what a linear probe reads, layer by layer.", figures.by_layer(here, stem))]
        drawn += [(f"{run.name}: how the nearest class mean errs, and how the class means lie.", figures.confusion(run))
                  for run in here[:1] if "class_means" in run.results]
        sections.append(Section(f"Layer by layer on {data}", "", drawn, [table]))
    return sections


def tuning(runs: Sequence[Finished]) -> list[Section]:
    """A section for every data set that was tuned on."""
    sections = []
    for data in dict.fromkeys(run.config["data"] for run in runs):
        here = [run for run in runs if run.config["data"] == data]
        rows, intervals = [], []
        for run in here:
            r, count = run.results, run.results["data"]["test"]["size"]
            file = f"{run.name}/results.json: "
            intervals.append(wilson(r["accuracy"]["test"], count))
            layer = "–" if r["tuned_blocks"] == ["head"] else (
                "all" if r["method"].endswith("full_ft") else r["layer"])
            rows.append([text(run.name), text(layer), whole(r["tuned"], file + "tuned"),
                         percent(r["share"], file + "share"), whole(r["optimizer_bytes"], file + "optimizer_bytes"),
                         number(r["flops_per_step"], file + "flops_per_step"),
                         whole(r["best_epoch"], file + "best_epoch"),
                         percent(r["accuracy"].get("val"), file + "accuracy.val"),
                         percent(r["accuracy"]["test"], file + "accuracy.test", count),
                         percent(r["accuracy"]["train"], file + "accuracy.train"),
                         number(r["nc1"]["train"], file + "nc1.train"), number(r["nc1"]["test"], file + "nc1.test")])
        first = here[0]
        columns = ["run", "layer", "tuned", "tuned %", "optimiser bytes", "FLOPs a step", "best epoch", "val %",
                   "test % [95 %]", "train %", "NC1 train", "NC1 test"]
        sizes = ", ".join(f"{k} {v['size']}" for k, v in first.results["data"].items())
        stem = file_stem("tuning", data)
        shared = "".join(f", {key} {first.config[key]}" for key in ("n_per_class", "batch_size", "epochs", "lr", "seed")
                         if len({run.config[key] for run in here}) == 1)
        table = Table(stem, f"Fine-tuning on {data} ({sizes}){shared}. The epoch is chosen on validation. "
                      "NC1 at the penultimate layer. layer_ft_scaled is the control for the skip: layer FT whose "
                      "classifier reads twice the penultimate feature.", columns, rows)
        intro = ("Intervals cover the choice of test images, not of seeds: with one seed a method, overlapping intervals "
                 "rank nothing. A low NC1 on the training set may only say that the set was fitted; NC1 test stands "
                 "beside it.")
        drawn = [("Test accuracy with 95 % Wilson intervals over the share of parameters tuned. Methods that tune the same "
                  "share are drawn slightly apart.", figures.accuracy_over_share(here, intervals, stem))]
        sections.append(Section(f"What does tuning gain on {data}?", intro, drawn, [table]))
    return sections


def provenance(runs: Sequence[Finished]) -> Section:
    """Data, seed, machine, commit and version of every run."""
    rows = []
    for run in runs:
        e = run.environment
        hashes = ", ".join(f"{k} {v['hash']}" for k, v in run.results["data"].items())
        data = run.config.get("data") or ", ".join(run.config["targets"])
        rows.append([text(run.name), text(run.study), text(data), text(hashes),
                     whole(run.config["seed"]) if "seed" in run.config else text("–"), number(run.seconds),
                     text(f"{len(e['devices'])} × {e['devices'][0]}, {e['cpus']} CPUs"),
                     text(e["commit"] or "–"), text(f"jax {e['versions'].get('jax', '?')}")])
    columns = ["run", "study", "data", "content hash", "seed", "seconds", "machine", "commit", "version"]
    return Section("Where the numbers come from", "Rest the pointer on a number to see the file and row it was read from. "
                   "Each run's folder holds config.json, results.json and metrics.jsonl.", [],
                   [Table("runs", "Every run on this page.", columns, rows)])

"""Every layer of a network on a data set: its collapse, and what a linear probe reads from it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncjax import nc
from ncjax.core.mesh import make
from ncjax.core.resolve import pick
from ncjax.core.types import Model, PyTree
from ncjax.data import Dataset, source
from ncjax.features import passes
from ncjax.features.resume import Parts, kept
from ncjax.losses import cross_entropy
from ncjax.models.sequential import classifier_arrays
from ncjax.networks import card as cards
from ncjax.runs.run import Run
from ncjax.transfer import probe

KEEP_BYTES = 1 << 31  # of features on the host, beyond which splits run through the network a second time
CONFUSION_CLASSES = 100  # larger confusion matrices are not written


class Measured(NamedTuple):
    """What `extract` saw, by split; reports, by split and layer, of train and test."""

    seen: dict[str, passes.Evaluation]
    reports: dict[str, dict[str, nc.Report]]


def extract(model: Model, variables: PyTree, dataset: Dataset, mesh: Mesh, *, batch_size: int, probes: bool,
            classifier: tuple[Any, Any] | None, scatter: bool | None, run: Run | None = None,
            written: Callable[..., Parts | None] = lambda split, layers: None) -> Measured:
    """Passes over every split: all layers measured, and how fast is told to `run`; `written` is from `parts.kept`.

    All layers' features come to the host for probes (N * sum of widths float32), or where they take up to 2 GiB. Else only
    those of the last layers do, and every split runs through the network a second time.
    """
    dims = passes.widths(model, variables, dataset.image_shape)
    # The classifier's own width is that of its labels; a target with other classes is measured without it.
    sized = model._replace(num_classes=len(dataset.class_names))
    size = 4 * sum(dims.values()) * sum(len(split.labels) for split in dataset.splits.values())
    keep = model.layers if probes or size <= KEEP_BYTES else list(dict.fromkeys((model.penultimate, model.readout)))
    first = passes.make_pass(sized, cross_entropy(), dims, mesh, stats=model.layers, keep=keep, scatter=scatter)
    second = passes.make_second_pass(model, mesh)
    seen, reports = {}, {}
    for name, split in dataset.splits.items():  # train comes first
        batches = source(split, dataset, mesh, batch_size=batch_size)
        started, part = time.time(), written(name, keep)

        def tick(done: int, size: int, name: str = name, started: float = started, part: Parts | None = part) -> None:
            if run is not None:
                here = done - (part.found if part else 0)
                run.bar(name, done, size, f"{here / (time.time() - started):,.1f} images/s")

        seen[name] = first(variables, batches, tick, part)
        if run is not None:
            run.end_progress()
            earlier = part.found if part else 0
            rate = (len(split.labels) - earlier) / (time.time() - started)
            again = f"{earlier} of them before it stopped, " if earlier else ""
            run.say(f"  {name}: {len(split.labels)} images through {len(model.layers)} layers, {again}{rate:,.1f} images/s")
        if name in ("train", "test"):
            reports[name] = passes.collapse(seen[name], seen["train"], readout=model.readout, classifier=classifier,
                                              everywhere=True, again=functools.partial(second, variables, batches))
    return Measured(seen, reports)


def layers(seen: dict[str, passes.Evaluation], reports: dict[str, dict[str, nc.Report]], num_classes: int, *,
           probed: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{layer: its width, its collapse on train and test, and what a probe reads from it}, ready for JSON.

    Args:
      seen, reports: from `extract`.
      num_classes: of the data set.
      probed: layers at which a probe is fitted, its regularisation chosen on validation.
    """
    found: dict[str, dict[str, Any]] = {}
    for layer, report in reports["train"].items():
        entry = found[layer] = {"dim": report.dim, "train": report.to_dict(), "test": reports["test"][layer].to_dict()}
        if layer in probed:
            pairs = {name: (x.features[layer], x.labels) for name, x in seen.items()}
            fitted = probe.fit(pairs["train"], pairs.get("val"), num_classes)
            entry["probe"] = {"train": fitted.train_accuracy,
                              "test": probe.accuracy(fitted.weight, fitted.bias, *pairs["test"]),
                              "val": fitted.val_accuracy if "val" in pairs else None, "l2": fitted.l2}
    return found


def class_means(train: passes.Evaluation, test: passes.Evaluation, layer: str) -> dict[str, Any]:
    """Confusion of the nearest class mean on test, [true, decided], and cosines of the centred class means."""
    stats = train.stats[layer]
    count = stats.count.shape[0]
    decided = np.asarray(nc.nearest_class_mean(stats, jnp.asarray(test.features[layer])))
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (test.labels, decided), 1)
    cosines = np.round(np.asarray(nc.cosines(stats), np.float64), 4)
    return {"confusion": confusion.tolist(), "cosines": np.where(np.isnan(cosines), None, cosines).tolist()}


def describe(run: Run, *, init: str, data: str, options: dict[str, Any], batch_size: int, probes: bool,
             scatter: bool | None) -> dict[str, Any]:
    """Measures train and test at every layer, writes rows of epoch 0, prints a table.

    The classifier takes part (NC3, NC4, accuracy) only if the data set's classes are the ones it was trained on.

    Args:
      run: where it happens.
      init, data: the network and the data set.
      options: of `card.load` and `data.load`.
      batch_size: images a step.
      probes: fit a linear probe at every layer.
      scatter: as for `nc.empty`.
    """
    card, network, variables = cards.load(init, **pick(cards.load, options))
    dataset = cards.load_data_for(card, data, options)
    card = card.fed(dataset)
    run.announce(dataset, card.describe())
    own = cards.knows(card, data, dataset.class_names)
    if card.data == data and not own:
        run.say(f"accuracy, NC3 and NC4 are left out: the classifier's {len(card.class_names)} classes are not the "
                f"{len(dataset.class_names)} of {data}")
    classifier = classifier_arrays(variables["params"]) if own and network.linear else None
    with kept(run.workdir, run.say, variables, dataset, batch_size=batch_size, scatter=scatter) as written:
        seen, reports = extract(network, variables, dataset, make(), batch_size=batch_size, probes=probes,
                                classifier=classifier, scatter=scatter, run=run, written=written)
        found = layers(seen, reports, len(dataset.class_names), probed=network.layers if probes else ())
    run.forget_rows()
    for layer, entry in found.items():
        for split in ("train", "test"):
            run.rows(0, split, layer, reports[split][layer].scalars())
            if probes:
                run.rows(0, split, layer, {"probe_accuracy": entry["probe"][split]})
    run.table(f"layers on {dataset.name}", ["layer", "D", "NC1 train", "NC1 test", "CDNV train", "probe test"], [
        [layer, str(e["dim"]), *(f"{e[s][m]:.4g}" if e[s][m] is not None else "-" for s, m in (
            ("train", "nc1"), ("test", "nc1"), ("train", "cdnv"))),
         f"{100 * e['probe']['test']:.2f} %" if probes else "-"] for layer, e in found.items()])
    out = {"data": dataset.describe(), "network": card.describe(),
           "penultimate": network.penultimate, "readout": network.readout, "layers": found}
    if own:
        out["accuracy"] = {split: x.accuracy for split, x in seen.items()}
    if len(dataset.class_names) <= CONFUSION_CLASSES:
        out["class_means"] = class_means(seen["train"], seen["test"], network.penultimate)
        out["class_names"] = dataset.class_names
    return out

"""Every layer of a network on a data set: its collapse, and what a linear probe reads from it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ncjax import nc
from ncjax.core.mesh import make
from ncjax.core.resolve import short_name
from ncjax.core.roles import METRIC, resolve
from ncjax.core.types import Network
from ncjax.core.values import COUNT, Items
from ncjax.data import Data, Dataset, batches_of
from ncjax.features import passes
from ncjax.features.by_class import MATRIX, tally
from ncjax.features.resume import Parts, kept
from ncjax.losses import cross_entropy
from ncjax.models.sequential import classifier_arrays
from ncjax.networks.card import knows
from ncjax.networks.load import Init, load, load_data_for
from ncjax.runs.run import Run
from ncjax.transfer import probe
from ncjax.transfer.logistic import Show

ROWS = 8192  # features compared with class means at a time
KEEP_BYTES = 1 << 31  # of features on the host, beyond which splits run through the network a second time


class Measurement(NamedTuple):
    """How layers are measured.

    Args:
      batch_size: images a step.
      probes: fit a linear probe at every layer, its regularisation chosen on validation.
      scatter: whether NC1 comes from D x D moments, or from a second look in the directions of the class means. None for
        the first up to D = 4096, layer by layer.
      metrics: collapse metrics of one's own beside ncjax's, see `ncjax.nc.metric`.
    """

    batch_size: Annotated[int, COUNT] = 256
    probes: bool = False
    scatter: bool | None = None
    metrics: Annotated[list[str], METRIC, Items(distinct=True)] = []


class Measured(NamedTuple):
    """What `extract` saw, by split; reports, by split and layer, of train and test."""

    seen: dict[str, passes.Evaluation]
    reports: dict[str, dict[str, nc.Report]]


def extract(
    network: Network,
    dataset: Dataset,
    mesh: Mesh,
    options: Measurement,
    *,
    classifier: tuple[Any, Any] | None,
    run: Run | None = None,
    written: Callable[..., Parts | None] = lambda split, layers: None,
) -> Measured:
    """Passes over every split: all layers measured, and how fast is told to `run`; `written` is from `resume.kept`.

    All layers' features come to the host for probes (N * sum of widths float32), or where they take up to 2 GiB. Else only
    those of the last layers do, and every split runs through the network a second time.
    """
    model, variables = network.model, network.variables
    dims = network.fed(dataset).widths()
    # The classifier's own width is that of its labels; a target with other classes is measured without it.
    sized = model._replace(num_classes=len(dataset.class_names))
    size = 4 * sum(dims.values()) * sum(len(split.labels) for split in dataset.splits.values())
    keep = model.layers if options.probes or size <= KEEP_BYTES else list(dict.fromkeys((model.penultimate, model.readout)))
    first = passes.make_pass(sized, cross_entropy(), dims, mesh, stats=model.layers, keep=keep, scatter=options.scatter)
    second = passes.make_second_pass(model, mesh)
    seen, reports = {}, {}
    for name, split in dataset.splits.items():  # train comes first
        batches = batches_of(split, dataset, mesh, batch_size=options.batch_size)
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
            share = 100 * seen[name].waited
            waiting = f", waiting for images {share:.0f} % of the time" if share > 0.5 else ""
            size, depth = len(split.labels), len(model.layers)
            run.say(f"  {name}: {size} images through {depth} layers, {again}{rate:,.1f} images/s{waiting}")
        if name in ("train", "test"):
            reports[name] = passes.collapse(
                seen[name],
                seen["train"],
                readout=model.readout,
                classifier=classifier,
                everywhere=True,
                again=functools.partial(second, variables, batches),
                metrics=[resolve(name, METRIC) for name in options.metrics],
            )
    return Measured(seen, reports)


def layers(
    seen: dict[str, passes.Evaluation],
    reports: dict[str, dict[str, nc.Report]],
    num_classes: int,
    *,
    probed: Sequence[str],
    show: Show | None = None,
) -> dict[str, dict[str, Any]]:
    """{layer: its width, its collapse on train and test, and what a probe reads from it}, ready for JSON.

    Args:
      seen, reports: from `extract`.
      num_classes: of the data set.
      probed: layers at which a probe is fitted, its regularisation chosen on validation.
      show: told of the progress of a long fit, as `Run.bar` is.
    """
    found: dict[str, dict[str, Any]] = {}
    for layer, report in reports["train"].items():
        entry = found[layer] = {"dim": report.dim, "train": report.to_dict(), "test": reports["test"][layer].to_dict()}
        if layer in probed:
            pairs = {name: (x.features[layer], x.labels) for name, x in seen.items()}
            fitted = probe.fit(pairs["train"], pairs.get("val"), num_classes, show=show)
            entry["probe"] = {
                "train": fitted.train_accuracy,
                "test": probe.accuracy(fitted.weight, fitted.bias, *pairs["test"]),
                "val": fitted.val_accuracy if "val" in pairs else None,
                "l2": fitted.l2,
                "l2_at_end": fitted.at_end,
            }
    return found


def class_means(seen: dict[str, passes.Evaluation], reports: dict[str, dict[str, nc.Report]], layer: str) -> dict[str, Any]:
    """What the nearest of the training class means says of each class, and how these lie to one another.

    Returns:
      "by_class" of train and test, from `features.by_class.tally`, and, up to 100 classes, "cosines" [K, K] of the centred
      class means.
    """
    stats, out = seen["train"].stats[layer], {}
    count = stats.count.shape[0]
    for split in ("train", "test"):
        features = seen[split].features[layer]
        parts = [
            nc.nearest_class_mean(stats, jnp.asarray(features[at : at + ROWS])) for at in range(0, len(features), ROWS)
        ]
        decided = np.concatenate([np.asarray(part) for part in parts])
        out[split] = tally(seen[split].labels, decided, count, reports[split][layer].nc1_classes)
    found: dict[str, Any] = {"by_class": {"by": "nearest class mean", **out}}
    if count <= MATRIX:
        cosines = np.round(np.asarray(nc.cosines(stats), np.float64), 4)
        found["cosines"] = np.where(np.isnan(cosines), np.array(None), cosines).tolist()
    return found


def describe(run: Run, init: Init, data: Data, options: Measurement) -> dict[str, Any]:
    """Measures train and test at every layer, writes rows of epoch 0, prints a table.

    The classifier takes part (NC3, NC4, accuracy) only if the data set's classes are the ones it was trained on.

    Args:
      run: where it happens.
      init, data: the network and the data set.
      options: how.
    """
    network = load(init)
    dataset = load_data_for(network.card, data)
    model, card = network.model, network.card.fed(dataset)
    run.announce(dataset, card.describe())
    own = knows(card, data.data, dataset.class_names)
    if card.data == data.data and not own:
        run.say(
            f"accuracy, NC3 and NC4 are left out: the classifier's {len(card.class_names)} classes are not the "
            f"{len(dataset.class_names)} of {data.data}"
        )
    classifier = classifier_arrays(network.variables["params"]) if own and model.linear else None
    key = {"batch_size": options.batch_size, "scatter": options.scatter}
    with kept(run.workdir, run.say, network.variables, dataset, **key) as written:
        seen, reports = extract(network, dataset, make(), options, classifier=classifier, run=run, written=written)
        found = layers(seen, reports, len(dataset.class_names), probed=model.layers if options.probes else (), show=run.bar)
    run.forget_rows()
    for layer, entry in found.items():
        for split in ("train", "test"):
            run.rows(0, "measure", split, layer, reports[split][layer].scalars())
            if options.probes:
                run.rows(0, "measure", split, layer, {"probe_accuracy": entry["probe"][split]})
    _show(run, dataset.name, found, options)
    out = {
        "data": dataset.describe(),
        "network": card.describe(),
        "penultimate": model.penultimate,
        "readout": model.readout,
        "layers": found,
    }
    if own:
        out["accuracy"] = {split: x.accuracy for split, x in seen.items()}
    return {**out, "class_names": dataset.class_names, **class_means(seen, reports, model.penultimate)}


def _show(run: Run, data: str, found: dict[str, dict[str, Any]], options: Measurement) -> None:
    extra = [short_name(name) for name in options.metrics]
    columns = ["layer", "D", "NC1 train", "NC1 test", "CDNV train", "probe test", *(f"{name} train" for name in extra)]
    shown = (("train", "nc1"), ("test", "nc1"), ("train", "cdnv"))
    run.table(
        f"layers on {data}",
        columns,
        [
            [
                layer,
                str(e["dim"]),
                *(f"{e[s][m]:.4g}" if e[s][m] is not None else "-" for s, m in shown),
                f"{100 * e['probe']['test']:.2f} %" if options.probes else "-",
                *(f"{e['train'][m]:.4g}" if e["train"][m] is not None else "-" for m in extra),
            ]
            for layer, e in found.items()
        ],
    )

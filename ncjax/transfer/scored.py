"""A network's features on a target, and what every score says of them before anything is tuned."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from ncjax import nc
from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.mesh import make
from ncjax.core.types import Network
from ncjax.core.values import NATURAL, between
from ncjax.data import Data, Dataset
from ncjax.features import passes, splits
from ncjax.features.resume import kept
from ncjax.models.sequential import classifier_arrays
from ncjax.networks.card import Card
from ncjax.networks.load import load_data_for
from ncjax.networks.weights import NO_CLASSES
from ncjax.runs.run import Run
from ncjax.scores.score import Score, applied
from ncjax.transfer import layerwise, probe


class Sizes(NamedTuple):
    """How much of a target is used.

    Args:
      train_images, val_images, test_images: at most, equally many of each class; 0 for all.
      largest: image side; networks trained on larger images are fed this one, uncropped. 0 for each network's own.
    """

    train_images: Annotated[int, NATURAL] = 1500
    val_images: Annotated[int, NATURAL] = 500
    test_images: Annotated[int, NATURAL] = 1000
    largest: Annotated[int, between(0, 16384)] = 0


def one_each(backbones: Sequence[str], **lists: Sequence[object]) -> None:
    """Refuses a list that is neither empty nor has an entry for each network.

    Raises:
      UserError: it is named.
    """
    for name, values in lists.items():
        if values and len(values) != len(backbones):
            raise UserError(f"{name} has {len(values)} entries for {len(backbones)} backbones: one each")


def data_of(card: Card, data: str, count: int, sizes: Sizes) -> Dataset:
    """The target of `count` classes in the size that the network takes, `largest` at most."""
    train_images, val_images, test_images, largest = sizes
    return load_data_for(
        card,
        Data(
            data,
            image_size=largest if largest and card.image_shape[0] > largest else None,
            max_test=test_images or None,
            n_per_class=max(2, train_images // count) if train_images else None,
            val_per_class=max(1, val_images // count) if val_images else None,
        ),
    )


def source_logits(network: Network, readout: np.ndarray) -> np.ndarray | None:
    """What the network's own classifier makes of its readout features [N, D]; None where it comes without one."""
    if network.card.class_names == NO_CLASSES or not network.model.linear:
        return None
    weight, bias = (np.asarray(x) for x in classifier_arrays(network.variables["params"]))
    return readout @ weight.T + bias


def inputs_of(
    network: Network,
    seen: dict[str, passes.Evaluation],
    report: nc.Report,
    *,
    num_classes: int,
    train_accuracy: float | None,
    val_accuracy: float | None,
    source_accuracy: float,
) -> dict[str, Any]:
    """What scores may ask for, of the penultimate layer.

    Args:
      network: whose.
      seen: by split, features of the penultimate layer and of what its classifier reads.
      report: collapse of the training features.
      num_classes: of the target.
      train_accuracy, val_accuracy: of a probe.
      source_accuracy: of the network on its own task; 0 where unknown.
    """
    model, last, train = network.model, network.model.penultimate, seen["train"]
    found: dict[str, Any] = {
        "features": train.features[last],
        "labels": train.labels,
        "num_classes": num_classes,
        "report": report,
        "source_logits": source_logits(network, train.features[model.readout]),
        "train_accuracy": train_accuracy,
        "val_accuracy": val_accuracy,
        "parameters": trees.count(trees.only(network.variables, model.backbone)["params"]),
        "width": train.features[last].shape[1],
        "source_accuracy": source_accuracy,
    }
    if "val" in seen:
        found |= {"val_features": seen["val"].features[last], "val_labels": seen["val"].labels}
    return found


def pair(
    run: Run, network: Network, dataset: Dataset, wanted: dict[str, Score], *, batch_size: int, source_accuracy: float
) -> dict[str, Any]:
    """Every score of a network for a target, the seconds it took, and the probe's accuracies.

    Args:
      run: told how it goes.
      network, dataset: from `networks.load.load` and `data_of`.
      wanted: scores.
      batch_size: images a step.
      source_accuracy: of the network on its own task; 0 where unknown.
    """
    model, count = network.model, len(dataset.class_names)
    started = time.perf_counter()
    layers = [model.penultimate, model.readout]
    seen = splits.pass_over(run, network, dataset, batch_size=batch_size, keep=layers, stats=[model.penultimate])
    seconds = {"extraction": time.perf_counter() - started}
    pairs = {name: (x.features[model.penultimate], x.labels) for name, x in seen.items()}
    started = time.perf_counter()
    fitted = probe.fit(pairs["train"], pairs.get("val"), count)
    seconds["probe"] = time.perf_counter() - started
    inputs = inputs_of(
        network,
        seen,
        passes.collapse(seen["train"], seen["train"])[model.penultimate],
        num_classes=count,
        train_accuracy=fitted.train_accuracy,
        val_accuracy=fitted.val_accuracy,
        source_accuracy=source_accuracy,
    )
    spreads: dict[str, float] = {}
    predictors, reasons = applied(wanted, inputs, seconds, spreads)
    return {
        "data": dataset.describe(),
        "network": network.card.fed(dataset).describe(),
        "image_size": dataset.image_shape[0],
        "probe": {
            "test": probe.accuracy(fitted.weight, fitted.bias, *pairs["test"]),
            "val": fitted.val_accuracy,
            "train": fitted.train_accuracy,
        },
        "predictors": predictors,
        "spreads": spreads,
        "reasons": reasons,
        "seconds": seconds,
    }


def spaced(layers: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` layers at equal distances, the last one among them; all of them for 0."""
    if not count or count >= len(layers):
        return layers
    at = np.unique(np.round(np.linspace(0, len(layers) - 1, count + 1)[1:]).astype(int))
    return tuple(layers[i] for i in at)


def to_probe(narrow: dict[str, bool], count: int) -> tuple[str, ...]:
    """`count` layers at equal distances among those wide enough for NC1 to compare, and among others where they are few."""
    wide = spaced(tuple(b for b, is_narrow in narrow.items() if not is_narrow), count)
    others = tuple(b for b, is_narrow in narrow.items() if is_narrow)
    more = spaced(others, max(count - len(wide), 0)) if not count or count > len(wide) else ()
    return tuple(b for b in narrow if b in wide or b in more)


def pair_by_layer(
    run: Run,
    network: Network,
    dataset: Dataset,
    wanted: dict[str, Score],
    *,
    batch_size: int,
    probe_layers: int,
    source_accuracy: float = 0.0,
) -> dict[str, Any]:
    """One backbone on one target: every layer's collapse, probes at some, scores at the last.

    Args:
      run: told how fast it goes.
      network, dataset: the network and the target.
      wanted: the scores.
      batch_size: images a step.
      probe_layers: layers with a probe, at equal distances, those at least as wide as classes - 1 first; 0 for all.
      source_accuracy: of the network on its own task; 0 where unknown.
    """
    model, count, last = network.model, len(dataset.class_names), network.model.penultimate
    with kept(run.workdir, run.say, network.variables, dataset, batch_size=batch_size) as written:
        options = layerwise.Measurement(batch_size=batch_size, probes=True)
        seen, reports = layerwise.extract(network, dataset, make(), options, classifier=None, run=run, written=written)
        narrow = {b: b != last and "narrow" in reports["train"][b].flags for b in model.backbone}
        found = layerwise.layers(seen, reports, count, probed=to_probe(narrow, probe_layers))
        entry = found[last]
        inputs = inputs_of(
            network,
            seen,
            reports["train"][last],
            num_classes=count,
            train_accuracy=entry["probe"]["train"],
            val_accuracy=entry["probe"]["val"],
            source_accuracy=source_accuracy,
        )
        predictors, reasons = applied(wanted, inputs)
        return {
            "data": dataset.describe(),
            "network": network.card.fed(dataset).describe(),
            "image_size": dataset.image_shape[0],
            "penultimate": last,
            "layers": found,
            "test_accuracy": entry["probe"]["test"],
            "predictors": predictors,
            "reasons": reasons,
        }

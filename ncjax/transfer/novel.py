"""A network on classes that nothing was fitted to: collapse of their features, and few-shot episodes of them."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ncjax import nc
from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.types import Network
from ncjax.core.values import COUNT, NATURAL, SEED, Items, OneOf, between
from ncjax.data import Data, Dataset
from ncjax.data.splits import select
from ncjax.evidence import intervals
from ncjax.features import splits
from ncjax.networks.card import Card
from ncjax.networks.load import load_data_for
from ncjax.runs.run import Run
from ncjax.scores.score import Score, applied
from ncjax.transfer import episodes
from ncjax.transfer.episodes import CLASSIFIERS, Episodes

Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # features [N, D] and labels [N] of "novel" and "val"


class Protocol(NamedTuple):
    """Classes, images and episodes.

    Args:
      novel_classes, val_classes: of each target, by a seeded split; strengths are chosen on the latter, the rest is the
        base.
      class_seed: of that split, and of the episodes.
      pool: images at most of each novel and validation class; of the training split, then of test.
      base_pool: of each base class, about whose mean features are centred.
      ways: classes of an episode; 0 for all novel ones.
      shots: examples of each to learn from.
      queries: examples of each to be tried on.
      episodes: that many for every pair of ways and shots.
      val_episodes: of validation classes, by which strengths are chosen.
      classifiers: which.
      largest: image side at most; 0 for each network's own.
      batch_size: images a step.
    """

    novel_classes: Annotated[int, between(2, 10000)] = 20
    val_classes: Annotated[int, between(2, 10000)] = 16
    class_seed: Annotated[int, SEED] = 0
    pool: Annotated[int, COUNT] = 60
    base_pool: Annotated[int, COUNT] = 10
    ways: Annotated[list[int], NATURAL, Items(least=1, distinct=True)] = [5, 0]
    shots: Annotated[list[int], COUNT, Items(least=1, distinct=True)] = [1, 5]
    queries: Annotated[int, COUNT] = 15
    episodes: Annotated[int, COUNT] = 600
    val_episodes: Annotated[int, COUNT] = 100
    classifiers: Annotated[list[str], OneOf(*CLASSIFIERS), Items(least=1, distinct=True)] = list(CLASSIFIERS)
    largest: Annotated[int, between(0, 16384)] = 0
    batch_size: Annotated[int, COUNT] = 64

    def settings(self) -> dict[str, tuple[int, int]]:
        """{"5-way 1-shot": (ways, shots)}."""
        ways = [w or self.novel_classes for w in self.ways]
        return {f"{w}-way {m}-shot": (w, m) for w in dict.fromkeys(ways) for m in self.shots}

    def check(self) -> None:
        """Refuses episodes of one class, or of more classes than there are."""
        for w in self.ways:
            if w == 1 or w > self.novel_classes:
                raise UserError(f"ways={w}: expected 2 to novel_classes={self.novel_classes}, or 0 for all of them")


def data_of(card: Card, data: str, protocol: Protocol) -> tuple[Dataset, dict[str, list[int]]]:
    """(the images that the protocol needs of a target, in the size that a network takes; its classes by part).

    Raises:
      UserError: too few classes, or a class of too few images for the episodes.
    """
    largest = protocol.largest
    dataset = load_data_for(
        card,
        Data(
            data,
            image_size=largest if largest and card.image_shape[0] > largest else None,
            val_fraction=0.0,
            n_per_class=protocol.pool,
        ),
    )
    count = len(dataset.class_names)
    try:
        parts = episodes.split_classes(
            count, novel=protocol.novel_classes, val=protocol.val_classes, seed=protocol.class_seed
        )
    except UserError as e:
        raise UserError(f"{data}: {e}") from None
    limit = np.full(count, protocol.pool)
    limit[parts["base"]] = protocol.base_pool
    splits = {}
    for name in ("train", "test"):
        labels = dataset.splits[name].labels
        rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[: limit[k]] for k in range(count)]))
        limit = limit - np.bincount(labels[rows], minlength=count)
        if len(rows):
            splits[name] = select(dataset.splits[name], rows)
    held = np.sum([np.bincount(split.labels, minlength=count) for split in splits.values()], axis=0)
    needed = max(protocol.shots) + protocol.queries
    for k in (*parts["novel"], *parts["val"]):
        if held[k] < needed:
            raise UserError(
                f"{data}: {held[k]} images of {dataset.class_names[k]}, and an episode takes {needed} of a class "
                f"(shots={max(protocol.shots)}, queries={protocol.queries}, of pool={protocol.pool})"
            )
    return dataset._replace(splits=splits), parts


def draw(labels: np.ndarray, count: int, protocol: Protocol, setting: tuple[int, int], number: int) -> Episodes:
    """Episodes of a setting, of at most as many classes as there are."""
    ways, shots = setting
    return episodes.draw(
        labels,
        count,
        ways=min(ways, count),
        shots=shots,
        queries=protocol.queries,
        count=number,
        seed=protocol.class_seed,
    )


def features_of(
    run: Run, network: Network, dataset: Dataset, classes: dict[str, list[int]], protocol: Protocol
) -> tuple[Parts, np.ndarray]:
    """Penultimate features of novel and of validation classes, labels renumbered; and the base classes' mean [D]."""
    last = network.model.penultimate
    seen = splits.pass_over(run, network, dataset, batch_size=protocol.batch_size, keep=[last]).values()
    features, labels = np.concatenate([x.features[last] for x in seen]), np.concatenate([x.labels for x in seen])
    parts = {}
    for name in ("novel", "val"):
        new = np.full(len(dataset.class_names), -1)
        new[classes[name]] = np.arange(len(classes[name]))
        rows = new[labels] >= 0
        parts[name] = features[rows], new[labels[rows]].astype(np.int32)
    return parts, features[np.isin(labels, classes["base"])].mean(0)


def tried(parts: Parts, centre: np.ndarray, protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Every setting: each classifier's accuracy with a 95 % interval over episodes, its strength, and the certificate.

    Returns:
      {setting: {"accuracy": {classifier: (mean, low, high)}, "strength": {classifier: value}, "certificate": bound of the
      nearest class means' expected error, None beyond 256 classes; "episodes": their digest}}.
    """
    held = {
        name: {False: jnp.asarray(x), True: jnp.asarray(episodes.normalised(x, centre))} for name, (x, _) in parts.items()
    }
    count = protocol.novel_classes
    stats = nc.collect(*parts["novel"], num_classes=count)
    look = nc.look_at(stats, *parts["novel"])
    out = {}
    for said, setting in protocol.settings().items():
        mine = draw(parts["novel"][1], count, protocol, setting, protocol.episodes)
        others = draw(parts["val"][1], protocol.val_classes, protocol, setting, protocol.val_episodes)

        def each(part: str, drawn: Episodes, name: str, strength: float) -> np.ndarray:
            x = held[part][CLASSIFIERS[name].normalised]
            found = episodes.accuracies(x, drawn.support, drawn.query, jnp.float32(strength), name=name)
            return np.asarray(found, np.float64)

        accuracy, strength = {}, {}
        for name in protocol.classifiers:
            options = CLASSIFIERS[name].strengths
            on_val = [each("val", others, name, s).mean() if len(options) > 1 else 0.0 for s in options]
            strength[name] = options[int(np.argmax(on_val))]
            accuracy[name] = list(intervals.share(each("novel", mine, name, strength[name])))
        bound = nc.few_shot_certificate(stats, look, shots=setting[1], ways=setting[0]) if look.toward.size else None
        out[said] = {
            "accuracy": accuracy,
            "strength": strength,
            "certificate": None if bound is None else float(bound),
            "episodes": mine.digest(),
        }
    return out


def pair(
    run: Run,
    network: Network,
    dataset: Dataset,
    classes: dict[str, list[int]],
    wanted: dict[str, Score],
    protocol: Protocol,
    source_accuracy: float,
) -> dict[str, Any]:
    """One network on one target's novel classes: collapse, scores, and every setting's accuracies.

    Args:
      run: where it happens.
      network, dataset, classes: from `data_of`.
      wanted: scores.
      protocol: classes, images and episodes.
      source_accuracy: of the network on its own task; 0 where unknown.
    """
    parts, centre = features_of(run, network, dataset, classes, protocol)
    features, labels = parts["novel"]
    report = nc.measure(features, labels, num_classes=protocol.novel_classes)
    inputs = {
        "features": features,
        "labels": labels,
        "num_classes": protocol.novel_classes,
        "report": report,
        "parameters": trees.count(trees.only(network.variables, network.model.backbone)["params"]),
        "width": features.shape[1],
        "source_accuracy": source_accuracy,
    }
    predictors, reasons = applied(wanted, inputs)
    return {
        "network": network.card.fed(dataset).describe(),
        "image_size": dataset.image_shape[0],
        "novel": report.to_dict(),
        "predictors": predictors,
        "reasons": reasons,
        "settings": tried(parts, centre, protocol),
    }

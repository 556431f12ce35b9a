"""What a pre-trained network is worth, without touching it: collapse on its source, and what targets read of it."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from sklearn.neighbors import KNeighborsClassifier

from ncjax import nc
from ncjax.core import mesh as meshes
from ncjax.core import programs
from ncjax.core.errors import UserError
from ncjax.core.types import Batch, Model, Network, PyTree, widths
from ncjax.core.values import COUNT, NATURAL, Items, Range
from ncjax.data import Data, Dataset, batches_of
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.losses.attacks import pgd
from ncjax.models.sequential import classifier_arrays
from ncjax.nc.certificate import few_shot_certificate
from ncjax.nc.outside import auroc, nci, neco
from ncjax.networks.load import load_data_for
from ncjax.transfer import probe
from ncjax.transfer.episodes import episodes, nearest_mean_accuracies

COLLAPSE = ("nc1", "cdnv", "directional_cdnv")  # with floor and interval
RANKS = ("numerical_rank", "nc2", "nc4")
LENGTH = 0.1  # NCI's ||h||_1 counts this much where it is as long as that of a training feature


class Reading(NamedTuple):
    """What is read of a network.

    Args:
      target_per_class, target_val_per_class: training and validation images per class of each target; 0 for all.
      target_test: test images of each target at most; 0 for all.
      shots: images per class of the few-shot episodes.
      episodes: that many for each.
      attack: radius in pixels of an attack on the source's test images, of which accuracy is told; 0 for none.
      attack_steps: its gradients.
      read_batch: images a step.
    """

    target_per_class: Annotated[int, NATURAL] = 100
    target_val_per_class: Annotated[int, NATURAL] = 50
    target_test: Annotated[int, NATURAL] = 1000
    shots: Annotated[list[int], COUNT, Items(distinct=True)] = [1, 5]
    episodes: Annotated[int, COUNT] = 20
    attack: Annotated[float, Range("from 0 to 255, in pixels", 0, 255)] = 0.0
    attack_steps: Annotated[int, COUNT] = 10
    read_batch: Annotated[int, COUNT] = 256


def check_shots(options: Reading, datasets: dict[str, Dataset]) -> None:
    """Refuses episodes for which a class has too few training images.

    Raises:
      UserError: the data set and the class are named.
    """
    most = max(options.shots, default=0)
    for name, dataset in datasets.items():
        counts = np.bincount(dataset.splits["train"].labels, minlength=len(dataset.class_names))
        if counts.min() < most:
            fewest = dataset.class_names[counts.argmin()]
            raise UserError(f"shots={options.shots}: {name} has {counts.min()} training images of {fewest}")


def target_of(card: Any, data: str, options: Reading) -> Dataset:
    """A target in the size and channels that a network takes."""
    return load_data_for(
        card,
        Data(
            data,
            n_per_class=options.target_per_class or None,
            val_per_class=options.target_val_per_class or None,
            max_test=options.target_test or None,
        ),
    )


class Reader:
    """Reads networks of one architecture: its programs are compiled once for all of them.

    Args:
      model: the architecture, with the source's classes.
      variables: of one such network, for their shapes.
      image_shape: of the images it takes.
      mesh, options: where, and how much.
    """

    def __init__(self, model: Model, variables: PyTree, image_shape: tuple[int, ...], mesh: Mesh, options: Reading):
        self.model, self.mesh, self.options = model, mesh, options
        self.layers = list(dict.fromkeys((model.penultimate, model.readout)))
        self.blocks = list(dict.fromkeys((*model.backbone, model.readout)))
        self.dims = widths(model, variables, image_shape)
        self._passes: dict[tuple[int, tuple[str, ...], tuple[str, ...]], Any] = {}
        self._attacked = meshes.compile_step(self._attack, mesh, jit=programs.jit)

    def _seen(
        self, variables: PyTree, dataset: Dataset, stats: list[str], whole: tuple[str, ...] = ()
    ) -> dict[str, passes.Evaluation]:
        """Every split passed through the network: features of its last layers, of every block for `whole` splits."""
        return {
            name: self._pass(len(dataset.class_names), stats, self.blocks if name in whole else self.layers)(
                variables, self._batches(dataset, name)
            )
            for name in dataset.splits
        }

    def _pass(self, count: int, stats: list[str], keep: list[str]) -> Any:
        key = count, tuple(stats), tuple(keep)
        if key not in self._passes:
            sized = self.model._replace(num_classes=count)
            self._passes[key] = passes.make_pass(sized, cross_entropy(), self.dims, self.mesh, stats=stats, keep=keep)
        return self._passes[key]

    def _batches(self, dataset: Dataset, split: str) -> Any:
        return batches_of(dataset.splits[split], dataset, self.mesh, batch_size=self.options.read_batch)

    def read(self, network: Network, source: Dataset, targets: dict[str, Dataset]) -> dict[str, Any]:
        """{"source": accuracy, few-shot, collapse by layer and split, robust accuracy; "targets": {name: see `_target`}}.

        Args:
          network: of this architecture.
          source: what it was trained on.
          targets: by name, in the size that it takes.
        """
        variables = network.variables
        elsewhere = any(target.name != source.name for target in targets.values())
        stats, whole = (self.blocks, ("train", "test")) if elsewhere else (self.layers, ())
        seen = self._seen(variables, source, stats, whole)
        classifier = classifier_arrays(variables["params"])
        reports = {
            split: passes.collapse(seen[split], seen["train"], readout=self.model.readout, classifier=classifier)
            for split in ("train", "test")
        }
        last, count = self.model.penultimate, len(source.class_names)
        found: dict[str, Any] = {
            "few_shot": self._few_shot(seen, last, count),
            "accuracy": {split: x.accuracy for split, x in seen.items()},
            "layers": {
                name: {split: _numbers(reports[split][layer], seen[split], layer) for split in reports}
                for name, layer in (("penultimate", self.model.penultimate), ("readout", self.model.readout))
            },
        }
        if self.options.attack:
            found["robust_accuracy"] = self._robust_accuracy(variables, source)
        return {
            "source": found,
            "targets": {name: self._target(variables, target, source, seen) for name, target in targets.items()},
        }

    def _target(
        self, variables: PyTree, target: Dataset, source: Dataset, known: dict[str, passes.Evaluation]
    ) -> dict[str, Any]:
        """Collapse on the target's training images, probe, neighbours, few-shot episodes, and what lies outside."""
        count, last = len(target.class_names), self.model.penultimate
        elsewhere = target.name != source.name
        seen = self._seen(variables, target, [last], ("test",) if elsewhere else ())
        report = passes.collapse(seen["train"], seen["train"])[last]
        pairs = {split: (x.features[last], x.labels) for split, x in seen.items()}
        fitted = probe.fit(pairs["train"], pairs.get("val"), count)
        near = KNeighborsClassifier(min(5, len(pairs["train"][1])), metric="cosine").fit(*pairs["train"])
        found = {
            "train": _numbers(report, seen["train"], last),
            "probe": probe.accuracy(fitted.weight, fitted.bias, *pairs["test"]),
            "probe_val": fitted.val_accuracy,
            "probe_train": fitted.train_accuracy,
            "l2": fitted.l2,
            "knn": float(near.score(*pairs["test"])),
            "few_shot": self._few_shot(seen, last, count),
        }
        if elsewhere:
            found["auroc"] = self._outside(variables, seen["test"], known)
        return found

    def _few_shot(self, seen: dict[str, passes.Evaluation], layer: str, count: int) -> dict[str, dict[str, float | None]]:
        """{shots: nearest class means over episodes of the training images, tried on test, and what is certified}."""
        train, test, out = seen["train"], seen["test"], {}
        stats, features = train.stats[layer], train.features[layer]
        look = nc.look_at(stats, features, train.labels)
        for shots in self.options.shots:
            rows = episodes(train.labels, count, shots, self.options.episodes, seed=0)
            each = np.asarray(nearest_mean_accuracies(features, rows, test.features[layer], test.labels))
            out[str(shots)] = {
                "accuracy": float(each.mean()),
                "spread": float(each.std(ddof=1)) if len(each) > 1 else 0.0,
                "certificate": float(few_shot_certificate(stats, look, shots=shots)) if look.toward.size else None,
            }
        return out

    def _outside(
        self, variables: PyTree, test: passes.Evaluation, known: dict[str, passes.Evaluation]
    ) -> dict[str, dict[str, float]]:
        """{layer: {score: AUROC}} of source against target test images: of every block, "penultimate", "readout"."""
        out: dict[str, dict[str, float]] = {}
        for name, layer in {**{block: block for block in self.model.backbone}, "readout": self.model.readout}.items():
            stats, inside = known["train"].stats[layer], known["test"].features[layer]
            classifier = classifier_arrays(variables["params"]) if name == "readout" else None
            alpha = LENGTH / max(float(np.abs(known["train"].features[layer]).sum(axis=1).mean()), 1e-30)
            scores = {
                "neco": lambda x, stats=stats: neco(stats, x),
                "nci": lambda x, stats=stats, c=classifier, a=alpha: nci(stats, x, c, alpha=a),
            }
            out[name] = {
                how: auroc(np.asarray(score(jnp.asarray(inside))), np.asarray(score(jnp.asarray(test.features[layer]))))
                for how, score in scores.items()
            }
        return {**out, "penultimate": out[self.model.penultimate]}

    def _attack(self, variables: PyTree, batch: Batch) -> jax.Array:
        """Images of a batch that the classifier decides rightly under attack."""

        def logits(images: jax.Array) -> jax.Array:
            return self.model.apply(variables, images)[0]["logits"]

        loss = cross_entropy().value
        images = pgd(
            lambda x: loss({"logits": logits(x)}, batch.label, batch.mask),
            batch,
            jax.random.key(0),
            epsilon=self.options.attack,
            steps=self.options.attack_steps,
        )
        return jnp.sum((jnp.argmax(logits(images), -1) == batch.label) * batch.mask)

    def _robust_accuracy(self, variables: PyTree, source: Dataset) -> float:
        batches = self._batches(source, "test")
        hits = [self._attacked(variables, batch) for batch in passes.evaluation_batches(batches)]
        return float(sum(float(x) for x in hits)) / batches.size


def _numbers(report: nc.Report, seen: passes.Evaluation, layer: str) -> dict[str, float | None]:
    """What of a report a sweep keeps, and the numerical rank, which the features themselves must tell."""
    found = {**report.scalars(), "numerical_rank": float(nc.numerical_rank(seen.features[layer], seen.labels))}
    names = [f"{m}{end}" for m in COLLAPSE for end in ("", "_low", "_high", "_over_floor", "_p")]
    return {name: found.get(name) for name in (*names, *RANKS)}

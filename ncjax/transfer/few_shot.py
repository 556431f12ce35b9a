"""A bench for short training runs by the hundred: one method, network and target; any seed, subset and learning rate.

A program is compiled once for a method and its block. Subsets of any size take the same number of steps of full batches,
frozen prefixes run once, and what a run needs beyond that (subset, seed, learning rate, weight decay) are its arguments.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ncjax.core import mesh as meshes
from ncjax.core.errors import UserError
from ncjax.core.types import Network
from ncjax.core.values import COUNT, PART, PIXELS
from ncjax.data import Data, Dataset
from ncjax.networks.load import Init, backbone_digest, load, load_data_for
from ncjax.runs.run import Run
from ncjax.transfer import grid_search, prefix, solved
from ncjax.transfer.program import Budget, Program
from ncjax.tuning.plans import Plan, Target, plan_of


class FewLabels(NamedTuple):
    """The target; subsets and seeds of it are the study's.

    Args:
      data: `embedded.NAME`, `npz:PATH`, `folder:PATH`, `tfds:NAME`, `hf:NAME`, or a reader of one's own.
      classes: class subset such as "0-4,7"; labels are renumbered from 0.
      val_fraction: share of each class's training images held out where the set has no validation split.
      image_size: side in pixels; None for the network's own.
      max_test: test images at most, as many of each class as there are; None keeps all.
      skip_bad: leave out (and count) images that do not decode instead of stopping.
    """

    data: str = "embedded.digits"
    classes: str | None = None
    val_fraction: Annotated[float, PART] = 0.1
    image_size: Annotated[int | None, PIXELS] = None
    max_test: Annotated[int | None, COUNT] = None
    skip_bad: bool = False


class Subsets:
    """Data sets by (shots, seed), and what identifies them; those of one number of shots are held at a time."""

    def __init__(self, network: Network, target: FewLabels):
        self.network, self.target = network, target
        self._held: dict[tuple[int, int], Dataset] = {}
        self._identities: dict[tuple[int, int], str] = {}

    def get(self, shots: int, seed: int) -> Dataset:
        """`shots` training images per class, and as many for validation at most (0: all of both)."""
        if (shots, seed) not in self._held:
            found = self._load(shots, seed)
            if any(others != shots for others, _ in self._held):
                self._held.clear()
            self._held[shots, seed] = found
        return self._held[shots, seed]

    def _load(self, shots: int, seed: int) -> Dataset:
        options = Data(**self.target._asdict(), split_seed=seed)
        if shots:
            options = options._replace(n_per_class=shots, val_per_class=shots)
        found = load_data_for(self.network.card, options)
        if "val" not in found.splits:
            raise UserError("every choice is made on validation: val_fraction must leave some")
        fewest = int(np.bincount(found.splits["train"].labels, minlength=len(found.class_names)).min())
        if fewest < shots:
            raise UserError(
                f"{shots} training images per class: {self.target.data} has {fewest} of one of its classes, with "
                "validation held out"
            )
        return found

    def identity(self, shots: int, seed: int) -> str:
        """Of the images themselves. Hashed once."""
        if (shots, seed) not in self._identities:
            self._identities[shots, seed] = self.get(shots, seed).identity()
        return self._identities[shots, seed]

    @property
    def any(self) -> Dataset:
        """One of those that are held."""
        return next(iter(self._held.values()))


class Activations:
    """What a frozen prefix leaves of the subsets, of one prefix at a time: together they might not fit."""

    def __init__(self, network: Network, subsets: Subsets, mesh: Mesh, run: Run, batch_size: int):
        self.network, self.subsets, self.mesh = network, subsets, mesh
        self.run, self.batch_size = run, batch_size
        self._start: str | None = None
        self._test: Dataset | None = None
        self._held: dict[tuple[int, int], Dataset] = {}

    def get(self, shots: int, seed: int, plan: Plan) -> Dataset:
        """A subset as a plan's program wants it: activations of its frozen prefix, or images."""
        dataset = self.subsets.get(shots, seed)
        if not plan.trains or plan.start == self.network.model.blocks[0]:
            return dataset
        if plan.start != self._start or self._test is None:
            self._start, self._held = plan.start, {}
            self._test = self._run_prefix(dataset, ("test",))
        if any(others != shots for others, _ in self._held):
            self._held.clear()
        if (shots, seed) not in self._held:
            self._held[shots, seed] = self._run_prefix(dataset, ("train", "val"))
        found, test = self._held[shots, seed], self._test
        return found._replace(
            splits={**found.splits, **test.splits}, resident_bytes=found.resident_bytes + test.resident_bytes
        )

    def _run_prefix(self, dataset: Dataset, names: tuple[str, ...]) -> Dataset:
        part = dataset._replace(splits={name: dataset.splits[name] for name in names})
        assert self._start is not None
        return prefix.build(
            self.network.model,
            self.network.variables,
            part,
            self.mesh,
            start=self._start,
            folder=self.run.workdir,
            batch_size=self.batch_size,
        ).dataset


class Bench:
    """One network and one target: subsets by (shots, seed), programs by (method, layer), results by cell.

    The seed of a cell draws its training and validation images (nested over shots), its classifier, and its order of
    batches: methods are paired. The test set is one for all.
    """

    def __init__(self, run: Run, init: Init, target: FewLabels, search: grid_search.Search, budget: Budget):
        self.run, self.options, self.budget = run, search, budget
        self.network, self.mesh = load(init), meshes.make()
        self.subsets = Subsets(self.network, target)
        self.activations = Activations(self.network, self.subsets, self.mesh, run, budget.batch_size)
        self._base = backbone_digest(self.network)
        self._programs: dict[tuple[str, str | None], Program] = {}

    def plan(self, method: str, layer: str | None, dataset: Dataset, seed: int) -> Plan:
        """A method with the classifier that this seed draws."""
        target = Target(len(dataset.class_names), jax.random.key(seed), layer or None)
        return plan_of(method, self.network, target)

    def program(self, method: str, layer: str | None, dataset: Dataset) -> Program:
        """Compiled at most once."""
        if (method, layer) not in self._programs:
            plan = self.plan(method, layer, dataset, 0)
            self._programs[method, layer] = Program(plan, self.budget, self.mesh, dataset.image_shape)
        return self._programs[method, layer]

    def cell(
        self, method: str, *, layer: str | None, shots: int, seed: int, lr: float, weight_decay: float
    ) -> dict[str, Any]:
        """One training run (or one solved classifier, for which learning rate and weight decay mean nothing).

        A run whose loss is not finite counts as validation accuracy 0: the search avoids it.
        "seconds" are those of training and solving; compiling, the kept prefix and the final look are apart.
        """
        dataset = self.subsets.get(shots, seed)
        plan = self.plan(method, layer, dataset, seed)
        trained = plan.trains or plan.classifier_init == "random"
        grid = {"lr": lr, "weight_decay": weight_decay} if trained else {}
        key = {"method": method, "layer": layer, "shots": shots, "seed": seed, **grid}

        def compute() -> dict[str, Any]:
            program, mine = self.program(method, layer, dataset), plan
            took: dict[str, Any] = {"seconds": 0.0}
            fit: dict[str, Any] = {"l2": None}
            if plan.classifier_init != "random":
                started = time.time()
                fitted = solved.classifier(
                    plan, dataset, self.mesh, batch_size=self.budget.batch_size, how=plan.classifier_init
                )
                mine = solved.with_classifier(plan, fitted)
                fit = {
                    "l2": fitted.l2,
                    "l2_at_end": fitted.at_end,
                    "gradient": fitted.gradient,
                    "solve_seconds": time.time() - started,
                }
            whole = self.activations.get(shots, seed, program.plan)
            variables = mine.variables
            if trained:
                variables, took = program.train(variables, whole, seed=seed, lr=lr, weight_decay=weight_decay, run=self.run)
            found = program.evaluate(variables, whole)
            if took.get("diverged"):
                found["val"] = 0.0
            tuned, total = plan.share()
            return {
                **key,
                **found,
                **fit,
                **took,
                "seconds": took["seconds"] + fit.get("solve_seconds", 0.0),
                "tuned": tuned,
                "total": total,
            }

        return self.run.once({**key, **self.identity(shots, seed)}, compute)

    def describe(self) -> dict[str, Any]:
        """The network and what it is fed, for the results."""
        return self.network.card.fed(self.subsets.any).describe()

    def identity(self, shots: int, seed: int) -> dict[str, str]:
        """What results depend on beside the config: the network and the images themselves."""
        return {"base": self._base, "images": self.subsets.identity(shots, seed)}

    def search(self, method: str, *, layer: str | None, shots: int) -> grid_search.Found:
        """The method's cell for every seed, and the learning rate and weight decay that they share."""
        return grid_search.search(
            lambda seed, lr, wd: self.cell(method, layer=layer, shots=shots, seed=seed, lr=lr, weight_decay=wd),
            self.options,
            largest=self.subsets.get(shots, 0).largest("train"),
        )

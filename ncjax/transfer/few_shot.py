"""A bench for short training runs by the hundred: one method, network and target; any seed, subset and learning rate.

A program is compiled once for a method and its block. Subsets of any size take the same number of steps of full batches,
frozen prefixes run once, and what a run needs beyond that (subset, seed, learning rate, weight decay) are its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ncjax import optim
from ncjax.core import memory, trees
from ncjax.core import mesh as meshes
from ncjax.core.errors import UserError
from ncjax.core.roles import DECAY, OPTIMIZER, SCHEDULE
from ncjax.core.types import Batch, Network, PyTree, widths
from ncjax.core.values import COUNT, NOT_NEGATIVE, PART, PIXELS
from ncjax.data import Data, Dataset, batches_of, repeated
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.models.sequential import classifier_arrays
from ncjax.networks import checkpoint
from ncjax.networks.load import Init, backbone_digest, load, load_data_for
from ncjax.runs.run import Run
from ncjax.training import cost, loop
from ncjax.transfer import grid_search, prefix, solved
from ncjax.tuning.plans import Plan, Target, plan_of


class Budget(NamedTuple):
    """What every method may spend on one training run.

    Args:
      steps: of full batches.
      rounds: equal parts, after each of which validation is looked at: the best part's end is kept.
      batch_size: images a step.
      warmup_rounds: linear warm-up, in rounds.
      optimizer, schedule, decay, clip: as for `optim.Optim`.
    """

    steps: Annotated[int, COUNT] = 200
    rounds: Annotated[int, COUNT] = 10
    batch_size: Annotated[int, COUNT] = 64
    warmup_rounds: Annotated[float, NOT_NEGATIVE] = 1.0
    optimizer: Annotated[str, OPTIMIZER] = "optim.sgd"
    schedule: Annotated[str, SCHEDULE] = "optim.cosine"
    decay: Annotated[str, DECAY] = "optim.everything"
    clip: Annotated[float, NOT_NEGATIVE] = 0.0

    def check(self) -> None:
        """Refuses rounds that are no equal parts, or a warm-up longer than the run."""
        if self.steps % self.rounds:
            raise UserError(f"steps={self.steps}, rounds={self.rounds}: rounds must divide steps")
        if self.warmup_rounds > self.rounds:
            raise UserError(f"warmup_rounds={self.warmup_rounds:g}: expected at most rounds={self.rounds}")


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


class _Silent:
    """A watcher that shows nothing, and stops when the run is asked to."""

    def __init__(self, run: Run):
        self.interrupted = run.interrupted

    def shows(self) -> bool:
        """No."""
        return False

    def progress(self, epoch: int, done: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Nothing."""


class Program:
    """A method compiled: trains and evaluates plans that differ from its own in their arrays only."""

    def __init__(self, plan: Plan, budget: Budget, mesh: Mesh, image_shape: tuple[int, ...]):
        budget.check()
        self.plan, self.budget, self.mesh = plan, budget, mesh
        self.model = prefix.tail(plan.model, plan.start) if plan.trains else plan.model
        options = optim.Optim(
            optimizer=budget.optimizer,
            schedule=budget.schedule,
            decay=budget.decay,
            clip=budget.clip,
            warmup_epochs=budget.warmup_rounds,
            lr=1.0,
            weight_decay=0.0,
        )
        self.tx, self.lr_at = optim.build(
            options, plan.mask, budget.steps // budget.rounds, budget.rounds, plan.factors, plan.anchored
        )
        ragged = budget.batch_size if meshes.round_up(budget.batch_size, mesh) != budget.batch_size else 0
        self._step = loop.make_step(self.model.apply, cross_entropy(), self.tx, plan.mask, plan.live, mesh, ragged=ragged)
        self._compiled: Any = None
        self.flops_per_step: float | None = None  # by XLA's cost analysis, once trained
        dims = widths(plan.model, plan.variables, image_shape)
        kept = list(dict.fromkeys((self.model.penultimate, self.model.readout)))
        self.plain = passes.make_pass(self.model, cross_entropy(), dims, mesh)
        self.measured = passes.make_pass(self.model, cross_entropy(), dims, mesh, stats=kept, keep=kept)

    def _batches(self, dataset: Dataset, split: str) -> Any:
        return batches_of(dataset.splits[split], dataset, self.mesh, batch_size=self.budget.batch_size)

    def _step_for(self, state: loop.State, fetch: Callable, batches: Any) -> Callable:
        """The compiled step; every subset feeds it batches of one shape."""
        if self._compiled is None:
            item = next(iter(batches.items(np.arange(batches.size) % batches.examples)))
            batch = fetch(state, batches.arrays, item)
            self._compiled = self._step.lower(state, batch).compile()
            self.flops_per_step = cost.flops(self._step, state, batch, self._compiled)
        return self._compiled

    def expected_flops(self, image_shape: tuple[int, ...]) -> float | None:
        """Of one step on what the frozen prefix leaves, by XLA's cost analysis, without compiling.

        Args:
          image_shape: of the images that enter the network.
        """
        if self.model is not self.plan.model:
            image_shape = prefix.carry_shape(self.plan.model, self.plan.variables, image_shape, self.plan.start)
        image = jax.ShapeDtypeStruct((self.budget.batch_size, *image_shape), np.float32)
        row = jax.ShapeDtypeStruct((self.budget.batch_size,), np.float32)
        batch = Batch(image=image, label=jax.ShapeDtypeStruct(row.shape, np.int32), mask=row)
        chosen, _ = trees.split(self.plan.variables["params"], self.plan.mask)
        none = np.zeros((), np.float32)
        state = loop.State(
            step=np.int32(0),
            variables=self.plan.variables,
            opt_state=jax.eval_shape(self.tx.init, chosen),
            key=jax.random.key_data(jax.random.key(0)),
            totals=loop.Totals(none, none, none),
            best=none,
            best_epoch=np.int32(0),
        )
        return cost.flops(self._step, state, batch)

    def train(
        self, variables: PyTree, dataset: Dataset, *, seed: int, lr: float, weight_decay: float, run: Run
    ) -> tuple[PyTree, dict[str, Any]]:
        """(variables of the best round, what it took and whether the loss stayed finite)."""
        budget, store, diverged = self.budget, checkpoint.Memory(), False
        batches = repeated(self._batches(dataset, "train"), budget.steps // budget.rounds, self.mesh)
        validation, curve = self._batches(dataset, "val"), []
        state = loop.init_state(variables, self.tx, self.plan.mask, jax.random.key(seed), self.mesh)
        opt_state = optim.with_hyperparameters(state.opt_state, lr=lr, weight_decay=weight_decay)
        state = meshes.place(state._replace(opt_state=opt_state), meshes.replicated(self.mesh))
        fetch = loop.make_fetch(batches, self.mesh)

        def on_round(state: loop.State, round_: int, seen: dict[str, float]) -> float:
            curve.append(self.plain(state.variables, validation).accuracy)
            return curve[-1]

        step = self._step_for(state, fetch, batches)
        started = time.time()
        try:
            with run.guarded(), memory.measured_peak() as peak:
                loop.fit(
                    state,
                    step_fn=step,
                    fetch=fetch,
                    source=batches,
                    epochs=budget.rounds,
                    seed=seed,
                    lr_at=lambda s: lr * float(np.asarray(self.lr_at(s))),
                    on_epoch=on_round,
                    store=store,
                    watch=_Silent(run),
                    mesh=self.mesh,
                )
        except loop.Diverged:
            diverged = True
        best = variables if store.best is None else store.best.variables
        return best, {
            "curve": curve,
            "best_round": len(curve) - int(np.argmax(curve[::-1]))
            if curve
            else 0,  # the latest of equals, as `loop.fit` keeps
            "diverged": diverged,
            "seconds": time.time() - started,
            "flops_per_step": self.flops_per_step,
            "peak_bytes": peak.rise,
        }

    def evaluate(self, variables: PyTree, dataset: Dataset) -> dict[str, float | None]:
        """Accuracy of every split; NC1 on train and test, of the penultimate layer and of what the classifier reads.

        They are one but for methods with a skip. None where it cannot be measured.
        """
        out: dict[str, float | None] = {"val": self.plain(variables, self._batches(dataset, "val")).accuracy}
        centres = None
        for split in ("train", "test"):
            seen = self.measured(variables, self._batches(dataset, split))
            centres = centres or seen
            out[split] = seen.accuracy
            try:
                reports = passes.collapse(
                    seen, centres, readout=self.model.readout, classifier=classifier_arrays(variables["params"])
                )
                found = {layer: report.to_dict() for layer, report in reports.items()}
            except UserError:  # features beyond float32, from a learning rate far too high
                found = {}
            for name, layer in (("", self.model.penultimate), ("_readout", self.model.readout)):
                for metric in ("nc1", "nc1_over_floor"):
                    out[f"{metric}{name}_{split}"] = found.get(layer, {}).get(metric)
        return out


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
        )

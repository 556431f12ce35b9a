"""Short training runs by the hundred: one method on one network and target, for any seed, subset and learning rate.

A program is compiled once for a method and its block. Subsets of any size take the same number of steps of full batches,
frozen prefixes run once, and what a run needs beyond that (subset, seed, learning rate, weight decay) are its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ncjax import optim
from ncjax.core import mesh, trees
from ncjax.core.errors import UserError
from ncjax.core.resolve import pick
from ncjax.core.types import Batch, PyTree
from ncjax.data import Dataset, repeated, source
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.models.sequential import classifier_arrays
from ncjax.networks import card as cards
from ncjax.networks import checkpoint
from ncjax.runs.run import Run
from ncjax.training import loop
from ncjax.transfer import prefix, solved
from ncjax.transfer.grid_search import searched
from ncjax.tuning import plans


class Budget(NamedTuple):
    """What every method may spend on one training run."""

    steps: int  # of full batches
    rounds: int  # equal parts, after each of which validation is looked at: the best part's end is kept
    batch_size: int
    warmup_rounds: float
    optimizer: str
    schedule: str
    decay: str
    clip: float


def budget(*, steps: int = 200, rounds: int = 10, batch_size: int = 64, warmup_rounds: float = 1.0,
           optimizer: str = "optim.sgd", schedule: str = "optim.cosine", decay: str = "optim.everything",
           clip: float = 0.0) -> Budget:
    """What a study's options say of the budget.

    Args:
      steps, rounds: of a run, and the parts after which validation is looked at; the best part's end is kept.
      batch_size, warmup_rounds, optimizer, schedule, decay, clip: as for `optim.build`, durations in rounds.
    """
    return Budget(steps, rounds, batch_size, warmup_rounds, optimizer, schedule, decay, clip)


def target(*, classes: str | None = None, val_fraction: float = 0.1, image_size: int | None = None,
           max_test: int | None = None) -> dict[str, Any]:
    """The options of `data.load` that subsets and seeds leave to the user."""
    return {"classes": classes, "val_fraction": val_fraction, "image_size": image_size, "max_test": max_test}


class _Silent:
    """A watcher that shows nothing, and stops when the run is asked to."""

    def __init__(self, run: Run):
        self.interrupted = run.interrupted

    def shows(self) -> bool:
        """No."""
        return False


class Program:
    """A method compiled: trains and evaluates plans that differ from its own in their arrays only."""

    def __init__(self, plan: plans.Plan, budget: Budget, devices: Any, image_shape: tuple[int, ...]):
        if budget.rounds < 1 or budget.steps % budget.rounds:
            raise UserError(f"steps={budget.steps}, rounds={budget.rounds}: rounds must divide steps")
        self.plan, self.budget, self.devices = plan, budget, devices
        self.model = prefix.tail(plan.model, plan.start) if plan.trains else plan.model
        self.tx, self.lr_at = optim.build(
            plan.mask, budget.steps // budget.rounds, budget.rounds, plan.factors, plan.anchored,
            optimizer=budget.optimizer, schedule=budget.schedule, decay=budget.decay, clip=budget.clip,
            warmup_epochs=budget.warmup_rounds, lr=1.0, weight_decay=0.0)
        ragged = mesh.round_up(budget.batch_size, devices) != budget.batch_size
        self._step = loop.make_step(self.model.apply, cross_entropy(), self.tx, plan.mask, plan.live, devices,
                                     ragged=ragged)
        self._compiled: Any = None
        self.flops_per_step: float | None = None  # by XLA's cost analysis, once trained
        dims = passes.widths(plan.model, plan.variables, image_shape)
        kept = list(dict.fromkeys((self.model.penultimate, self.model.readout)))
        self.plain = passes.make_pass(self.model, cross_entropy(), dims, devices)
        self.measured = passes.make_pass(self.model, cross_entropy(), dims, devices, stats=[self.model.penultimate],
                                           keep=kept)

    def _source(self, dataset: Dataset, split: str) -> Any:
        return source(dataset.splits[split], dataset, self.devices, batch_size=self.budget.batch_size)

    def _step_for(self, state: loop.State, fetch: Callable, batches: Any) -> Callable:
        """The compiled step; every subset feeds it batches of one shape."""
        if self._compiled is None:
            item = next(iter(batches.items(np.arange(batches.size) % batches.examples)))
            batch = fetch(state, batches.arrays, item)
            self._compiled = self._step.lower(state, batch).compile()
            self.flops_per_step = loop.flops(self._step, state, batch, self._compiled)
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
        batch = Batch(image, jax.ShapeDtypeStruct(row.shape, np.int32), row)
        chosen, _ = trees.split(self.plan.variables["params"], self.plan.mask)
        none = np.zeros((), np.float32)
        state = loop.State(np.int32(0), self.plan.variables, jax.eval_shape(self.tx.init, chosen),
                            jax.random.key_data(jax.random.key(0)), loop.Totals(none, none, none), none, np.int32(0))
        return loop.flops(self._step, state, batch)

    def train(self, variables: PyTree, dataset: Dataset, *, seed: int, lr: float, weight_decay: float,
              run: Run) -> tuple[PyTree, dict[str, Any]]:
        """(variables of the best round, what it took and whether the loss stayed finite)."""
        budget, store, diverged = self.budget, checkpoint.Memory(), False
        batches = repeated(self._source(dataset, "train"), budget.steps // budget.rounds, self.devices)
        validation, curve = self._source(dataset, "val"), []
        state = loop.init_state(variables, self.tx, self.plan.mask, jax.random.key(seed), self.devices)
        opt_state = optim.with_hyperparameters(state.opt_state, lr=lr, weight_decay=weight_decay)
        state = mesh.place(state._replace(opt_state=opt_state), mesh.replicated(self.devices))

        fetch = loop.make_fetch(batches, self.devices)

        def on_round(state: loop.State, round_: int, seen: dict[str, float]) -> float:
            curve.append(self.plain(state.variables, validation).accuracy)
            return curve[-1]

        step = self._step_for(state, fetch, batches)
        started = time.time()
        try:
            with run.guarded():
                loop.fit(state, step_fn=step, fetch=fetch, source=batches, epochs=budget.rounds, seed=seed,
                          lr_at=lambda s: lr * float(self.lr_at(s)), on_epoch=on_round, store=store,
                          watch=_Silent(run), mesh=self.devices)
        except loop.Diverged:
            diverged = True
        best = variables if store.best is None else store.best.variables
        return best, {"curve": curve, "best_round": int(np.argmax(curve)) + 1 if curve else 0, "diverged": diverged,
                      "seconds": time.time() - started, "flops_per_step": self.flops_per_step}

    def evaluate(self, variables: PyTree, dataset: Dataset) -> dict[str, float | None]:
        """Accuracy of every split, and NC1 of the penultimate layer on train and test; None where it cannot be measured."""
        out: dict[str, float | None] = {"val": self.plain(variables, self._source(dataset, "val")).accuracy}
        centres = None
        for split in ("train", "test"):
            seen = self.measured(variables, self._source(dataset, split))
            centres = centres or seen
            out[split] = seen.accuracy
            try:
                report = passes.collapse(seen, centres, readout=self.model.readout, classifier=classifier_arrays(
                    variables["params"]))[self.model.penultimate].to_dict()
            except UserError:  # features beyond float32, from a learning rate far too high
                report = {"nc1": None, "nc1_over_floor": None}
            out[f"nc1_{split}"], out[f"nc1_over_floor_{split}"] = report["nc1"], report["nc1_over_floor"]
        return out


class Lab:
    """One network and one target: subsets by (shots, seed), programs by (method, layer), results by cell.

    The seed of a cell draws its training and validation images (nested over shots), its classifier, and its order of
    batches: methods are paired. The test set is one for all.
    """

    def __init__(self, run: Run, *, init: str, data: str, options: dict[str, Any]):
        self.run, self.data, self.search_options = run, data, pick(searched, options)
        self.options, self.budget = target(**pick(target, options)), budget(**pick(budget, options))
        self.card, self.network, self.variables = cards.load(init, **pick(cards.load, options))
        self.devices = mesh.make()
        self._base = cards.backbone_digest(self.network, self.variables)
        self._images: dict[tuple[int, int], str] = {}
        self._datasets: dict[tuple[int, int], Dataset] = {}
        self._programs: dict[tuple[str, str | None], Program] = {}
        self._kept: dict[tuple[int, int], Dataset] = {}
        self._tests: dict[str, Dataset] = {}

    def dataset(self, shots: int, seed: int) -> Dataset:
        """`shots` training images a class, and as many for validation at most (0: all of both)."""
        if (shots, seed) not in self._datasets:
            few = {"n_per_class": shots, "val_per_class": shots} if shots else {}
            found = cards.load_data_for(self.card, self.data, {**self.options, "split_seed": seed, **few})
            if "val" not in found.splits:
                raise UserError("every choice is made on validation: val_fraction must leave some")
            fewest = int(np.bincount(found.splits["train"].labels, minlength=len(found.class_names)).min())
            if fewest < shots:
                raise UserError(f"{shots} training images a class: {self.data} has {fewest} of one of its classes, with "
                                "validation held out")
            if any(others != shots for others, _ in self._datasets):
                self._datasets.clear()
                self._kept.clear()
            self._datasets[shots, seed] = found
        return self._datasets[shots, seed]

    def plan(self, method: str, layer: str | None, dataset: Dataset, seed: int) -> plans.Plan:
        """A method with the classifier that this seed draws."""
        return cards.plan_of(method, self.network, self.variables, self.card, len(dataset.class_names),
                             jax.random.key(seed), layer)

    def program(self, method: str, layer: str | None, dataset: Dataset) -> Program:
        """Compiled at most once."""
        if (method, layer) not in self._programs:
            plan = self.plan(method, layer, dataset, 0)
            self._programs[method, layer] = Program(plan, self.budget, self.devices, dataset.image_shape)
        return self._programs[method, layer]

    def kept(self, shots: int, seed: int, program: Program) -> Dataset:
        """The data set as the program wants it: activations of its frozen prefix, or images."""
        start, dataset = program.plan.start, self.dataset(shots, seed)
        if not program.plan.trains or start == self.network.blocks[0]:
            return dataset

        def run_prefix(names: tuple[str, ...]) -> Dataset:
            part = dataset._replace(splits={name: dataset.splits[name] for name in names})
            return prefix.build(self.network, self.variables, part, self.devices, start=start, folder=self.run.workdir,
                                batch_size=self.budget.batch_size).dataset

        if start not in self._tests:  # of one prefix at a time: together they might not fit
            self._kept, self._tests = {}, {start: run_prefix(("test",))}
        if (shots, seed) not in self._kept:
            self._kept[shots, seed] = run_prefix(("train", "val"))
        found, test = self._kept[shots, seed], self._tests[start]
        return found._replace(splits={**found.splits, **test.splits},
                              resident_bytes=found.resident_bytes + test.resident_bytes)

    def cell(self, method: str, *, layer: str | None, shots: int, seed: int, lr: float,
             weight_decay: float) -> dict[str, Any]:
        """One training run (or one solved classifier, for which learning rate and weight decay mean nothing).

        A run whose loss is not finite counts as validation accuracy 0: the search avoids it.
        "seconds" are those of training and solving; compiling, the kept prefix and the final look are apart.
        """
        dataset = self.dataset(shots, seed)
        plan = self.plan(method, layer, dataset, seed)
        starts_solved = plan.head != "random"
        grid = {"lr": lr, "weight_decay": weight_decay} if plan.trains or not starts_solved else {}
        key = {"method": method, "layer": layer, "shots": shots, "seed": seed, **grid}

        def compute() -> dict[str, Any]:
            program, mine, took, fit = self.program(method, layer, dataset), plan, {"seconds": 0.0}, {"l2": None}
            if starts_solved:
                started = time.time()
                fitted = solved.head_probe(plan, dataset, self.devices, batch_size=self.budget.batch_size, how=plan.head)
                mine = solved.with_head(plan, fitted)
                fit = {"l2": fitted.l2, "gradient": fitted.gradient, "solve_seconds": time.time() - started}
            whole = self.kept(shots, seed, program)
            variables = mine.variables
            if grid:
                variables, took = program.train(variables, whole, seed=seed, lr=lr, weight_decay=weight_decay, run=self.run)
            found = program.evaluate(variables, whole)
            if took.get("diverged"):
                found["val"] = 0.0
            tuned, total = plan.share()
            return {**key, **found, **fit, **took, "seconds": took["seconds"] + fit.get("solve_seconds", 0.0),
                    "tuned": tuned, "total": total}

        return self.run.once({**key, **self.identity(shots, seed)}, compute)

    def describe(self) -> dict[str, Any]:
        """The network and what it is fed, for the results."""
        return self.card.fed(next(iter(self._datasets.values()))).describe()

    def identity(self, shots: int, seed: int) -> dict[str, str]:
        """What results depend on beside the config: the network and the images themselves. Hashed once."""
        if (shots, seed) not in self._images:
            self._images[shots, seed] = self.dataset(shots, seed).identity()
        return {"base": self._base, "images": self._images[shots, seed]}

    def search(self, method: str, *, layer: str | None, shots: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """`searched` for a method: its cell for every seed, and the learning rate and weight decay they share."""
        return searched(lambda seed, lr, wd: self.cell(method, layer=layer, shots=shots, seed=seed, lr=lr, weight_decay=wd),
                        **self.search_options)

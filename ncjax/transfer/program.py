"""A method compiled once, for short training runs by the hundred: what differs between them are its arguments."""

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
from ncjax.core.types import Batch, PyTree, widths
from ncjax.core.values import COUNT, NOT_NEGATIVE
from ncjax.data import Dataset, batches_of, repeated
from ncjax.features import passes
from ncjax.losses import cross_entropy
from ncjax.models.sequential import classifier_arrays
from ncjax.networks import checkpoint
from ncjax.runs.run import Run
from ncjax.training import cost, loop
from ncjax.transfer import prefix
from ncjax.tuning.plans import Plan


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

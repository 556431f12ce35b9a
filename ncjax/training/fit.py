"""What pre-training and fine-tuning share: a plan and a data set in; a trained state and its costs out."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ncjax import optim
from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.resolve import resolve
from ncjax.core.types import Loss, PyTree
from ncjax.data import Dataset, Split, source
from ncjax.data.batches import Augment
from ncjax.features import passes
from ncjax.models.sequential import classifier_arrays
from ncjax.networks import checkpoint
from ncjax.networks.card import Card
from ncjax.networks.card import read as read_card
from ncjax.runs.run import Run
from ncjax.training import loop
from ncjax.tuning.plans import Plan

Summary = dict[str, dict[str, dict[str, float]]]  # {split: {layer: {metric: value}}}


class Trained(NamedTuple):
    """What training leaves behind."""

    state: loop.State
    optimizer_bytes: int
    flops_per_step: float | None  # by XLA's cost analysis of the compiled step; None where it does not say


class Tracker:
    """Evaluates every split, writes rows, prints a line an epoch, and gives the value that chooses the best epoch."""

    def __init__(self, run: Run, plan: Plan, loss: Loss, dataset: Dataset, mesh: Mesh, *, batch_size: int, epochs: int,
                 every: int, scatter: bool | None):
        model, dims = plan.model, passes.widths(plan.model, plan.variables, dataset.image_shape)
        self.run, self.model, self.epochs, self.every = run, model, epochs, every
        self.sources = {name: source(split, dataset, mesh, batch_size=batch_size)
                        for name, split in dataset.splits.items()}
        self.measured = passes.make_pass(model, loss, dims, mesh, stats=model.layers,
                                           keep=list(dict.fromkeys((model.penultimate, model.readout))),
                                           scatter=scatter)
        self.second = passes.make_second_pass(model, mesh)
        self.plain = passes.make_pass(model, loss, dims, mesh)

    def evaluate(self, variables: PyTree, *, collapse: bool) -> Summary:
        """Loss and accuracy of every split and, if asked for, the collapse of train and test at every layer."""
        found, centres = {}, None
        for split, batches in self.sources.items():
            measure = collapse and split != "val"
            seen = (self.measured if measure else self.plain)(variables, batches)
            found[split] = {"output": {"loss": seen.loss, "accuracy": seen.accuracy}}
            if measure:
                centres = seen if centres is None else centres
                reports = passes.collapse(seen, centres, readout=self.model.readout,
                                            classifier=classifier_arrays(variables["params"]),
                                            again=functools.partial(self.second, variables, batches))
                found[split].update({layer: report.scalars() for layer, report in reports.items()})
        return found

    def write(self, epoch: int, found: Summary, prefix: str = "") -> None:
        """Rows of what `evaluate` found."""
        for split, layers in found.items():
            for layer, values in layers.items():
                self.run.rows(epoch, prefix + split, layer, values)

    def __call__(self, state: loop.State, epoch: int, seen: dict[str, float]) -> float:
        """The validation accuracy (training accuracy, where nothing was held out)."""
        epoch += 1
        measure = self.every > 0 and (epoch % self.every == 0 or epoch == self.epochs)
        found = self.evaluate(state.variables, collapse=measure)
        self.write(epoch, {**found, "augmented": {"output": {k: seen[k] for k in ("loss", "accuracy")}}})
        accuracy = {split: layers["output"]["accuracy"] for split, layers in found.items()}
        nc1 = found["train"].get(self.model.penultimate, {}).get("nc1")
        self.run.say(f"epoch {epoch:>3}/{self.epochs}  loss {seen['loss']:.4f}  "
                     + "  ".join(f"{split} {100 * x:.2f} %" for split, x in accuracy.items())
                     + (f"  NC1 {nc1:.3g}" if nc1 is not None else "")
                     + f"  ({seen['images'] / seen['seconds']:,.0f} images/s)")
        return accuracy.get("val", accuracy["train"])


def _store(run: Run, card: Card, unsaved: frozenset[str]) -> checkpoint.Store:
    """Where checkpoints go, the card beside them; refuses to go on from another base than the one begun with."""
    store = checkpoint.Store(run.workdir / "checkpoints", unsaved)
    begun = card if store.latest("last") is None else read_card(store.directory)
    if (begun.base or {}).get("hash") != (card.base or {}).get("hash"):
        raise UserError(f"{run.workdir} was begun from another model than {card.base['init']} holds now; take another "
                        "--workdir")
    card.write(store.directory)
    return store


def fit(
    run: Run,
    plan: Plan,
    dataset: Dataset,
    mesh: Mesh,
    card: Card,
    *,
    loss: str,
    epochs: int,
    batch_size: int,
    augment: Augment | None,
    seed: int,
    measure_every: int,
    scatter: bool | None,
    optimizer: dict[str, Any],
    train_on: Split | None = None,
    unsaved: frozenset[str] = frozenset(),
) -> tuple[Trained, Tracker, checkpoint.Store]:
    """Trains a plan's leaves, resuming from the run's last checkpoint if there is one.

    Args:
      run, plan, dataset, mesh: what to train, on what, where.
      card: written beside the checkpoints.
      loss: dotted name.
      augment: applied inside the step.
      epochs, batch_size, seed: length of the run, examples a step, seed of data order and augmentation.
      measure_every: epochs between measurements of collapse (the last epoch included); 0 for none.
      scatter: as for `nc.empty`, at every layer.
      optimizer: keyword arguments of `optim.build`.
      train_on: what to train on in place of the training split.
      unsaved: as for `checkpoint.Store`.
    """
    objective = resolve(loss)()
    if objective.views > 1 and augment is None:
        raise UserError(f"loss={loss}: wants {objective.views} augmented views; set augment=augment.crop_flip")
    batches = source(train_on or dataset.splits["train"], dataset, mesh, batch_size=batch_size, views=objective.views,
                     augment=augment)
    tx, lr_at = optim.build(plan.mask, batches.steps, epochs, plan.factors, plan.anchored, **optimizer)
    tracker = Tracker(run, plan, objective, dataset, mesh, batch_size=batch_size, epochs=epochs, every=measure_every,
                      scatter=scatter)
    store = _store(run, card, unsaved)
    state = loop.init_state(plan.variables, tx, plan.mask, jax.random.key(seed), mesh)
    step_fn = loop.make_step(plan.model.apply, objective, tx, plan.mask, plan.live, mesh, ragged=batches.ragged)
    fetch = loop.make_fetch(batches, mesh)
    item = next(iter(batches.items(np.arange(batches.size))))
    batch = fetch(state, batches.arrays, item)
    compiled = step_fn.lower(state, batch).compile()
    cost = loop.flops(step_fn, state, batch, compiled)
    optimizer_bytes = trees.nbytes(state.opt_state)
    done = store.latest("last")
    measured = -1 if done is None else done // batches.steps
    run.forget_rows(lambda row: row["epoch"] > measured)
    if done is None and measure_every:
        tracker.write(0, tracker.evaluate(state.variables, collapse=True))
    elif done:
        run.say(f"resuming after step {done} of {epochs * batches.steps}")
    with run.guarded():
        state = loop.fit(state, step_fn=compiled, fetch=fetch, source=batches, epochs=epochs, seed=seed, lr_at=lr_at,
                          on_epoch=tracker, store=store, watch=run, mesh=mesh)
    return Trained(state, optimizer_bytes, cost), tracker, store


def settle(run: Run, plan: Plan, mesh: Mesh, card: Card, *, seed: int,
           unsaved: frozenset[str]) -> tuple[Trained, checkpoint.Store]:
    """What `fit` leaves behind, for a plan whose classifier was solved and which trains nothing else."""
    store = _store(run, card, unsaved)
    state = loop.init_state(plan.variables, optax.identity(), plan.mask, jax.random.key(seed), mesh)
    for which in ("best", "last"):
        store.save(which, 0, state)
    return Trained(state, 0, None), store

"""What pre-training and fine-tuning share: a plan and a data set in; a trained state and its costs out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ncjax import optim
from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.roles import AUGMENT, LOSS, METRIC, resolve
from ncjax.core.types import Batch, Loss, Objective, PyTree, lift, widths
from ncjax.core.values import COUNT, NATURAL, SEED, Items, OneOf
from ncjax.data import Dataset, Split, batches_of
from ncjax.data.batches import Augment, Batches
from ncjax.features import by_class, passes
from ncjax.models.sequential import classifier_arrays
from ncjax.nc.measure import with_own
from ncjax.networks import checkpoint
from ncjax.networks.card import Card
from ncjax.networks.card import read as read_card
from ncjax.runs.loggers import LOGGERS
from ncjax.runs.run import Run
from ncjax.training import cost, loop
from ncjax.tuning.plans import Plan

Summary = dict[str, dict[str, dict[str, float]]]  # {split: {layer: {metric: value}}}


class Training(NamedTuple):
    """A training run.

    Args:
      loss: a function of `ncjax.losses`, or one's own, that returns a `Loss` or an `Objective`:
        `losses.label_smoothing(smoothing=0.1)`, `file.py:function`.
      epochs, batch_size: length of the run, and examples a step.
      augment: an augmentation, `augment.crop_flip(strength=1.0)`, applied inside the step, or None.
      seed: of initialisation, data order and augmentation.
      measure_every: epochs between measurements of collapse; the last epoch is always measured. 0 for never.
      scatter: whether NC1 comes from D x D moments, or from a second pass in the directions of the class means. None for
        the first up to D = 4096, layer by layer.
      metrics: collapse metrics of one's own beside ncjax's, see `ncjax.nc.metric`.
      log_to: where rows go beside metrics.jsonl: "tensorboard", "wandb", "trackio".
    """

    loss: Annotated[str, LOSS] = "losses.cross_entropy"
    epochs: Annotated[int, COUNT] = 15
    batch_size: Annotated[int, COUNT] = 128
    augment: Annotated[str | None, AUGMENT] = None
    seed: Annotated[int, SEED] = 0
    measure_every: Annotated[int, NATURAL] = 1
    scatter: bool | None = None
    metrics: Annotated[list[str], METRIC, Items(distinct=True)] = []
    log_to: Annotated[list[str], OneOf(*LOGGERS), Items(distinct=True)] = []

    def objective(self) -> Objective:
        """What a step minimises.

        Raises:
          UserError: the named function returns neither a loss nor an objective, or wants views and nothing augments.
        """
        found = resolve(self.loss, LOSS)()
        if not isinstance(found, Loss | Objective):
            raise UserError(f"loss={self.loss}: returned {type(found).__name__}, expected a Loss or an Objective")
        if found.views > 1 and self.augment is None:
            raise UserError(f"loss={self.loss}: wants {found.views} augmented views; set augment=augment.crop_flip")
        return lift(found)

    def sees_network(self) -> bool:
        """Whether the step runs the network as its objective likes, rather than once, forward."""
        return isinstance(resolve(self.loss, LOSS)(), Objective)

    def augmentation(self) -> Augment | None:
        """What augments images, (key, images) -> images."""
        return None if self.augment is None else resolve(self.augment, AUGMENT)


class Steps(NamedTuple):
    """How a plan is trained on a data set: every seed of it by these functions, compiled once."""

    batches: Batches
    step: Callable[..., Any]  # of `loop.make_step`, to be lowered and compiled
    fetch: Callable[..., Any]  # of `loop.make_fetch`
    tx: optax.GradientTransformation
    lr_at: Callable[[int], Any]

    def first(self, state: loop.State) -> Batch:
        """A batch, to compile for."""
        return self.fetch(state, self.batches.arrays, next(iter(self.batches.items(np.arange(self.batches.size)))))


def steps_of(
    plan: Plan,
    dataset: Dataset,
    mesh: Mesh,
    training: Training,
    options: optim.Optim,
    views: tuple[Split, Augment] | None = None,
) -> Steps:
    """The steps of a plan; arguments as for `fit`."""
    objective = training.objective()
    split, augment = views or (dataset.splits["train"], training.augmentation())
    batches = batches_of(split, dataset, mesh, batch_size=training.batch_size, views=objective.views, augment=augment)
    tx, lr_at = optim.build(options, plan.mask, batches.steps, training.epochs, plan.factors, plan.anchored)
    step = loop.make_step(plan.model.apply, objective, tx, plan.mask, plan.live, mesh, ragged=batches.ragged)
    return Steps(batches=batches, step=step, fetch=loop.make_fetch(batches, mesh), tx=tx, lr_at=lr_at)


class Trained(NamedTuple):
    """What training leaves behind."""

    state: loop.State
    store: checkpoint.Store
    optimizer_bytes: int
    flops_per_step: float | None  # by XLA's cost analysis of the compiled step; None where it does not say
    tracker: Tracker | None  # that measured it; None where nothing was trained
    spent: dict[str, float]  # seconds of this process on training, measuring, saving, compiling inside them


class Tracker:
    """Evaluates every split, writes rows, prints a line an epoch, and gives the value that chooses the best epoch."""

    def __init__(self, run: Run, plan: Plan, dataset: Dataset, mesh: Mesh, training: Training, *, phase: str):
        model, dims = plan.model, widths(plan.model, plan.variables, dataset.image_shape)
        objective = training.objective()
        self.run, self.model, self.training, self.phase = run, model, training, phase
        self.metrics = [resolve(name, METRIC) for name in training.metrics]
        with_own(self.metrics)  # raises now rather than after an epoch
        self.batches = {
            name: batches_of(split, dataset, mesh, batch_size=training.batch_size) for name, split in dataset.splits.items()
        }
        self.spent = cost.Spent()
        keep = list(dict.fromkeys((model.penultimate, model.readout)))
        self.make = functools.partial(passes.make_pass, loss=objective, dims=dims, mesh=mesh)
        self.measured = self.make(model, stats=model.layers, keep=keep, scatter=training.scatter)
        self.second = passes.make_second_pass(model, mesh)
        self.plain = self.make(model)

    def evaluate(self, variables: PyTree, *, collapse: bool) -> Summary:
        """Loss and accuracy of every split and, if asked for, the collapse of train and test at every layer."""
        found, centres = {}, None
        for split, batches in self.batches.items():
            measure = collapse and split != "val"
            seen = (self.measured if measure else self.plain)(variables, batches)
            found[split] = {"output": {"loss": seen.loss, "accuracy": seen.accuracy}}
            if measure:
                centres = seen if centres is None else centres
                reports = passes.collapse(
                    seen,
                    centres,
                    readout=self.model.readout,
                    classifier=classifier_arrays(variables["params"]),
                    again=functools.partial(self.second, variables, batches),
                    metrics=self.metrics,
                )
                found[split].update({layer: report.scalars() for layer, report in reports.items()})
        return found

    def by_class(self, start: PyTree, end: PyTree, dataset: Dataset) -> dict[str, Any]:
        """Class by class, before and after: `features.by_class.describe`, NC1 at the penultimate layer."""
        layer = self.model.penultimate
        keep = [layer, by_class.SAID, by_class.SURE]
        look = self.make(by_class.saying(self.model), stats=[layer], keep=keep, scatter=self.training.scatter)
        folder = self.run.workdir if self.run.writes else None
        return by_class.describe(look, start, end, self.batches, dataset, layer, folder)

    def write(self, epoch: int, found: Summary, phase: str | None = None) -> None:
        """Rows of what `evaluate` found, of this tracker's phase or another."""
        for split, layers in found.items():
            for layer, values in layers.items():
                self.run.rows(epoch, phase or self.phase, split, layer, values)

    def __call__(self, state: loop.State, epoch: int, seen: dict[str, float]) -> float:
        """The validation accuracy; where nothing was held out, the epoch, so that the last one is chosen."""
        epoch, every, epochs = epoch + 1, self.training.measure_every, self.training.epochs
        self.spent.seconds["training"] += seen["seconds"]
        with self.spent.on("measuring"):
            found = self.evaluate(state.variables, collapse=every > 0 and (epoch % every == 0 or epoch == epochs))
        self.write(epoch, {**found, "augmented": {"output": {k: seen[k] for k in ("loss", "accuracy")}}})
        accuracy = {split: layers["output"]["accuracy"] for split, layers in found.items()}
        nc1 = found["train"].get(self.model.penultimate, {}).get("nc1")
        self.run.say(
            f"epoch {epoch:>3}/{epochs}  loss {seen['loss']:.4f}  "
            + "  ".join(f"{split} {100 * x:.2f} %" for split, x in accuracy.items())
            + (f"  NC1 {nc1:.3g}" if nc1 is not None else "")
            + f"  ({seen['images'] / seen['seconds']:,.0f} images/s)"
        )
        return accuracy.get("val", float(epoch))


def _store(run: Run, card: Card, unsaved: frozenset[str]) -> checkpoint.Store:
    """Where checkpoints go, the card beside them; refuses to go on from another base than the one begun with."""
    store = checkpoint.Store(run.workdir / "checkpoints", unsaved)
    begun = card if store.latest("last") is None else read_card(store.directory)
    if (begun.base or {}).get("hash") != (card.base or {}).get("hash"):
        base = (card.base or begun.base or {}).get("init")
        raise UserError(f"{run.workdir} was begun from another model than {base} holds now; take another --workdir")
    card.write(store.directory)
    return store


def fit(
    run: Run,
    plan: Plan,
    dataset: Dataset,
    mesh: Mesh,
    card: Card,
    training: Training,
    options: optim.Optim,
    *,
    phase: str,
    views: tuple[Split, Augment] | None = None,
    unsaved: frozenset[str] = frozenset(),
) -> Trained:
    """Trains a plan's leaves, resuming from the run's last checkpoint if there is one.

    Args:
      run, plan, dataset, mesh: what to train, on what, where.
      card: written beside the checkpoints.
      training, options: the run, and how leaves move.
      phase: of the rows, "pretrain" or "finetune".
      views: what to train on in place of the training split, and what draws from it.
      unsaved: as for `checkpoint.Store`.
    """
    steps = steps_of(plan, dataset, mesh, training, options, views)
    batches = steps.batches
    tracker = Tracker(run, plan, dataset, mesh, training, phase=phase)
    if "val" not in dataset.splits:
        run.say("nothing is held out for validation: the last epoch is kept, whatever it is worth")
    store = _store(run, card, unsaved)
    state = loop.init_state(plan.variables, steps.tx, plan.mask, jax.random.key(training.seed), mesh)
    batch = steps.first(state)
    with tracker.spent.with_compiling():
        compiled = steps.step.lower(state, batch).compile()
    flops, optimizer_bytes = cost.flops(steps.step, state, batch, compiled), trees.nbytes(state.opt_state)
    done = store.latest("last")
    measured = -1 if done is None else done // batches.steps
    run.forget_rows(lambda row: row["epoch"] > measured)
    run.log_to(training.log_to, measured + 1)
    if done is None and training.measure_every:
        with tracker.spent.with_compiling(), tracker.spent.on("measuring"):
            tracker.write(0, tracker.evaluate(state.variables, collapse=True))
    elif done:
        run.say(f"resuming after step {done} of {training.epochs * batches.steps}")
    with run.guarded(), tracker.spent.with_compiling():
        state = loop.fit(
            state,
            step_fn=compiled,
            fetch=steps.fetch,
            source=batches,
            epochs=training.epochs,
            seed=training.seed,
            lr_at=steps.lr_at,
            on_epoch=tracker,
            store=store,
            watch=run,
            mesh=mesh,
        )
    spent = {**tracker.spent.seconds, "saving": store.seconds}
    run.say("spent: " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in spent.items()))
    return Trained(state, store, optimizer_bytes, flops, tracker, spent)


def settle(run: Run, plan: Plan, mesh: Mesh, card: Card, *, seed: int, unsaved: frozenset[str]) -> Trained:
    """What `fit` leaves behind, for a plan whose classifier was solved and which trains nothing else."""
    store = _store(run, card, unsaved)
    state = loop.init_state(plan.variables, optax.identity(), plan.mask, jax.random.key(seed), mesh)
    for which in ("best", "last"):
        store.save(which, 0, state)
    return Trained(state, store, 0, None, None, {})

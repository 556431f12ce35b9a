"""The only training loop. Model, loss, data and tuning are arguments; the state is data."""

from __future__ import annotations

import collections
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ncjax.core import mesh as meshes
from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.types import Array, Batch, Loss, Objective, PyTree, lift

LATE = 8  # steps that may be under way before the loss of the first is looked at


class Totals(NamedTuple):
    """Sums over the examples of the running epoch."""

    loss: Array
    correct: Array
    count: Array


class State(NamedTuple):
    """Everything a run needs to go on: no functions, no Python objects."""

    step: Array  # [] int32, steps taken; with the batch size and seed it gives the data position
    variables: PyTree
    opt_state: PyTree
    key: Array  # raw key data; the key of a step is fold_in(key, step)
    totals: Totals
    best: Array  # [] float32, best selection value so far
    best_epoch: Array  # [] int32


class Interrupted(Exception):
    """The user, or a scheduler, asked to stop by signal `signum`; the state was saved at `step`."""

    def __init__(self, step: int, signum: int):
        super().__init__(f"stopped at step {step}")
        self.step, self.signum = step, signum


class Diverged(UserError):
    """The loss is not finite."""


class Watcher(Protocol):
    """What the loop tells about, and asks, the outside world."""

    def progress(self, epoch: int, done: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Called now and then within an epoch if it `shows`; `rate` in images/s, `left` in seconds to the run's end."""

    def shows(self) -> bool:
        """Whether progress is shown at all: to say it, the device must be waited for."""
        ...

    def interrupted(self) -> int:
        """The signal by which the user asked to stop here; 0 where there was none. The same at every process."""
        ...


def init_state(variables: PyTree, tx: optax.GradientTransformation, mask: PyTree, key: Array, mesh: Mesh) -> State:
    """A fresh state, replicated over the mesh."""
    chosen, _ = trees.split(variables["params"], mask)
    zero = np.zeros((), np.float32)
    # Copied: the step donates the state, and the caller keeps its variables and key.
    variables, key_data = jax.tree.map(lambda x: np.array(x), (variables, jax.random.key_data(key)))
    state = State(
        np.zeros((), np.int32),
        variables,
        jax.jit(tx.init)(chosen),
        key_data,
        Totals(zero, zero, zero),
        np.float32(-np.inf),
        np.int32(-1),
    )
    return meshes.place(state, meshes.replicated(mesh))


def make_fetch(source: Any, mesh: Mesh) -> Callable[[State, PyTree, PyTree], Batch]:
    """`(state, arrays, item) -> batch`: gathers, augments and normalises. Its key is of the run's key and the step.

    A program of its own: it depends on the size of the data set, the step does not.
    """

    fetch = _fetcher(source.fetch, mesh)
    return lambda state, arrays, item: fetch(state.key, state.step, arrays, item)


@functools.lru_cache(maxsize=32)
def _fetcher(gather: Callable[..., Batch], mesh: Mesh) -> Callable[..., Batch]:
    def fetch(key_data: Array, step: Array, arrays: PyTree, item: PyTree) -> Batch:
        key = jax.random.fold_in(jax.random.wrap_key_data(key_data), step)
        return gather(arrays, item, jax.random.fold_in(key, 0))

    return jax.jit(fetch, out_shardings=meshes.split(mesh))


def make_step(
    apply: Callable,
    loss: Loss | Objective,
    tx: optax.GradientTransformation,
    mask: PyTree,
    live: frozenset[str],
    mesh: Mesh,
    *,
    ragged: int,
) -> Callable[[State, Batch], tuple[State, Array]]:
    """One optimisation step, `(state, batch) -> (state, loss)`, mapped over the mesh.

    The gradient is taken with respect to the leaves where `mask` is True and no others, so nothing downstream can bring
    back the cost of the frozen ones. Blocks outside `live` keep their BatchNorm statistics bit for bit. `ragged` is
    that of `Batches`: where some batch has filler rows, batch statistics leave them out, and the gradient of a batch counts
    by its share of a full one: a single image left over at the end of an epoch does not move the parameters as a full
    batch does. A plain loss is lifted into an objective.
    """
    objective = lift(loss)

    def step(state: State, batch: Batch) -> tuple[State, Array]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        chosen, frozen = trees.split(state.variables["params"], mask)

        def run(variables: PyTree, images: Array, train: bool = True) -> dict[str, Any]:
            features, moved = apply(
                variables,
                images,
                live=live if train else frozenset(),
                key=jax.random.fold_in(key, 1),
                mask=batch.mask if ragged else None,
            )
            return {**features, "batch_stats": moved["batch_stats"]}

        count = jnp.sum(batch.mask)

        def minimised(chosen: PyTree) -> tuple[Array, tuple[Array, Array, PyTree]]:
            variables = {**state.variables, "params": trees.join(chosen, frozen)}
            value, features = objective.value(run, variables, batch, jax.random.fold_in(key, 2))
            rows = features["logits"].shape[0] if {"logits", "batch_stats"} <= features.keys() else None
            if rows != batch.label.shape[0]:
                raise UserError(
                    "an objective returns (loss, features), the features as `apply` returns them for a batch: logits and "
                    f"batch_stats for {batch.label.shape[0]} images, got {rows or sorted(features)}"
                )
            weighed = value * (count / ragged) if ragged else value
            return weighed, (value, features["logits"], features["batch_stats"])

        (_, (value, logits, stats)), gradient = jax.value_and_grad(minimised, has_aux=True)(chosen)
        updates, opt_state = tx.update(gradient, state.opt_state, chosen)
        params = trees.join(optax.apply_updates(chosen, updates), frozen)
        correct = jnp.sum((jnp.argmax(logits, -1) == batch.label) * batch.mask)
        totals = Totals(*(t + x for t, x in zip(state.totals, (value * count, correct, count), strict=True)))
        variables = {**state.variables, "params": params, "batch_stats": stats}
        return state._replace(step=state.step + 1, variables=variables, opt_state=opt_state, totals=totals), value

    return meshes.compile_step(step, mesh, donate=(0,))


def order_of(size: int, examples: int, seed: int, epoch: int) -> np.ndarray:
    """The rows [size] that an epoch visits, in order: a function of seed and epoch alone.

    Passes over all examples follow one another, the p-th in the order of (seed, p); epoch e is made of the places from
    e size to (e + 1) size of that sequence. Where an epoch is one pass, it is the order of (seed, e).
    """
    first, last = epoch * size // examples, -(-(epoch + 1) * size // examples)
    passes = [np.random.default_rng([seed, p]).permutation(examples) for p in range(first, last)]
    return np.concatenate(passes)[epoch * size - first * examples :][:size]


def _totals(state: State) -> tuple[float, float]:
    count = max(float(state.totals.count), 1.0)
    return float(state.totals.loss) / count, float(state.totals.correct) / count


class _Late:
    """Losses of the last steps: one is looked at when its step is long done, so that looking does not stall the device."""

    def __init__(self, lr_at: Callable[[int], Any], store: Any):
        self.lr_at, self.store = lr_at, store
        self.waiting: collections.deque[tuple[int, Array]] = collections.deque()

    def add(self, step: int, loss: Array) -> None:
        """The loss of the step that ended as number `step`."""
        self.waiting.append((step, loss))
        self.check(LATE)

    def check(self, leave: int = 0) -> None:
        """Looks at all losses but the last `leave`."""
        while len(self.waiting) > leave:
            step, loss = self.waiting.popleft()
            if not math.isfinite(float(loss)):
                last, lr = self.store.latest("last"), float(self.lr_at(max(step - 1, 0)))
                kept = "none yet" if last is None else f"{self.store.directory / 'last'} (step {last})"
                raise Diverged(
                    f"the loss became {float(loss)} at step {step} (learning rate {lr:.3g}); last good "
                    f"checkpoint: {kept}; try a lower lr, a warm-up or clip"
                )


def _epoch(
    state: State,
    epoch: int,
    epochs: int,
    step_fn: Callable,
    fetch: Callable,
    source: Any,
    seed: int,
    lr_at: Callable,
    store: Any,
    watch: Watcher,
) -> State:
    step = int(state.step)
    done = step - epoch * source.steps
    order = order_of(source.size, source.examples, seed, epoch)[done * source.batch_size :]
    started, shown, late, here = time.time(), 0.0, _Late(lr_at, store), 0
    for item in source.items(order):
        if signum := watch.interrupted():
            late.check()
            store.save("last", step, state)
            raise Interrupted(step, signum)
        state, loss = step_fn(state, fetch(state, source.arrays, item))
        step, here = step + 1, here + 1
        late.add(step, loss)
        if time.time() - shown > 0.5 and watch.shows():
            loss, accuracy = _totals(state)
            shown = time.time()
            seconds = max(shown - started, 1e-9) / here
            watch.progress(
                epoch,
                done + here,
                source.steps,
                loss,
                accuracy,
                source.batch_size / seconds,
                (epochs * source.steps - step) * seconds,
            )
    late.check()
    return state


def fit(
    state: State,
    *,
    step_fn: Callable[[State, Batch], tuple[State, Array]],
    fetch: Callable[[State, PyTree, PyTree], Batch],
    source: Any,
    epochs: int,
    seed: int,
    lr_at: Callable[[int], Any],
    on_epoch: Callable[[State, int, dict[str, float]], float],
    store: Any,
    watch: Watcher,
    mesh: Mesh,
) -> State:
    """Trains until `epochs` epochs are done, from wherever `state` (or the stored one) stands.

    After each epoch `on_epoch(state, epoch, {"loss", "accuracy", "seconds", "images"})` is called; what it returns (higher
    is better; NaN for one that is not to be) decides the "best" checkpoint. Of equals the latest is kept: accuracies of a
    few validation images tie by the dozen, and under a falling learning rate the latest is the one that has settled. A run
    killed and started again ends bit-identical on a CPU.

    Raises:
      Diverged: the loss is not finite.
      Interrupted: `watch.interrupted` named a signal; the state is saved first.
    """
    if store.latest("last") is not None:
        state = store.restore("last", state)
    for epoch in range(int(state.step) // source.steps, epochs):
        started, before = time.time(), int(state.step)
        state = _epoch(state, epoch, epochs, step_fn, fetch, source, seed, lr_at, store, watch)
        loss, accuracy = _totals(state)
        seen = {
            "loss": loss,
            "accuracy": accuracy,
            "seconds": time.time() - started,
            "images": (int(state.step) - before) * source.batch_size,
        }
        value = on_epoch(state, epoch, seen)
        fresh = meshes.place(Totals(*[np.zeros((), np.float32)] * 3), meshes.replicated(mesh))
        state = state._replace(totals=fresh)
        if np.float32(value) >= np.float32(state.best):  # as it is kept: two that are equal must be so here
            best = meshes.place((np.float32(value), np.int32(epoch)), meshes.replicated(mesh))
            state = state._replace(best=best[0], best_epoch=best[1])
            store.save("best", int(state.step), state)
        store.save("last", int(state.step), state)
        if epoch + 1 < epochs and (signum := watch.interrupted()):
            raise Interrupted(int(state.step), signum)
    return state

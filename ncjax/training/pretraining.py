"""One recipe of pre-training, many seeds: its step is compiled once, and networks are kept at the epochs asked for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ncjax.core import trees
from ncjax.core.resolve import absolute
from ncjax.core.types import Model, PyTree
from ncjax.data import Dataset
from ncjax.models.named import build
from ncjax.networks import checkpoint
from ncjax.networks.card import Card
from ncjax.optim import Optim
from ncjax.runs.run import Run
from ncjax.training import loop
from ncjax.training.fit import Training, steps_of
from ncjax.tuning import plans

SAVE_AFTER = 60.0  # seconds between saves of a state that another will replace


class Recipe(NamedTuple):
    """How a network is pre-trained; the seed of `training` plays no part."""

    model: str
    projection_layers: int
    training: Training
    optim: Optim


class _Seldom:
    """A store that keeps the last state once in a while, and where the run is asked to stop; none is the best one."""

    def __init__(self, store: checkpoint.Store, run: Run):
        self.store, self.run = store, run
        self.directory, self.latest, self.restore = store.directory, store.latest, store.restore
        self.saved = time.monotonic()

    def save(self, which: str, step: int, tree: PyTree) -> None:
        """Saves "last" if it is due."""
        if which == "last" and (self.run.signum or time.monotonic() - self.saved > SAVE_AFTER):
            self.store.save(which, step, tree)
            self.saved = time.monotonic()


class _Watch:
    """A watcher that tells of its progress by one function, and stops when the run is asked to."""

    def __init__(self, run: Run, tell: Callable[[str], None]):
        self.interrupted, self.shows, self.tell = run.interrupted, run.shows, tell

    def progress(self, epoch: int, done: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Where training stands, in words."""
        self.tell(f"epoch {epoch + 1}, {done}/{steps}, loss {loss:.3f}, {rate:,.0f} images/s")


def _is_kept(folder: Path) -> bool:
    store = checkpoint.Store(folder)
    found = (folder / "model.json").is_file() and store.latest("last") is not None
    store.close()
    return found


class Pretraining:
    """A recipe on a data set, ready for any number of seeds.

    Args:
      recipe, dataset, mesh: what to train, on what, where.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, mesh: Mesh):
        recipe.optim.check_length(recipe.training.epochs)
        self.recipe, self.dataset, self.mesh = recipe, dataset, mesh
        self.model: Model = build(recipe.model, len(dataset.class_names), recipe.projection_layers)
        self._init = jax.jit(self.model.init, static_argnums=1)
        self._plan = plans.everything(self.model, self.init(0))
        self._steps = steps_of(self._plan, dataset, mesh, recipe.training, recipe.optim)
        self._compiled: Any = None
        self.card = Card(
            model=absolute(recipe.model),
            projection_layers=recipe.projection_layers,
            image_shape=dataset.image_shape,
            class_names=dataset.class_names,
            data=dataset.name,
        ).fed(dataset)

    def init(self, seed: int) -> PyTree:
        """The variables that a seed starts from."""
        return self._init(jax.random.key(seed), self.dataset.image_shape)

    def parameters(self) -> int:
        """Of the network, its projection head and classifier included."""
        return trees.count(self._plan.variables["params"])

    def train(
        self, seed: int, folder: Path, *, read: Sequence[int], run: Run, tell: Callable[[str], None]
    ) -> dict[int, Path]:
        """{epoch: the checkpoint folder of the network as it was after that epoch}, 0 for its initialisation.

        A run that was stopped goes on from what it left in `folder`, where the seed's order and initialisation make it end
        as if it had not been; one whose networks are all there is not trained again.

        Args:
          seed: of initialisation, order and augmentation.
          folder: for checkpoints, of this seed and recipe alone.
          read: epochs at which the network is kept.
          run: asked whether to stop.
          tell: hears how it goes.

        Raises:
          Diverged: the loss is not finite.
          Interrupted: the user asked to stop; the state is saved.
        """
        epochs, batches = self.recipe.training.epochs, self._steps.batches
        kept = {epoch: folder / f"epoch_{epoch}" for epoch in read}
        if all(_is_kept(path) for path in kept.values()):
            return kept
        variables = self.init(seed)
        state = loop.init_state(variables, self._steps.tx, self._plan.mask, jax.random.key(seed), self.mesh)
        if 0 in kept:
            self._keep(kept[0], 0, variables)
        if self._compiled is None:
            self._compiled = self._steps.step.lower(state, self._steps.first(state)).compile()

        def on_epoch(state: loop.State, epoch: int, seen: dict[str, float]) -> float:
            if epoch + 1 in kept:
                self._keep(kept[epoch + 1], int(state.step), state.variables)
            return float("nan")

        store = checkpoint.Store(folder / "under_way")
        with run.guarded():
            loop.fit(
                state,
                step_fn=self._compiled,
                fetch=self._steps.fetch,
                source=batches,
                epochs=epochs,
                seed=seed,
                lr_at=self._steps.lr_at,
                on_epoch=on_epoch,
                store=_Seldom(store, run),
                watch=_Watch(run, tell),
                mesh=self.mesh,
            )
        store.close()
        if run.writes:
            shutil.rmtree(store.directory, ignore_errors=True)
        return kept

    def _keep(self, folder: Path, step: int, variables: PyTree) -> None:
        """A checkpoint that any study takes for its `init`."""
        store = checkpoint.Store(folder)
        self.card.write(folder)
        store.save("last", step, {"variables": variables})
        store.close()

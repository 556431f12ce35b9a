"""One recipe of pre-training, many seeds: its step is compiled once, and networks are kept at the epochs asked for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
from jax.sharding import Mesh

from ncjax.core import hosts
from ncjax.core.resolve import absolute
from ncjax.core.roles import AUGMENT, LOSS
from ncjax.core.types import Model, PyTree
from ncjax.core.values import COUNT, SEED
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


class Regime(NamedTuple):
    """What a variant is trained with.

    Args:
      loss: as for `training.fit.Training`.
      epochs, batch_size: length of the run, and examples a step.
      augment: an augmentation, or None.
      seed: the first one, of initialisation, order and augmentation.
    """

    loss: Annotated[str, LOSS] = "losses.cross_entropy"
    epochs: Annotated[int, COUNT] = 15
    batch_size: Annotated[int, COUNT] = 128
    augment: Annotated[str | None, AUGMENT] = None
    seed: Annotated[int, SEED] = 0


class Recipe(NamedTuple):
    """How a network is pre-trained; the seed of `regime` plays no part."""

    model: str
    projection_layers: int
    regime: Regime
    optim: Optim


class _Seldom:
    """A store that keeps the last state once in a while, and where the run stops; there is no best one.

    All processes save the same: the first one says when it is time, and all have heard of a stop where one has.
    """

    def __init__(self, store: checkpoint.Store):
        self.store, self.stopping = store, False
        self.directory, self.latest, self.restore = store.directory, store.latest, store.restore
        self.saved = time.monotonic()
        self._pending: tuple[int, PyTree] | None = None

    def save(self, which: str, step: int, tree: PyTree) -> None:
        """Saves "last" if it is due; else holds it until the next step, in case the run stops before."""
        if which != "last":
            return
        due = hosts.first(lambda: str(time.monotonic() - self.saved > SAVE_AFTER)) == "True"
        self._pending = step, tree
        if due or self.stopping:
            self._save()

    def _save(self) -> None:
        if self._pending is not None:
            self.store.save("last", *self._pending)
            self.saved, self._pending = time.monotonic(), None

    def heard(self, signum: int) -> None:
        """Of a stop, before which what is held is saved; of none, after which the step takes the state's memory."""
        self.stopping = bool(signum)
        if signum:
            self._save()
        self._pending = None


class _Watch:
    """A watcher that tells of its progress by one function, and stops when the run is asked to."""

    def __init__(self, run: Run, store: _Seldom, tell: Callable[[str], None]):
        self.run, self.store, self.shows, self.tell = run, store, run.shows, tell

    def interrupted(self) -> int:
        """The signal by which the run was asked to stop; the store hears of it."""
        signum = self.run.interrupted()
        self.store.heard(signum)
        return signum

    def progress(self, epoch: int, done: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Where training stands, in words."""
        self.tell(f"epoch {epoch + 1}, {done}/{steps}, loss {loss:.3f}, {rate:,.0f} images/s")


def _are_kept(folders: Iterable[Path]) -> bool:
    """Whether networks are there, whole: the first process looks, since it may write while others would."""

    def whole(folder: Path) -> bool:
        return (folder / "model.json").is_file() and any((folder / "last").glob("crc32_*.json"))

    return hosts.first(lambda: str(all(map(whole, folders)))) == "True"


class Pretraining:
    """A recipe on a data set, ready for any number of seeds.

    Args:
      recipe, dataset, mesh: what to train, on what, where.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, mesh: Mesh):
        recipe.optim.check_length(recipe.regime.epochs)
        self.recipe, self.dataset, self.mesh = recipe, dataset, mesh
        self.model: Model = build(recipe.model, len(dataset.class_names), recipe.projection_layers)
        self._init = jax.jit(self.model.init, static_argnums=1)
        self._plan = plans.everything(self.model, self.init(0))
        self._steps = steps_of(
            self._plan, dataset, mesh, Training(**recipe.regime._asdict(), measure_every=0), recipe.optim
        )
        self._compiled: Any = None
        self.card = Card(
            model=absolute(recipe.model),
            projection_layers=recipe.projection_layers,
            image_shape=dataset.image_shape,
            class_names=dataset.class_names,
            data=dataset.name,
        ).fed(dataset)

    def check(self) -> None:
        """Traces a step, so that a loss that cannot be computed is refused before anything is trained.

        Raises:
          UserError: by the loss.
        """
        state = loop.init_state(self._plan.variables, self._steps.tx, self._plan.mask, jax.random.key(0), self.mesh)
        jax.eval_shape(self._steps.step, state, self._steps.first(state))

    def init(self, seed: int) -> PyTree:
        """The variables that a seed starts from."""
        return self._init(jax.random.key(seed), self.dataset.image_shape)

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
        epochs, batches = self.recipe.regime.epochs, self._steps.batches
        kept = {epoch: folder / f"epoch_{epoch}" for epoch in read}
        if _are_kept(kept.values()):
            return kept
        variables = self.init(seed)
        state = loop.init_state(variables, self._steps.tx, self._plan.mask, jax.random.key(seed), self.mesh)
        if 0 in kept:
            self._keep(kept[0], 0, state.variables)
        if self._compiled is None:
            self._compiled = self._steps.step.lower(state, self._steps.first(state)).compile()

        def on_epoch(state: loop.State, epoch: int, seen: dict[str, float]) -> float:
            if epoch + 1 in kept:
                self._keep(kept[epoch + 1], int(state.step), state.variables)
            return float("nan")

        store = checkpoint.Store(folder / "under_way")
        seldom = _Seldom(store)
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
                store=seldom,
                watch=_Watch(run, seldom, tell),
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

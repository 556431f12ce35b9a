"""Networks of one variant of pre-training after another: trained, and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ncjax.core.mesh import make
from ncjax.core.types import Network
from ncjax.data import Dataset
from ncjax.networks.load import Init, load
from ncjax.optim import Optim
from ncjax.runs.run import Run
from ncjax.training.loop import Diverged
from ncjax.training.pretraining import Pretraining, Recipe, Regime
from ncjax.transfer.reading import Reader, Reading


def recipe_of(keys: dict[str, Any]) -> Recipe:
    """The recipe of a config's keys."""
    return Recipe(
        model=keys["model"],
        projection_layers=keys["projection_layers"],
        regime=Regime(**{k: keys[k] for k in Regime._fields}),
        optim=Optim(**{k: keys[k] for k in Optim._fields}),
    )


def _identity(source: Dataset, targets: dict[str, Dataset]) -> str:
    """What tells these images from others, short enough for a file's name."""
    return "-".join(x.identity()[:8] for x in (source, *targets.values()))


class _Worker(NamedTuple):
    """What trains and reads the networks of one variant."""

    run: Run
    trainer: Pretraining
    reader: Reader
    read: Sequence[int]
    source: Dataset
    targets: dict[str, Dataset]

    def cell(self, name: str, seed: int, place: tuple[int, int]) -> dict[str, Any]:
        """The variant with a seed: trained, and read at every epoch asked for.

        Args:
          name, seed: of the cell.
          place: (cells done, cells in all), for the bar.
        """
        epochs = sorted(self.read) or [self.trainer.recipe.regime.epochs]

        def tell(said: str) -> None:
            self.run.bar("sweep", *place, f"{name}, seed {seed}: {said}")

        try:
            folder = self.run.workdir / "networks" / f"{name}-{seed}"
            kept = self.trainer.train(seed, folder, read=epochs, run=self.run, tell=tell)
        except Diverged as e:
            self.run.say(f"{name}, seed {seed}: {e}")
            return {"diverged": True, "epochs": {}}
        found = {}
        for epoch, path in kept.items():
            tell(f"reading epoch {epoch}")
            network = load(Init(str(path)))
            network = Network(network.card, self.trainer.model, network.variables)
            found[str(epoch)] = self.reader.read(network, self.source, self.targets)
        return {"diverged": False, "epochs": found}


def _said(found: dict[str, Any]) -> str:
    if not found["epochs"]:
        return "diverged"
    cell = list(found["epochs"].values())[-1]
    layers = cell["source"]["layers"]["penultimate"]["train"]
    return f"source {100 * cell['source']['accuracy']['test']:.1f} %, NC1 {layers['nc1'] or np.nan:.3g}, " + ", ".join(
        f"{name} {100 * t['probe']:.1f} %" for name, t in cell["targets"].items()
    )


def sweep(
    run: Run,
    recipes: dict[str, Recipe],
    seeds: range,
    *,
    source: Dataset,
    targets: dict[str, Dataset],
    read: Sequence[int],
    reading: Reading,
) -> tuple[dict[str, dict[int, list[dict[str, Any]]]], dict[str, int]]:
    """Every recipe with every seed: ({name: {epoch: what was read of each seed}}, {name: seeds that diverged}).

    Args:
      run: where it happens; a stopped sweep goes on with the network that was under way.
      recipes: by name.
      seeds: of each.
      source, targets: what networks are trained on, and what they are read on.
      read, reading: at which epochs, empty for the last alone; and how.
    """
    cells: dict[str, dict[int, list[dict[str, Any]]]] = {}
    readers: dict[tuple[str, int], Reader] = {}
    diverged: dict[str, int] = {}
    mesh, total, images = make(), len(recipes) * len(seeds), _identity(source, targets)  # hashed once
    for number, (name, recipe) in enumerate(recipes.items()):
        trainer = Pretraining(recipe, source, mesh)
        cells[name], diverged[name] = {}, 0
        architecture = recipe.model, recipe.projection_layers
        if architecture not in readers:
            readers[architecture] = Reader(trainer.model, trainer.init(0), source.image_shape, mesh, reading)
        worker = _Worker(run, trainer, readers[architecture], read, source, targets)
        for done, seed in enumerate(seeds, number * len(seeds)):
            found = run.once(
                {"variant": name, "seed": seed, "images": images},
                lambda seed=seed, done=done, name=name, worker=worker: worker.cell(name, seed, (done, total)),
            )
            diverged[name] += bool(found["diverged"])
            for epoch, one in found["epochs"].items():
                cells[name].setdefault(int(epoch), []).append({"seed": seed, **one})
            run.say(f"{done + 1:>3}/{total}  {name}, seed {seed}: {_said(found)}")
    run.end_progress()
    return cells, diverged

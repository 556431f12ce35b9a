"""The search that every method of a sweep gets: the same grid, the same seeds, every choice made on validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from ncjax.core.errors import UserError
from ncjax.core.values import COUNT, NOT_NEGATIVE, POSITIVE, Items

Cell = dict[str, Any]


class Search(NamedTuple):
    """The grid, the same for every method that trains.

    Solved classifiers search strengths of their own, on every seed's validation images.

    Args:
      seeds: draws of training and validation images, classifier and batch order, the same for every method.
      tune_seeds: seeds on which the whole grid is run.
      lr_grid, weight_decay_grid: learning rates and weight decays.
    """

    seeds: Annotated[int, COUNT] = 3
    tune_seeds: Annotated[int, COUNT] = 1
    lr_grid: Annotated[list[float], POSITIVE, Items(least=1, distinct=True)] = [0.03, 0.1, 0.3, 1.0]
    weight_decay_grid: Annotated[list[float], NOT_NEGATIVE, Items(least=1, distinct=True)] = [5e-4]


def best_hyperparameters(cells: list[Cell]) -> dict[str, float]:
    """The learning rate and weight decay of best mean validation accuracy, the first among equals; {} where none vary."""
    scores: dict[tuple[float, float], list[float]] = {}
    for cell in cells:
        if "lr" in cell:
            scores.setdefault((cell["lr"], cell["weight_decay"]), []).append(cell["val"])
    if not scores:
        return {}
    lr, weight_decay = max(scores, key=lambda hyper: math.fsum(scores[hyper]) / len(scores[hyper]))
    return {"lr": lr, "weight_decay": weight_decay}


def search(cell: Callable[[int, float, float], Cell], options: Search) -> tuple[list[Cell], dict[str, float]]:
    """A cell for every seed at the learning rate and weight decay that validation chose on the first `tune_seeds`.

    Args:
      cell: `(seed, lr, weight_decay) -> cell`.
      options: the grid.

    Raises:
      UserError: the loss became infinite at every point of the grid.
    """
    seeds, tune_seeds, lr_grid, weight_decay_grid = options
    tried = [cell(seed, lr, wd) for seed in range(min(tune_seeds, seeds)) for lr in lr_grid for wd in weight_decay_grid]
    if tried and all(x.get("diverged") for x in tried):
        raise UserError(
            f"every run diverged, at lr_grid={lr_grid} and weight_decay_grid={weight_decay_grid}: choose smaller ones, or "
            "a clip, in another --workdir, or leave that method out"
        )
    best = best_hyperparameters(tried)
    lr, weight_decay = (best["lr"], best["weight_decay"]) if best else (lr_grid[0], weight_decay_grid[0])
    return [cell(seed, lr, weight_decay) for seed in range(seeds)], best

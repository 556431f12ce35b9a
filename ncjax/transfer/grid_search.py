"""The search that every method of a sweep gets: the same grid, the same seeds, every choice made on validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

from ncjax.core.errors import UserError
from ncjax.core.values import COUNT, NATURAL, NOT_NEGATIVE, POSITIVE, Items

Cell = dict[str, Any]


class Search(NamedTuple):
    """The grid, the same for every method that trains.

    Solved classifiers search strengths of their own, on every seed's validation images, and widen that search alike.

    Args:
      seeds: draws of training and validation images, classifier and batch order, the same for every method.
      tune_seeds: seeds on which the whole grid is run.
      lr_grid, weight_decay_grid: learning rates and weight decays.
      widen: times at most that a grid goes on, by its own factor, while its best lies at an end; learning rates at both
        ends while the best has hardly learned its training images. 0 keeps it as it is.
    """

    seeds: Annotated[int, COUNT] = 3
    tune_seeds: Annotated[int, COUNT] = 1
    lr_grid: Annotated[list[float], POSITIVE, Items(least=1, distinct=True)] = [0.03, 0.1, 0.3, 1.0]
    weight_decay_grid: Annotated[list[float], NOT_NEGATIVE, Items(least=1, distinct=True)] = [5e-4]
    widen: Annotated[int, NATURAL] = 2


class Found(NamedTuple):
    """What a search came to."""

    cells: list[Cell]  # by seed, at what was chosen
    hyper: dict[str, float]  # that: "lr" and "weight_decay"; empty where nothing varies
    grid: dict[str, list[float]]  # all that was tried of each, in order
    widened: int  # times
    diverged: int  # of the runs behind the choice, those whose loss did not stay finite
    runs: int  # those runs

    def at_end(self) -> bool:
        """Whether the chosen learning rate is the smallest or the largest that was tried."""
        tried = self.grid["lr"]
        return bool(self.hyper) and len(tried) > 1 and self.hyper["lr"] in (tried[0], tried[-1])

    def describe(self) -> str:
        """`lr 0.3  weight_decay 0.0005 (grid widened to 0.03 to 3)`."""
        said = "  ".join(f"{k} {v:g}" for k, v in self.hyper.items())
        ends = ", ".join(f"{name} {g[0]:g} to {g[-1]:g}" for name, g in self.grid.items() if len(g) > 1)
        return said + (f" (grid widened: {ends})" if self.widened else "")


def best_hyperparameters(cells: Sequence[Cell]) -> dict[str, float]:
    """The learning rate and weight decay of best mean validation accuracy, the first among equals; {} where none vary."""
    scores: dict[tuple[float, float], list[float]] = {}
    for cell in cells:
        if "lr" in cell:
            scores.setdefault((cell["lr"], cell["weight_decay"]), []).append(cell["val"])
    if not scores:
        return {}
    lr, weight_decay = max(scores, key=lambda hyper: math.fsum(scores[hyper]) / len(scores[hyper]))
    return {"lr": lr, "weight_decay": weight_decay}


def beyond(grid: Sequence[float], value: float) -> float | None:
    """The next point of a sorted grid past the end at which a value lies, by the factor between the last two there.

    None where the value lies inside, where one point has no factor, and beyond a zero.
    """
    if len(grid) < 2 or value not in (grid[0], grid[-1]):
        return None
    end, inner = (grid[0], grid[1]) if value == grid[0] else (grid[-1], grid[-2])
    return float(f"{end * end / inner:.6g}") if end > 0 and inner > 0 else None


LEARNED = 0.25  # of the way from guessing the largest class to knowing all training images


def hardly_learned(cells: Sequence[Cell], hyper: dict[str, float], largest: float) -> bool:
    """Whether the runs at a choice have learned less than `LEARNED` of their training images: all of the grid failed.

    Args:
      cells: all that was tried; those without "train" count as having learned.
      hyper: the choice.
      largest: share of the largest class among the training images.
    """
    reached = [c.get("train", 1.0) for c in cells if all(c.get(name) == x for name, x in hyper.items())]
    return max(reached) - largest < LEARNED * (1 - largest)


def search(cell: Callable[[int, float, float], Cell], options: Search, *, largest: float = 0.0) -> Found:
    """A cell for every seed at the learning rate and weight decay that validation chose on the first `tune_seeds`.

    While the choice lies at an end of its grid, the grid goes on by its own factor, at most `widen` times; while it is one
    among failures, which says nothing of the direction, learning rates go on at both ends.

    Args:
      cell: `(seed, lr, weight_decay) -> cell`.
      options: the grid.
      largest: as for `hardly_learned`.

    Raises:
      UserError: the loss became infinite at every point of the grid.
    """
    grid = {"lr": sorted(options.lr_grid), "weight_decay": sorted(options.weight_decay_grid)}
    tune_seeds, tried, widened = range(min(options.tune_seeds, options.seeds)), [], 0

    def run(points: dict[str, list[float]]) -> None:
        tried.extend(cell(seed, lr, wd) for seed in tune_seeds for lr in points["lr"] for wd in points["weight_decay"])

    run(grid)
    if all(x.get("diverged") for x in tried):
        raise UserError(
            f"every run diverged, at lr_grid={options.lr_grid} and weight_decay_grid={options.weight_decay_grid}: choose "
            "smaller ones, or a clip, in another --workdir, or leave that method out"
        )
    best = best_hyperparameters(tried)
    while best and widened < options.widen:
        ends = {name: [value] for name, value in best.items()}
        if hardly_learned(tried, best, largest):
            ends["lr"] = [grid["lr"][0], grid["lr"][-1]]
        further = [(name, x) for name, many in ends.items() for end in many if (x := beyond(grid[name], end)) is not None]
        if not further:
            break
        for name, x in further:
            run({**grid, name: [x]})
            grid[name] = sorted([*grid[name], x])
        widened, best = widened + 1, best_hyperparameters(tried)
    chosen = best or {"lr": grid["lr"][0], "weight_decay": grid["weight_decay"][0]}
    cells = [cell(seed, chosen["lr"], chosen["weight_decay"]) for seed in range(options.seeds)]
    distinct = {(c.get("seed"), c.get("lr"), c.get("weight_decay")): bool(c.get("diverged")) for c in (*tried, *cells)}
    return Found(cells, best, grid, widened, diverged=sum(distinct.values()), runs=len(distinct))

"""Neural collapse with several labels an image: tag sums.

Li, Li, Wang & Qu (2024): with the pick-all-label loss, sum_{k in S} CE(z, k), class means of images with one label form a
simplex equiangular tight frame, and means of images with several are *scaled sums* of those. Unconstrained features, all
singles and all pairs of K classes, one mean each:

    mean over N kinds of images of the loss + l/2 (||W||^2 + (K/N) ||H||^2 + ||b||^2)

`reduction` "sum" is the loss above, "mean" divides it by |S|, as soft targets of 0.5 do in the authors' code.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.values import COUNT, POSITIVE, Range
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, solver


def pick_all_label(z: Any, tags: Any, reduction: str = "sum") -> Any:
    """|S| logsumexp(z) - sum_{k in S} z_k of logits [N, K] and tags [N, K] of 0 and 1; over |S| where "mean". [N]."""
    count = jnp.sum(tags, axis=1)
    each = count * jax.nn.logsumexp(z, axis=1) - jnp.sum(tags * z, axis=1)
    return each / count if reduction == "mean" else each


def angle_metric(pairs: np.ndarray, sums: np.ndarray) -> float:
    """Mean angle of pair means to the sums of their tags' means, over the mean angle to all other sums; 0 for tag sums."""
    cosines = np.clip(_unit(pairs) @ _unit(sums).T, -1, 1)
    angles = np.arccos(cosines)
    return float(np.diagonal(angles).mean() / angles[~np.eye(len(angles), dtype=bool)].mean())


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@solver.in_double
def run(
    *,
    run: Run,
    classes: Annotated[int, Range("3 or more", 3, 1000)] = 6,
    width: Annotated[int, COUNT] = 12,
    decay: Annotated[float, POSITIVE] = 5e-3,
    seeds: Annotated[int, COUNT] = 5,
    steps: Annotated[int, COUNT] = 4000,
) -> dict[str, Any]:
    """Minimises the model for both reductions and several seeds at once.

    Args:
      run: where it happens.
      classes: K.
      width: of the features, K - 1 at least for a simplex.
      decay: l.
      seeds: of the start.
      steps: of L-BFGS at most.
    """
    k, sets = classes, [(i,) for i in range(classes)] + list(itertools.combinations(range(classes), 2))
    tags = jnp.asarray([[float(i in s) for i in range(k)] for s in sets])
    found, curves = [], {}
    for reduction in ("sum", "mean"):

        def loss(p: tuple[Any, Any, Any], reduction: str = reduction) -> Any:
            w, h, b = p
            value = jnp.mean(pick_all_label(h @ w.T + b, tags, reduction))
            return value + decay / 2 * (jnp.sum(w**2) + jnp.sum(h**2) / len(sets) * k + jnp.sum(b**2))

        def solve(key: Any, loss: Any = loss) -> tuple[Any, Any]:
            a, c = jax.random.split(key)
            start = (jax.random.normal(a, (k, width)), jax.random.normal(c, (len(sets), width)), jnp.zeros(k))
            return solver.lbfgs(loss, start, steps)

        (weights, features, _), values = jax.jit(jax.vmap(solve))(jax.random.split(jax.random.key(0), seeds))
        cosines, angles, scales, aligned = [], [], [], []
        for w, h in zip(np.asarray(weights), np.asarray(features), strict=True):
            singles, pairs = h[:k], h[k:]
            sums = np.stack([singles[i] + singles[j] for i, j in itertools.combinations(range(k), 2)])
            cosines.append(np.abs((_unit(singles) @ _unit(singles).T)[~np.eye(k, dtype=bool)] + 1 / (k - 1)).max())
            angles.append(angle_metric(pairs, sums))
            scales.append(np.linalg.norm(pairs, axis=1) / np.linalg.norm(sums / 2, axis=1))
            aligned.append(1 - np.sum(_unit(w) * _unit(singles), axis=1).min())
        found += [
            checks.below(f"{reduction}: cosines of single-label means off -1/(K-1)", max(cosines), 1e-3),
            checks.below(f"{reduction}: angle of pair means to tag sums, over that to others", max(angles), 1e-4),
            checks.below(f"{reduction}: spread of the pair means' scale", float(np.ptp(scales)), 1e-3),
            checks.below(f"{reduction}: classifier off the single-label means, 1 - cosine", max(aligned), 1e-4),
        ]
        curves[reduction] = {"scale": float(np.mean(scales)), "losses": np.asarray(values).tolist()}
        curves[reduction]["gram"] = (_unit(np.asarray(features)[0]) @ _unit(np.asarray(features)[0]).T).tolist()
        run.say(f"{reduction}: pair means are {np.mean(scales):.4f} times the average of their tags' means")
    return checks.finish(run, found, curves)


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "Means of images with two labels are scaled sums of those with one, which form a simplex (Li et al., 2024)."
    caption = "Cosines of all means, singles first, then pairs; left the loss summed over labels, right averaged."
    return checks.sections(runs, "Several labels an image", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    with figures.panels(2, 2, 3.0, lines=False) as (figure, axes):
        for axis, (reduction, curve) in zip(axes, run.results["curves"].items(), strict=True):
            drawn = axis.imshow(curve["gram"], vmin=-1, vmax=1, cmap="RdBu_r")
            axis.set(title=f"{reduction}, scale {curve['scale']:.3f}")
        figure.colorbar(drawn, ax=axes, shrink=0.8)
        return figures.Drawn(f"pairs-{name}", figure)

"""Minority collapse under imbalance: when do the classes with few examples become one?

Hong & Ling (2023) study the unconstrained-features model with cross-entropy, unequal classes, and

    (1/N) sum_k n_k CE(W h_k + b, k) + l_W ||W||^2 + l_H sum_k n_k ||h_k||^2 + l_b ||b||^2,

features of a class being one at the optimum. Over factorisations of Z = W H the decay is l ||Z D^{1/2}||_*, with
l = 2 sqrt(l_W l_H) and D the class sizes. On differences of minority columns the gradient of the loss is sqrt(n_B)/N times
the
identity and has to lie within the ball of the nuclear norm: minority classes collapse onto one another iff
l >= sqrt(n_B) / N. (The threshold is derived here from those conditions.)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.values import COUNT, POSITIVE_SHARE, Items
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, solver

COLLAPSED = 0.01  # spread of minority logits, as a share of all: below, they are one
RATIO = 20.0  # of the decays of W and H, and of W's to b's


def _solve(decay: Any, sizes: np.ndarray, steps: int, key: Any) -> tuple[Any, Any]:
    """(Z [K, K], class means H [K, d]) of the minimiser at l = `decay`."""
    k = len(sizes)
    n, total = jnp.asarray(sizes, float), float(sizes.sum())
    of_w, of_h = decay * jnp.sqrt(RATIO) / 2, decay / jnp.sqrt(RATIO) / 2  # 2 sqrt(of_w of_h) = decay

    def loss(p: tuple[Any, Any, Any]) -> Any:
        w, h, b = p
        z = h @ w.T + b
        entropy = jax.nn.logsumexp(z, axis=1) - jnp.diagonal(z)
        return (
            jnp.sum(n * entropy) / total + of_w * jnp.sum(w**2) + of_h * jnp.sum(n[:, None] * h**2) + of_w * jnp.sum(b**2)
        )

    a, c = jax.random.split(key)
    scale = jnp.sqrt(jnp.sqrt(1 / n.mean()))
    start = (jax.random.normal(a, (k, k)) / jnp.sqrt(k), scale * jax.random.normal(c, (k, k)) / jnp.sqrt(k), jnp.zeros(k))
    (w, h, b), _ = solver.lbfgs(loss, start, steps)
    return h @ w.T + b, h


def spread(z: Any, few: int) -> Any:
    """Distance of the minority classes' logits from their mean, as a share of all logits'."""
    own = z[-few:, : z.shape[1] - few]
    inside = z[-few:, -few:]
    apart = jnp.sum((own - own.mean(0)) ** 2) + jnp.sum((inside - inside.mean(0)) ** 2)
    return jnp.sqrt(apart / jnp.sum((z - z.mean(1, keepdims=True)) ** 2))


@solver.in_double
def run(
    *,
    run: Run,
    many: Annotated[list[int], COUNT, Items(least=1)] = [5, 3, 7, 5, 5, 2, 8],
    few: Annotated[list[int], COUNT, Items(least=1)] = [5, 7, 3, 5, 5, 3, 12],
    large: Annotated[list[int], COUNT, Items(least=1)] = [500, 500, 500, 1000, 500, 300, 400],
    small: Annotated[list[int], COUNT, Items(least=1)] = [100, 100, 100, 100, 20, 100, 50],
    points: Annotated[int, COUNT] = 41,
    width: Annotated[float, POSITIVE_SHARE] = 0.2,
    steps: Annotated[int, COUNT] = 1500,
) -> dict[str, Any]:
    """Sweeps the decay about the predicted threshold in every setting, and looks at the minority's logits.

    Args:
      run: where it happens.
      many, few: classes with many and with few examples, by setting.
      large, small: examples of each, by setting.
      points: decays of a sweep, at equal distances.
      width: of the sweep, as a share of the threshold on either side.
      steps: of L-BFGS at most.
    """
    if len({len(x) for x in (many, few, large, small)}) > 1 or min(few) < 2:
        raise UserError("many, few, large, small: one number each for every setting, and two minority classes at least")
    found, curves = [], {}
    for a, b, n_a, n_b in zip(many, few, large, small, strict=True):
        sizes = np.array([n_a] * a + [n_b] * b)
        predicted = np.sqrt(n_b) / sizes.sum()
        decays = predicted * np.linspace(1 - width, 1 + width, points)
        one = jax.jit(jax.vmap(lambda decay, sizes=sizes: _solve(decay, sizes, steps, jax.random.key(0))))
        z, _ = one(jnp.asarray(decays))
        spreads = np.asarray(jax.vmap(lambda z, b=b: spread(z, b))(z))
        apart = np.flatnonzero(spreads > COLLAPSED)
        last = int(apart[-1]) if len(apart) else 0
        measured = float(decays[last : last + 2].mean())  # between the last that is spread and the first that is not
        name = f"{a} classes of {n_a}, {b} of {n_b}"
        uneven = _unevenness(predicted / 2, sizes, a, steps)
        found.append(checks.near(f"threshold, {name}", predicted, measured, 0.03))
        found.append(checks.below(f"block structure at half the threshold, {name}", uneven, 1e-3))
        curves[name] = {"over_threshold": (decays / predicted).tolist(), "spread": spreads.tolist()}
        run.say(f"{name}: predicted {predicted:.6f}, measured {measured:.6f}")
    off = [_to_etf(many[0], few[0], 10**power, steps) for power in (0, 2, 4)]
    falls = max(later / before for before, later in itertools.pairwise(off))
    found.append(checks.below("cosines off -1/(K-1), decay 0.1/N: with a hundred times the data over before", falls, 1.0))
    return checks.finish(run, found, curves)


def _unevenness(decay: float, sizes: np.ndarray, a: int, steps: int) -> float:
    """How far logits differ within a block (a size's diagonal, its off-diagonal, and each size against the other)."""
    z = np.asarray(_solve(decay, sizes, steps, jax.random.key(0))[0])
    k = len(z)
    eye = np.eye(k, dtype=bool)
    parts = [np.diagonal(z)[:a], np.diagonal(z)[a:], z[:a, a:], z[a:, :a], z[:a, :a][~eye[:a, :a]], z[a:, a:][~eye[a:, a:]]]
    return float(max(np.ptp(p) for p in parts if p.size) / np.ptp(z))


def _to_etf(a: int, b: int, times: int, steps: int) -> float:
    """Largest deviation of a cosine of class means from -1/(K-1): 500 and 100 examples, so many times, decay 0.1/N."""
    sizes = np.array([500] * a + [100] * b) * times
    h = np.asarray(_solve(0.1 / sizes.sum(), sizes, 4 * steps, jax.random.key(0))[1])
    h = h - h.mean(0)
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    k = a + b
    return float(np.abs((h @ h.T)[~np.eye(k, dtype=bool)] + 1 / (k - 1)).max())


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "The spread of minority logits falls to zero where decay 2 √(λ_W λ_H) reaches √n_B / N (Hong & Ling, 2023)."
    return checks.sections(runs, "Minority collapse", intro, ("Spread of minority logits over decay / threshold.", _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    with figures.panel(6.0, 3.4) as (figure, axis):
        for (label, curve), colour in zip(run.results["curves"].items(), figures.COLOURS * 2, strict=False):
            axis.plot(curve["over_threshold"], curve["spread"], lw=1, color=colour, label=label)
        axis.axvline(1, color="#888888", lw=0.8)
        axis.set(xlabel="decay over the predicted threshold", ylabel="spread of minority logits")
        figures.legend_below(figure, axis, 2)
        return figures.Drawn(f"imbalance-{name}", figure)

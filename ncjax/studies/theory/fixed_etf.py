"""Class-incremental learning towards targets fixed beforehand.

Yang et al. (2023) assign a simplex ETF to the whole label space before the first class is seen, and pull features to their
vertex by dot regression, 1/2 (cos(h, m_k) - 1)^2; "flying to collapse" moves the target from a class's present mean to its
vertex as a session goes on. Here: a perceptron, beside a learned classifier and cross-entropy on the ETF.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax.core.values import COUNT, POSITIVE
from ncjax.evidence import intervals
from ncjax.losses.etf import away_from_vertex, simplex_etf
from ncjax.losses.parts import unit
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, mlp
from ncjax.studies.theory.sessions import parts

HEADS = ("learned", "etf", "dot", "flying")
SCALE = 10.0  # inverse temperature of cosines, and weight of dot regression, as in the authors' code


def objective(head: str, h: Any, target: Any, classifier: Any, labels: Any, seen: Any) -> Any:
    """The loss of features h [N, D] and labels [N] under one of `HEADS`.

    Unit vectors `target` [K, D] are where classes are to go, `classifier` [D, K] the learned head, `seen` [K] 1 for
    classes that have come.
    """
    if head in ("dot", "flying"):
        return SCALE * jnp.mean(away_from_vertex(h, target[labels]))
    logits = h @ classifier if head == "learned" else SCALE * unit(h) @ target.T
    logits = jnp.where(seen > 0, logits, -1e9)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def run(
    *,
    run: Run,
    data: str = "embedded.fashion_mnist_mini",
    per_class: Annotated[int, COUNT] = 300,
    sessions: Annotated[int, COUNT] = 5,
    exemplars: Annotated[int, COUNT] = 20,
    seeds: Annotated[int, COUNT] = 5,
    lr: Annotated[float, POSITIVE] = 1e-3,
    steps: Annotated[int, COUNT] = 300,
    batch_size: Annotated[int, COUNT] = 64,
) -> dict[str, Any]:
    """Every head, all seeds at once: order of classes, exemplars, start and batches are a seed's, the same for all heads.

    Args:
      run: where it happens.
      data: images, flattened.
      per_class: training images of each class.
      sessions: equal parts of the classes.
      exemplars: of each earlier class, replayed.
      seeds: that many.
      lr, steps, batch_size: of a session, by Adam.
    """
    (x, y), (tx, ty) = mlp.images(data, "train", per_class), mlp.images(data, "test", per_class)
    k, dim = int(y.max()) + 1, 64
    etf = jnp.asarray(simplex_etf(k, dim), jnp.float32)
    rows, seen = parts(y, sessions, exemplars, per_class, seeds)
    x, y, tx, ty = map(jnp.asarray, (x, y, tx, ty))

    def one(key: Any, rows: Any, seen: Any, head: str) -> Any:
        adam, start = optax.adam(lr), jax.random.split(key, 3)
        params = (mlp.init(start[0], [x.shape[1], 256, 128, dim]), jax.random.normal(start[1], (dim, k)) / np.sqrt(dim))
        out = []
        for i in range(sessions):
            h = unit(mlp.features(params[0], x[rows[i]])[-1])
            belongs = jax.nn.one_hot(y[rows[i]], k)
            means = unit(belongs.T @ h)

            def step(state: Any, at: Any, i: int = i, means: Any = means) -> tuple[Any, None]:
                params, opt = state
                key, time = at
                batch = rows[i][jax.random.randint(key, (batch_size,), 0, len(rows[i]))]
                target = unit((1 - time) * means + time * etf) if head == "flying" else etf

                def loss(p: Any) -> Any:
                    return objective(head, mlp.features(p[0], x[batch])[-1], target, p[1], y[batch], seen[i])

                updates, opt = adam.update(jax.grad(loss)(params), opt)
                return (optax.apply_updates(params, updates), opt), None

            times = jnp.linspace(0, 1, steps)
            keys = jax.random.split(jax.random.fold_in(start[2], i), steps)
            (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), (keys, times))
            h = mlp.features(params[0], tx)[-1]
            logits = h @ params[1] if head == "learned" else unit(h) @ etf.T
            right = jnp.argmax(jnp.where(seen[i] > 0, logits, -jnp.inf), 1) == ty
            known = seen[i][ty]
            old = known * (1 - (jax.nn.one_hot(ty, k) @ (seen[i] - (seen[i - 1] if i else 0))))
            cosine = jnp.sum(unit(h) * etf[ty], axis=1)
            out.append((jnp.sum(right * known) / jnp.sum(known), jnp.sum(cosine * old) / jnp.maximum(jnp.sum(old), 1)))
        return jnp.stack([a for a, _ in out]), out[-1][1]

    keys, curves, old = jax.random.split(jax.random.key(0), seeds), {}, {}
    for head in HEADS:
        curve, cosine = jax.jit(jax.vmap(lambda a, b, c, head=head: one(a, b, c, head)))(
            keys, rows, jnp.asarray(seen, jnp.float32)
        )
        curves[head], old[head] = np.asarray(curve).tolist(), np.asarray(cosine).tolist()
        run.say(
            f"{head:<8} average incremental accuracy {intervals.percent(intervals.share(np.mean(curves[head], axis=1)))}"
        )

    def average(head: str) -> list[float]:
        return np.mean(curves[head], axis=1).tolist()

    gain, flying = (intervals.paired(average(a), average(b)) for a, b in (("dot", "learned"), ("flying", "dot")))
    run.say(f"dot - learned {intervals.points(gain, sign=True)}, flying - dot {intervals.points(flying, sign=True)} points")
    nearer = intervals.paired(old["dot"], old["etf"])
    found = [
        checks.exceeds("dot regression less learned head, points", gain, 100),
        checks.exceeds("flying less dot regression, points", flying, 100),
        checks.exceeds("cosine of old classes to their vertex, dot regression less ETF with cross-entropy", nearer),
    ]
    return checks.finish(run, found, {"accuracy": curves, "old": old})


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "New classes in parts, few exemplars of old ones: do fixed targets forget less than a learned classifier?"
    caption = "Test accuracy on the classes seen so far, mean over seeds, and 95 % intervals."
    return checks.sections(runs, "A classifier fixed before the classes come", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    with figures.panel(5.4, 3.4) as (figure, axis):
        for i, (head, curve) in enumerate(run.results["curves"]["accuracy"].items()):
            mean, low, high = (100 * np.array(v) for v in zip(*map(intervals.share, np.transpose(curve)), strict=True))
            at = np.arange(1, len(mean) + 1) + 0.05 * i
            error = [mean - low, high - mean]
            axis.errorbar(at, mean, error, fmt="o-", ms=3, lw=1, capsize=2, color=figures.COLOURS[i], label=head)
        axis.set(xlabel="session", ylabel="test accuracy on classes seen, %")
        figures.legend_below(figure, axis)
        return figures.Drawn(f"incremental-{name}", figure)

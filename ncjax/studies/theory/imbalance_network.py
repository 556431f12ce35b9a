"""Minority collapse in a trained network: does the threshold of unconstrained features hold for images?

`imbalance` derives that minority classes become one where the decay 2 sqrt(l_W l_H) reaches sqrt(n_B) / N. Here features
are those of a perceptron on an imbalanced cut of images, trained with the same loss,

    mean over batches of CE(W h + b, y) + l_H N ||h||^2,  + l_W ||W||^2 + l_b ||b||^2,

nothing else decayed, and decays a tenth of it for the first sixth of the training, as in the authors' code (Hong & Ling,
2023). Looked at are the logits of class means: are they one below and above the threshold, and do they fall into blocks?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax.core.errors import UserError
from ncjax.core.values import COUNT, POSITIVE, Items
from ncjax.evidence import intervals
from ncjax.report import figures
from ncjax.report.collect import Finished
from ncjax.report.sections import Section
from ncjax.runs.run import Run
from ncjax.studies.theory import checks, mlp
from ncjax.studies.theory.imbalance import RATIO, spread


def block_noise(z: np.ndarray, many: int) -> float:
    """Largest standard deviation of a block's off-diagonal logits z [K, K], over the range of the blocks' means."""
    eye = np.eye(len(z), dtype=bool)
    large, small = np.arange(len(z)) < many, np.arange(len(z)) >= many
    blocks = [z[np.outer(a, b) & ~eye] for a in (large, small) for b in (large, small)]
    blocks = [block for block in blocks if block.size]  # one class has no off-diagonal of its own
    means = [block.mean() for block in blocks] + [np.diagonal(z)[large].mean(), np.diagonal(z)[small].mean()]
    return float(max(block.std() for block in blocks) / np.ptp(means))


def run(
    *,
    run: Run,
    data: str = "embedded.fashion_mnist_mini",
    many: Annotated[int, COUNT] = 5,
    large: Annotated[int, COUNT] = 300,
    small: Annotated[int, COUNT] = 60,
    over: Annotated[list[float], POSITIVE, Items(least=2, distinct=True)] = [0.5, 0.8, 1.25, 1.5],
    below: Annotated[float, POSITIVE] = 0.8,
    above: Annotated[float, POSITIVE] = 1.5,
    seeds: Annotated[int, COUNT] = 5,
    lr: Annotated[float, POSITIVE] = 1e-3,
    steps: Annotated[int, COUNT] = 3000,
    batch_size: Annotated[int, COUNT] = 128,
) -> dict[str, Any]:
    """Trains perceptrons at several decays about the threshold, all seeds at once, and looks at class means' logits.

    Args:
      run: where it happens.
      data: images, flattened.
      many: classes with many images; the others have few. Which classes these are is a seed's.
      large, small: images of each of them.
      over: decays, over the threshold.
      below, above: the two of them that the rule is about: spread of the minority over 0.2 at the first, under 0.05 at the
        second, and blocks at the first, their noise under a tenth of their contrast.
      seeds: of classes, start and batches.
      lr, steps, batch_size: of Adam, its rate falling along a cosine.

    Raises:
      UserError: `below`, `above` are no decays on either side of 1, fewer than two classes have few images, or too many.
    """
    x, y = mlp.images(data, "train", large)
    k, least = int(y.max()) + 1, int(np.bincount(y).min())
    if not {below, above} <= set(over) or not below < 1 < above:
        raise UserError(f"below={below:g}, above={above:g}: one of over={over} on either side of 1")
    if k - many < 2 or not small < large <= least:
        raise UserError(
            f"many={many}, large={large}, small={small}: two of {k} classes at least have few images, and small < large <= "
            f"{least}, the images there are of every class"
        )
    total = many * large + (k - many) * small
    threshold = np.sqrt(small) / total
    sizes = [large] * many + [small] * (k - many)
    cuts = [mlp.cut(y, sizes, np.random.default_rng(seed)) for seed in range(seeds)]
    rows, labels = np.stack([rows for rows, _ in cuts]), np.stack([new[y[rows]] for rows, new in cuts])

    def trained(pixels: Any, key: Any, rows: Any, y: Any, decay: Any) -> Any:
        of_w, of_h = decay * np.sqrt(RATIO) / 2, decay / np.sqrt(RATIO) / 2  # 2 sqrt(of_w of_h) = decay
        start, order = jax.random.split(key)
        params = mlp.init(start, [x.shape[1], 256, 128, 64, k])

        def loss(state: Any, at: Any, share: float) -> Any:
            *body, (w, b) = state
            h = mlp.features(body, pixels[rows[at]])[-1]
            entropy = optax.softmax_cross_entropy_with_integer_labels(h @ w + b, y[at]).mean()
            return entropy + share * (
                of_h * total * jnp.mean(jnp.sum(h**2, axis=1)) + of_w * (jnp.sum(w**2) + jnp.sum(b**2))
            )

        first, first_key, second_key = steps // 6, *jax.random.split(order)
        options = {"images": total, "batch_size": batch_size}
        (params,) = mlp.fit(lambda p, at: loss(p, at, 0.1), params, first_key, lr=lr, steps=first, **options)
        falling = optax.cosine_decay_schedule(lr, steps - first)
        (params,) = mlp.fit(lambda p, at: loss(p, at, 1.0), params, second_key, lr=falling, steps=steps - first, **options)
        logits = mlp.features(params, pixels[rows])[-1]
        belongs = jax.nn.one_hot(y, k)
        return belongs.T @ logits / jnp.sum(belongs, axis=0)[:, None], jnp.mean(jnp.argmax(logits, axis=1) == y)

    pixels, keys = jnp.asarray(x), jax.random.split(jax.random.key(0), seeds)
    each = jax.jit(jax.vmap(trained, in_axes=(None, 0, 0, 0, None)))
    spreads, noise, accuracy = {}, {}, {}
    for ratio in over:
        z, right = each(pixels, keys, jnp.asarray(rows), jnp.asarray(labels), ratio * threshold)
        spreads[ratio] = [float(spread(logits, k - many)) for logits in z]
        noise[ratio] = [block_noise(np.asarray(logits), many) for logits in z]
        accuracy[ratio] = np.asarray(right).tolist()
        shown = "{:.3f} [{:.3f}, {:.3f}]".format(*intervals.mean(spreads[ratio]))
        run.say(f"decay {ratio:g} of the threshold: spread {shown}, train accuracy {np.mean(right):.3f}")
    found = [
        checks.above(f"spread of the minority at {below:g} of the threshold, least of seeds", min(spreads[below]), 0.2),
        checks.below(f"spread of the minority at {above:g} of the threshold, largest of seeds", max(spreads[above]), 0.05),
        checks.below(f"noise of the blocks at {below:g}, over their contrast, mean", float(np.mean(noise[below])), 0.1),
    ]
    curves = {"over": over, "spread": list(spreads.values()), "noise": list(noise.values())}
    return checks.finish(run, found, {**curves, "accuracy": list(accuracy.values()), "threshold": float(threshold)})


def section(runs: Sequence[Finished]) -> list[Section]:
    """A section for every run."""
    intro = "A perceptron on images, some classes with few of them: is its minority one where theory says so?"
    caption = "Spread of minority logits over decay / threshold, a dot a seed; dashed: the limits that the rule names."
    return checks.sections(runs, "Minority collapse of a network", intro, (caption, _draw))


def _draw(run: Finished, name: str) -> figures.Drawn:
    c = run.results["curves"]
    with figures.panel(5.4, 3.4) as (figure, axis):
        for ratio, spreads in zip(c["over"], c["spread"], strict=True):
            axis.plot([ratio] * len(spreads), spreads, "o", ms=3, alpha=0.6, color=figures.COLOURS[0])
        axis.plot(c["over"], np.mean(c["spread"], axis=1), lw=1, color=figures.COLOURS[0])
        axis.axvline(1, color="#888888", lw=0.8)
        for limit in (0.05, 0.2):
            axis.axhline(limit, color="#888888", lw=0.8, ls="--")
        axis.set(xlabel="decay over the predicted threshold", ylabel="spread of minority logits")
        return figures.Drawn(f"imbalance-network-{name}", figure)

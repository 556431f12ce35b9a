"""Few-shot episodes: the same index sets for every network, all episodes in one program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ncjax.core import programs
from ncjax.core.errors import UserError
from ncjax.core.types import Array


def episodes(
    labels: Int[np.ndarray, " N"], num_classes: int, shots: int, count: int, seed: int
) -> Int[np.ndarray, "E K m"]:
    """Rows of `shots` different examples of every class, for each of `count` episodes: a function of labels and seed.

    Raises:
      UserError: a class has fewer examples.
    """
    rng, out = np.random.default_rng([seed, shots]), np.empty((count, num_classes, shots), np.int32)
    for k in range(num_classes):
        rows = np.flatnonzero(labels == k)
        if len(rows) < shots:
            raise UserError(f"episodes of {shots} examples per class: class {k} has {len(rows)}")
        out[:, k] = rng.permuted(np.tile(rows, (count, 1)), axis=1)[:, :shots]
    return out


@programs.jit
def nearest_mean_accuracies(
    features: Float[Array, "N D"],
    rows: Int[Array, "E K m"],
    test_features: Float[Array, "T D"],
    test_labels: Int[Array, " T"],
) -> Float[Array, " E"]:
    """Test accuracy of the nearest of the class means that each episode's examples have.

    Args:
      features, rows: what episodes are made of, `episodes`.
      test_features, test_labels: what they are tried on.
    """

    def one(rows: Array) -> Array:
        means = jnp.mean(features[rows], axis=1)  # [K, D]
        score = jnp.matmul(test_features, means.T, precision="highest") - 0.5 * jnp.sum(jnp.square(means), axis=1)
        return jnp.mean(jnp.argmax(score, axis=1) == test_labels)

    return jax.lax.map(one, rows)

"""Few-shot episodes: the same index sets for every network, all episodes in one program."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ncjax.core import programs
from ncjax.core.errors import UserError
from ncjax.core.types import Array

ITERATIONS = 200  # of the logistic regression's solver: at its weakest strength the gradient is 1e-4 of the first


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


class Episodes(NamedTuple):
    """Index sets: in each episode some classes, and different examples of each to learn from and to be tried on."""

    support: Int[np.ndarray, "E w m"]  # rows
    query: Int[np.ndarray, "E w q"]

    def digest(self) -> str:
        """Of the index sets themselves."""
        return hashlib.sha256(b"".join(np.ascontiguousarray(x, np.int32).tobytes() for x in self)).hexdigest()[:12]


def draw(
    labels: Int[np.ndarray, " N"], num_classes: int, *, ways: int, shots: int, queries: int, count: int, seed: int
) -> Episodes:
    """Episodes of `ways` classes, drawn without replacement: a function of labels, numbers and seed.

    Raises:
      UserError: fewer classes than `ways`, or a class with fewer than `shots + queries` examples.
    """
    if ways > num_classes:
        raise UserError(f"episodes of {ways} classes: there are {num_classes}")
    rows = episodes(labels, num_classes, shots + queries, count, seed)
    rng = np.random.default_rng([seed, ways, shots])
    classes = rng.permuted(np.tile(np.arange(num_classes), (count, 1)), axis=1)[:, :ways]
    chosen = np.take_along_axis(rows, classes[:, :, None], axis=1)
    return Episodes(support=chosen[:, :, :shots], query=chosen[:, :, shots:])


def split_classes(num_classes: int, *, novel: int, val: int, seed: int) -> dict[str, list[int]]:
    """Base, validation and novel classes: a seeded order, of which the first are novel and the next for validation.

    Raises:
      UserError: no class is left for the base.
    """
    if num_classes <= novel + val:
        raise UserError(f"novel={novel}, val={val}: {num_classes} classes leave none for the base")
    order = np.random.default_rng([seed, num_classes]).permutation(num_classes)
    parts = {"novel": order[:novel], "val": order[novel : novel + val], "base": order[novel + val :]}
    return {name: sorted(x.tolist()) for name, x in parts.items()}


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
    return jax.lax.map(
        lambda rows: jnp.mean(jnp.argmax(nearest_mean(features[rows], test_features, 0.0), axis=1) == test_labels), rows
    )


def nearest_mean(
    support: Float[Array, "w m D"], query: Float[Array, "Q D"], strength: Array | float
) -> Float[Array, "Q w"]:
    """Scores by which the nearest class mean comes first: q.mu - ||mu||^2 / 2. It has no strength."""
    means = jnp.mean(support, axis=1)
    return jnp.matmul(query, means.T, precision="highest") - 0.5 * jnp.sum(jnp.square(means), axis=1)


def cosine(support: Float[Array, "w m D"], query: Float[Array, "Q D"], strength: Array | float) -> Float[Array, "Q w"]:
    """Cosines with the class means. It has no strength."""
    means = jnp.mean(support, axis=1)
    means = means / jnp.maximum(jnp.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return jnp.matmul(query, means.T, precision="highest")


def ridge(support: Float[Array, "w m D"], query: Float[Array, "Q D"], strength: Array | float) -> Float[Array, "Q w"]:
    """Least squares on one-hot labels less their mean, min_W ||X W - Y||^2 / n + s ||W||^2, X about the support's mean.

    Solved in its dual: (X X' + n s I) A = Y, W = X' A.
    """
    ways, shots, width = support.shape
    centre = jnp.mean(support, axis=(0, 1))
    x, q = support.reshape(-1, width) - centre, query - centre
    y = jnp.repeat(jnp.eye(ways) - 1 / ways, shots, axis=0)
    gram = jnp.matmul(x, x.T, precision="highest")
    dual = jax.scipy.linalg.solve(gram + len(x) * strength * jnp.eye(len(x)), y, assume_a="pos")
    return jnp.matmul(jnp.matmul(q, x.T, precision="highest"), dual, precision="highest")


def logistic(support: Float[Array, "w m D"], query: Float[Array, "Q D"], strength: Array | float) -> Float[Array, "Q w"]:
    """Multinomial logistic regression without intercept, min_W mean cross-entropy + s/2 ||W||^2, X about the support's
    mean.

    In the span of the support's features, n coordinates, by Nesterov's method with the constants of a strongly convex
    function: Lipschitz constant L = sigma_max(X)^2 / (2 n) + s, momentum (1 - sqrt(s / L)) / (1 + sqrt(s / L)).
    """
    ways, shots, width = support.shape
    centre = jnp.mean(support, axis=(0, 1))
    x, q = support.reshape(-1, width) - centre, query - centre
    values, vectors = jnp.linalg.eigh(jnp.matmul(x, x.T, precision="highest"))
    root = jnp.sqrt(jnp.maximum(values, 0))
    kept = root > 1e-4 * root[-1]  # the rest is rounding
    inside = vectors * jnp.where(kept, root, 0)  # [n, n]: the support in its own span
    outside = jnp.matmul(jnp.matmul(q, x.T, precision="highest"), vectors, precision="highest")
    outside = outside * jnp.where(kept, 1 / jnp.where(kept, root, 1), 0)
    n, y = len(x), jnp.repeat(jnp.eye(ways), shots, axis=0)
    steepest = 0.5 * jnp.square(root[-1]) / n + strength
    ratio = jnp.sqrt(strength / steepest)
    momentum = (1 - ratio) / (1 + ratio)

    def step(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        weight, ahead = state
        error = jax.nn.softmax(jnp.matmul(inside, ahead, precision="highest")) - y
        gradient = jnp.matmul(inside.T, error, precision="highest") / n + strength * ahead
        moved = ahead - gradient / steepest
        return moved, moved + momentum * (moved - weight)

    start = jnp.zeros((inside.shape[1], ways))
    weight, _ = jax.lax.fori_loop(0, ITERATIONS, step, (start, start))
    return jnp.matmul(outside, weight, precision="highest")


class Classifier(NamedTuple):
    """A classifier of few examples."""

    scores: Callable[..., Array]  # (support [w, m, D], query [Q, D], strength) -> [Q, w]
    normalised: bool  # whether it reads features about the base classes' mean, of unit length
    strengths: tuple[float, ...]  # to choose from on validation classes


CLASSIFIERS = {
    "nearest_mean": Classifier(nearest_mean, False, (0.0,)),
    "cosine": Classifier(cosine, True, (0.0,)),
    "ridge": Classifier(ridge, True, (1e-3, 1e-2, 1e-1, 1.0)),
    "logistic": Classifier(logistic, True, (1e-3, 1e-2, 1e-1)),
}


@functools.partial(programs.jit, static_argnames="name")
def accuracies(
    features: Float[Array, "N D"], support: Int[Array, "E w m"], query: Int[Array, "E w q"], strength: Array, *, name: str
) -> Float[Array, " E"]:
    """Accuracy of a classifier of `CLASSIFIERS` in every episode.

    Args:
      features: raw, or `normalised`, as the classifier asks.
      support, query: of `Episodes`.
      strength: of its regularisation.
      name: which.
    """
    classify = CLASSIFIERS[name].scores
    right = jnp.repeat(jnp.arange(query.shape[1]), query.shape[2])

    def one(rows: tuple[Array, Array]) -> Array:
        support, query = rows
        scores = classify(features[support], features[query].reshape(-1, features.shape[1]), strength)
        return jnp.mean(jnp.argmax(scores, axis=1) == right)

    return jax.lax.map(one, (support, query))


def normalised(features: Float[np.ndarray, "N D"], centre: Float[np.ndarray, " D"]) -> Float[np.ndarray, "N D"]:
    """Features about a centre, of unit length (SimpleShot's CL2N; Wang et al., 2019)."""
    moved = features - centre
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)

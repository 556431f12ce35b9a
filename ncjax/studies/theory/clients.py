"""Clients of federated training: how images are dealt, how a round goes, and what is measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax.losses.etf import simplex_etf, sparse_etf
from ncjax.losses.parts import unit
from ncjax.studies.theory import mlp

DIM = 64
SCALE = 10.0  # inverse temperature: of the sparse simplex, and FedETF's at the start
LENGTH = 1.7  # of the global head's rows once realigned, as in the authors' code
TAIL = 3  # classes with the fewest images

Params = dict[str, Any]


class Dealt(NamedTuple):
    """Images of a seed's clients."""

    rows: np.ndarray  # [clients, most], each one's over and over
    sizes: np.ndarray  # [clients]
    labels: np.ndarray  # of all images, classes renumbered so that sizes fall
    counts: np.ndarray  # [clients, K]
    renamed: np.ndarray  # [K], new labels by old


class Training(NamedTuple):
    """Gradient descent."""

    rounds: int
    local_steps: int
    lr: float
    batch_size: int


def deal(y: np.ndarray, clients: int, alpha: float, ratio: float, seed: int) -> Dealt:
    """Images for clients, class sizes falling geometrically to `ratio` of the largest.

    Args:
      y: labels.
      clients: how many.
      alpha: of the Dirichlet shares.
      ratio: smallest class over largest; 1 for classes of one size.
      seed: of the order of classes, and of the shares.
    """
    rng, k = np.random.default_rng(seed), int(y.max()) + 1
    largest = np.bincount(y).max()
    chosen, renamed = mlp.cut(y, [max(round(largest * ratio ** (c / (k - 1))), 2) for c in range(k)], rng)
    labels = renamed[y]
    found = [chosen[rows] for rows in shares(labels[chosen], clients, alpha, rng)]
    counts = np.stack([np.bincount(labels[rows], minlength=k) for rows in found]).astype(np.float32)
    rows = np.stack([np.resize(rows, len(chosen)) for rows in found])
    return Dealt(rows, np.array([len(rows) for rows in found]), labels, counts, renamed)


def shares(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows of each client: every class is divided by shares from a symmetric Dirichlet; no client stays empty."""
    while True:
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for c in range(labels.max() + 1):
            rows = rng.permutation(np.flatnonzero(labels == c))
            cuts = np.cumsum(rng.dirichlet([alpha] * clients))[:-1] * len(rows)
            for part, some in zip(parts, np.split(rows, cuts.round().astype(int)), strict=True):
                part.append(some)
        found = [np.concatenate(part) for part in parts]
        if min(map(len, found)) > 1:
            return found


def loss(method: str, shared: Params, own: Any, x: Any, y: Any, counts: Any) -> Any:
    """Of a client's batch.

    Args:
      method: "FedAvg", "FedETF" or "FedLoGe".
      shared: parameters that are averaged over clients.
      own: [DIM, K], its personal head.
      x, y: images and labels.
      counts: [K], its images of each class.
    """
    h, entropy = mlp.features(shared["body"], x)[-1], optax.softmax_cross_entropy_with_integer_labels
    k = len(counts)
    if method == "FedAvg":
        return entropy(h @ shared["head"], y).mean()
    if method == "FedETF":
        cosine = unit(h) @ jnp.asarray(simplex_etf(k, DIM), h.dtype).T
        return entropy(shared["temperature"] * cosine + jnp.log(jnp.maximum(counts, 1e-9)), y).mean()
    fixed, still = SCALE * unit(h) @ jnp.asarray(sparse_etf(k, DIM), h.dtype).T, jax.lax.stop_gradient(h)
    return sum(entropy(z, y).mean() for z in (fixed, still @ shared["head"], still @ own))


def logits(method: str, shared: Params, h: Any) -> Any:
    """Of the global model."""
    if method == "FedETF":
        return unit(h) @ jnp.asarray(simplex_etf(shared["head"].shape[1], DIM), h.dtype).T
    return h @ shared["head"]


def realigned(head: Any, lengths: Any = LENGTH) -> Any:
    """A head [DIM, K] whose columns have given lengths."""
    return head / jnp.linalg.norm(head, axis=0) * lengths


def trained(method: str, how: Training, pixels: Any, key: Any, dealt: Dealt) -> tuple[Any, Any, Any]:
    """(global model, personal heads [clients, DIM, K], clients' models before the last average).

    Args:
      method: see `loss`.
      how: rounds, and steps within them.
      pixels: images [N, D].
      key: of start and batches.
      dealt: who has which.
    """
    a, b, order = jax.random.split(key, 3)
    clients, k = dealt.counts.shape
    head = jax.random.normal(b, (DIM, k)) / np.sqrt(DIM)
    shared: Params = {"body": mlp.init(a, [pixels.shape[1], 128, DIM]), "head": head, "temperature": jnp.asarray(SCALE)}

    def client(shared: Params, own: Any, key: Any, rows: Any, size: Any, counts: Any) -> Any:
        def step(state: Any, key: Any) -> tuple[Any, None]:
            at = rows[jax.random.randint(key, (how.batch_size,), 0, size)]
            gradient = jax.grad(lambda s: loss(method, s[0], s[1], pixels[at], dealt.labels[at], counts))(state)
            return jax.tree.map(lambda p, g: p - how.lr * g, state, gradient), None

        return jax.lax.scan(step, (shared, own), jax.random.split(key, how.local_steps))[0]

    def turn(state: Any, key: Any) -> tuple[Any, None]:
        shared, own, _ = state
        mapped = jax.vmap(client, (None, 0, 0, 0, 0, 0))
        each, own = mapped(shared, own, jax.random.split(key, clients), dealt.rows, dealt.sizes, dealt.counts)
        weights = dealt.sizes / dealt.sizes.sum()
        return (jax.tree.map(lambda p: jnp.tensordot(weights, p, 1), each), own, each), None

    every = jax.tree.map(lambda p: jnp.broadcast_to(p, (clients, *p.shape)), shared)
    return jax.lax.scan(turn, (shared, every["head"], every), jax.random.split(order, how.rounds))[0]


def measured(
    method: str, state: tuple[Any, Any, Any], test: Any, labels: np.ndarray, counts: np.ndarray
) -> dict[str, float]:
    """What the global model and the personal heads do on test images, every class counted alike.

    Args:
      method: see `loss`.
      state: (global model, personal heads, clients' models), see `trained`.
      test, labels: images and labels.
      counts: [clients, K], training images.

    Returns:
      "accuracy" of the global model, on the last `TAIL` classes "tail", over classes as clients hold them "personal";
      "cosine" of clients' class means, each about its own mean over classes, mean over classes and pairs of clients; of
      FedLoGe also "realigned" and "tail_realigned", and "personal" is that of global and personal head together.
    """
    shared, own, each = state
    h = mlp.features(shared["body"], test)[-1]
    k, share = counts.shape[1], counts / counts.sum(1, keepdims=True)
    of_class = np.eye(k)[labels] / np.bincount(labels, minlength=k)

    def recall(z: Any) -> np.ndarray:
        return (np.asarray(jnp.argmax(z, axis=-1)) == labels) @ of_class

    plain = recall(logits(method, shared, h))
    means = jnp.einsum("nk,cnd->ckd", of_class, jax.vmap(lambda body: mlp.features(body, test)[-1])(each["body"]))
    means = np.asarray(means - means.mean(1, keepdims=True))
    means = means / np.linalg.norm(means, axis=2, keepdims=True)
    cosines = np.einsum("akd,bkd->kab", means, means)
    off = ~np.eye(len(counts), dtype=bool)
    found = {
        "accuracy": plain.mean(),
        "tail": plain[-TAIL:].mean(),
        "cosine": cosines[:, off].mean(),
        "personal": (share @ plain).mean(),
    }
    if method == "FedLoGe":
        after = recall(h @ realigned(shared["head"]))
        found |= {"realigned": after.mean(), "tail_realigned": after[-TAIL:].mean()}
        personal = []
        for c, head in enumerate(own):
            mixed = (
                jnp.where(jnp.asarray(counts[c]) > 0, h @ realigned(shared["head"], jnp.linalg.norm(head, axis=0)), -1e10)
                + h @ head
            )
            personal.append(share[c] @ recall(mixed))
        found["personal"] = np.mean(personal)
    return {name: float(v) for name, v in found.items()}

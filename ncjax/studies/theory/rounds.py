"""Rounds of federated training, and what a federation's models are worth."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax.losses.etf import simplex_etf, sparse_etf
from ncjax.losses.parts import unit
from ncjax.studies.theory import mlp
from ncjax.studies.theory.clients import Clients

DIM = 64
SCALE = 10.0  # inverse temperature: of the sparse simplex, and FedETF's at the start
LENGTH = 1.7  # of the global head's columns once realigned, as in the authors' code
TAIL = 3  # classes with the fewest images
OUT = -1e10  # logit of a class that a client does not have

Params = dict[str, Any]


class Training(NamedTuple):
    """Gradient descent."""

    rounds: int
    local_steps: int
    lr: float
    batch_size: int


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
        return shared["temperature"] * unit(h) @ jnp.asarray(simplex_etf(shared["head"].shape[1], DIM), h.dtype).T
    return h @ shared["head"]


def realign(head: Any, lengths: Any = LENGTH) -> Any:
    """A head [DIM, K] whose columns have given lengths."""
    return head / jnp.linalg.norm(head, axis=0) * lengths


def train(method: str, how: Training, pixels: Any, key: Any, clients: Clients) -> tuple[Any, Any, Any]:
    """(global model, personal heads [clients, DIM, K], clients' models before the last average).

    Args:
      method: see `loss`.
      how: rounds, and steps within them.
      pixels: images [N, D].
      key: of start and batches.
      clients: who has which.
    """
    a, b, order = jax.random.split(key, 3)
    count, k = clients.counts.shape
    head = jax.random.normal(b, (DIM, k)) / np.sqrt(DIM)
    shared: Params = {"body": mlp.init(a, [pixels.shape[1], 128, DIM]), "head": head, "temperature": jnp.asarray(SCALE)}

    def client(shared: Params, own: Any, key: Any, rows: Any, size: Any, counts: Any) -> Any:
        def step(state: Any, key: Any) -> tuple[Any, None]:
            at = rows[jax.random.randint(key, (how.batch_size,), 0, size)]
            gradient = jax.grad(lambda s: loss(method, s[0], s[1], pixels[at], clients.labels[at], counts))(state)
            return jax.tree.map(lambda p, g: p - how.lr * g, state, gradient), None

        return jax.lax.scan(step, (shared, own), jax.random.split(key, how.local_steps))[0]

    def one(state: Any, key: Any) -> tuple[Any, None]:
        shared, own, _ = state
        mapped = jax.vmap(client, (None, 0, 0, 0, 0, 0))
        each, own = mapped(shared, own, jax.random.split(key, count), clients.rows, clients.sizes, clients.counts)
        weights = clients.sizes / clients.sizes.sum()
        return (jax.tree.map(lambda p: jnp.tensordot(weights, p, 1), each), own, each), None

    every = jax.tree.map(lambda p: jnp.broadcast_to(p, (count, *p.shape)), shared)
    return jax.lax.scan(one, (shared, every["head"], every), jax.random.split(order, how.rounds))[0]


def personal_logits(method: str, shared: Params, own: Any, h: Any, counts: np.ndarray) -> dict[str, Any]:
    """{how: logits for a client}: "personal", the classes it does not have left out; "prior", its log class counts added.

    FedLoGe's "personal" is the global head at its personal head's lengths, absent classes left out, plus the personal head.
    """
    z, has = logits(method, shared, h), jnp.asarray(counts) > 0
    found = {"personal": jnp.where(has, z, OUT), "prior": jnp.where(has, z + jnp.log(jnp.maximum(counts, 1)), OUT)}
    if method == "FedLoGe":
        found["personal"] = jnp.where(has, h @ realign(shared["head"], jnp.linalg.norm(own, axis=0)), OUT) + h @ own
    return found


def evaluate(
    method: str, state: tuple[Any, Any, Any], test: Any, labels: np.ndarray, counts: np.ndarray
) -> dict[str, float]:
    """What the global model and personal ones do on test images.

    Args:
      method: see `loss`.
      state: (global model, personal heads, clients' models), see `train`.
      test, labels: images and labels.
      counts: [clients, K], training images.

    Returns:
      "accuracy" of the global model, every class alike, on the last `TAIL` classes "tail"; "personal" and "prior", see
      `personal_logits`, classes weighed as each client holds them; "cosine" of clients' class means, each about its own
      mean over classes, mean over classes and pairs of clients; of FedLoGe also "realigned" and "tail_realigned".
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
    cosines = np.einsum("akd,bkd->kab", means, means)[:, ~np.eye(len(counts), dtype=bool)]
    found = {"accuracy": plain.mean(), "tail": plain[-TAIL:].mean(), "cosine": cosines.mean()}
    for c, head in enumerate(own):
        for how, z in personal_logits(method, shared, head, h, counts[c]).items():
            found[how] = found.get(how, 0.0) + share[c] @ recall(z) / len(own)
    if method == "FedLoGe":
        after = recall(h @ realign(shared["head"]))
        found |= {"realigned": after.mean(), "tail_realigned": after[-TAIL:].mean()}
    return {name: float(v) for name, v in found.items()}

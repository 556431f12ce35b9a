"""Adversarial examples: perturbations of images, within a ball and the range of pixels, that a loss is largest for."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ncjax.core.errors import UserError
from ncjax.core.types import Array, Batch


def pgd(
    loss: Callable[[Float[Array, "B H W C"]], Array],
    batch: Batch,
    key: Array,
    *,
    epsilon: float,
    steps: int,
) -> Float[Array, "B H W C"]:
    """Images at most `epsilon` away from those of a batch, by projected gradient ascent in L-infinity (Madry et al., 2018).

    x_0 = x + u, u uniform in the ball;  x_{t+1} = clip(x_t + a sign(d loss / d x_t)), to the ball about x and to pixels of
    0 to 255, with steps of a = 2.5 epsilon / `steps`, so that any corner of the ball can be reached from any other.

    Args:
      loss: of images as the network takes them, normalised.
      batch: its images, and what pixels of 0 and 255 are among them.
      key: PRNG key of the start.
      epsilon: radius in pixels of 255; 0 returns the images themselves.
      steps: of the ascent.

    Raises:
      UserError: the batch holds activations, which have no range of pixels.
    """
    if epsilon == 0:
        return batch.image
    if batch.black is None or batch.white is None:
        raise UserError("adversarial examples are made of images, and these are activations of a frozen prefix")
    pixel = (batch.white - batch.black) / 255  # [B, 1, 1, C], what a step of one pixel value is after normalisation
    low = jnp.maximum(batch.image - epsilon * pixel, batch.black)
    high = jnp.minimum(batch.image + epsilon * pixel, batch.white)
    start = batch.image + epsilon * pixel * jax.random.uniform(key, batch.image.shape, batch.image.dtype, -1.0, 1.0)

    x = jnp.clip(start, low, high)
    for _ in range(steps):  # unrolled: a loop on the device makes gradients of convolutions forty times slower on CPUs
        x = jnp.clip(x + 2.5 * epsilon / steps * pixel * jnp.sign(jax.grad(loss)(x)), low, high)
    return jax.lax.stop_gradient(x)

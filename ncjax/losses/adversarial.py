"""Losses of adversarial examples."""

from __future__ import annotations

from typing import Annotated

import jax

from ncjax.core.errors import UserError
from ncjax.core.roles import LOSS, resolve
from ncjax.core.types import Loss, Objective, lift
from ncjax.core.values import COUNT, Range
from ncjax.losses.attacks import pgd

PIXEL = Range("from 0 to 255, in pixels", 0, 255)


def adversarial(
    loss: Annotated[str, LOSS] = "losses.cross_entropy",
    epsilon: Annotated[float, PIXEL] = 4.0,
    steps: Annotated[int, COUNT] = 5,
) -> Objective:
    """Another loss, of adversarial examples in place of images (Madry et al., 2018), see `ncjax.losses.attacks.pgd`.

    The attack sees the batch's own BatchNorm statistics; the running ones move with the adversarial batch alone.

    Args:
      loss: a loss of one view of each image.
      epsilon: radius of the ball in pixels of 255; 0 is the other loss itself.
      steps: gradients of the attack.

    Raises:
      UserError: an objective, or a loss that wants several views.
    """
    inner = resolve(loss, LOSS)()
    if not isinstance(inner, Loss) or inner.views > 1:
        raise UserError(f"losses.adversarial attacks a loss of one view of each image, and {loss} is none")
    plain = lift(inner)
    if epsilon == 0:
        return plain

    def value(apply, variables, batch, key):
        fixed = jax.lax.stop_gradient(variables)  # the step's own gradient does not run through the attack's

        def attacked(images):
            return inner.value(apply(fixed, images), batch.label, batch.mask)

        images = pgd(attacked, batch, key, epsilon=epsilon, steps=steps)
        return plain.value(apply, variables, batch._replace(image=images), key)

    return Objective(value, plain.evaluate)

"""Long arrays in parts: on a CPU what a part needs stays in the cache, so that the features are read once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ncjax.core.types import Array

TOGETHER = 1 << 21  # numbers that a part holds on a CPU, features and one column a class: what stays in its caches
DEVICE_ROWS = 1 << 16  # and on an accelerator


def rows_together(features: Array, num_classes: int) -> int:
    """Rows of features [N, D] to look at together: all of them where they are sharded over devices."""
    if len(features.sharding.device_set) > 1:
        return features.shape[0]
    cached = max(256, TOGETHER // (features.shape[1] + num_classes))
    return min(features.shape[0], cached if jax.default_backend() == "cpu" else DEVICE_ROWS)


def fold(step: Any, start: Any, features: Array, labels: Array, rows: int) -> Any:
    """Folds `step(carry, features, labels)` over chunks of rows."""
    whole = features.shape[0] // rows

    def body(carry: Any, i: Array) -> tuple[Any, None]:
        part = (jax.lax.dynamic_slice_in_dim(x, i * rows, rows) for x in (features, labels))
        return step(carry, *part), None

    carry = jax.lax.scan(body, start, jnp.arange(whole))[0] if whole > 1 else step(start, features[:rows], labels[:rows])
    rest = whole * rows
    return step(carry, features[rest:], labels[rest:]) if rest < features.shape[0] else carry

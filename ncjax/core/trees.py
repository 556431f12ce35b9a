"""Parameter trees: paths, masks, comparison, size. Everything about freezing starts from `split` and `join`."""

from __future__ import annotations

import fnmatch
import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ncjax.core.errors import UserError, nearest
from ncjax.core.types import PyTree

_absent = optax.MaskedNode()


def _is_absent(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def split(tree: PyTree, mask: PyTree) -> tuple[PyTree, PyTree]:
    """Splits `tree` by a tree of booleans into (chosen, rest); what is not there is `optax.MaskedNode()`, no leaf."""
    chosen = jax.tree.map(lambda keep, x: x if keep else _absent, mask, tree)
    rest = jax.tree.map(lambda keep, x: _absent if keep else x, mask, tree)
    return chosen, rest


def join(chosen: PyTree, rest: PyTree) -> PyTree:
    """The inverse of `split`."""
    return jax.tree.map(lambda a, b: b if _is_absent(a) else a, chosen, rest, is_leaf=_is_absent)


def paths(tree: PyTree) -> dict[str, Any]:
    """Leaves by slash-joined path, in tree order."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): leaf
        for path, leaf in flat
    }


def block_mask(params: PyTree, blocks: Sequence[str]) -> PyTree:
    """True on every leaf of the named blocks, False elsewhere. `params` is keyed by block."""
    return {name: jax.tree.map(lambda _, chosen=name in blocks: chosen, leaves) for name, leaves in params.items()}


def only(variables: PyTree, blocks: Sequence[str]) -> PyTree:
    """The named blocks of `variables`, whose every kind ("params", "batch_stats") is keyed by block."""
    return {kind: {name: tree[name] for name in blocks if name in tree} for kind, tree in variables.items()}


def match(pattern: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names that `pattern` selects, in order: exact names and globs, comma separated, or `re:REGEX` (full match).

    Raises:
      UserError: some part of the pattern selects nothing, or two parts select the same name.
    """
    if pattern.startswith("re:"):
        try:
            found = {n for n in names if re.fullmatch(pattern[3:], n)}
        except re.error as e:
            raise UserError(f"pattern {pattern!r} is not a regular expression: {e}") from None
        parts = {pattern: found}
    else:
        written = [part.strip() for part in pattern.split(",")]
        if len(set(written)) < len(written):
            raise UserError(f"pattern {pattern!r} names something twice")
        parts = {part: set(fnmatch.filter(names, part)) for part in written}
    chosen: dict[str, str] = {}
    for part, found in parts.items():
        if not found:
            raise UserError(f"pattern {part!r} matches no block; {nearest(part, names)} (blocks: {', '.join(names)})")
        for name in found:
            if name in chosen:
                raise UserError(f"patterns {chosen[name]!r} and {part!r} overlap: both match {name}")
            chosen[name] = part
    return tuple(n for n in names if n in chosen)


def count(tree: PyTree) -> int:
    """Number of scalars in the tree."""
    return sum(math.prod(np.shape(x)) for x in jax.tree.leaves(tree))


def nbytes(tree: PyTree) -> int:
    """Bytes held by the tree's arrays."""
    return sum(
        math.prod(np.shape(x)) * np.dtype(x.dtype).itemsize
        for x in jax.tree.leaves(tree)
        if hasattr(x, "dtype") and not jnp.issubdtype(x.dtype, jax.dtypes.extended)
    )


def digest(tree: PyTree) -> str:
    """First 16 hex digits of a SHA-256 over the names, types, shapes and bytes of the tree's leaves."""
    seen = hashlib.sha256()
    for path, leaf in sorted(paths(tree).items()):
        x = np.ascontiguousarray(leaf)
        seen.update(f"{path} {x.dtype} {x.shape}".encode())
        seen.update(x.tobytes())
    return seen.hexdigest()[:16]


def differences(found: PyTree, wanted: PyTree, limit: int = 4) -> str:
    """One line on how two trees differ in names and shapes; empty when they agree."""
    a, b = paths(found), paths(wanted)
    shape = {p: (np.shape(a[p]), np.shape(b[p])) for p in a.keys() & b.keys() if np.shape(a[p]) != np.shape(b[p])}
    groups = {
        "missing": sorted(b.keys() - a.keys()),
        "extra": sorted(a.keys() - b.keys()),
        "shapes differ": [f"{p} {x} instead of {y}" for p, (x, y) in sorted(shape.items())],
    }
    return "; ".join(
        f"{title}: {', '.join(items[:limit])}" + (f" and {len(items) - limit} more" if len(items) > limit else "")
        for title, items in groups.items()
        if items
    )


def matrix_shape(name: str, shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) of a module's kernel as the matrix by which it multiplies.

    Spatial and input axes are rows and the last one columns; an attention's query, key and value kernels, [I, heads, O],
    count as I by heads O.

    Args:
      name: the module's, "query" or "conv1".
      shape: of its kernel, two axes or more.
    """
    rows = shape[0] if name in ("query", "key", "value") else math.prod(shape[:-1])
    return rows, math.prod(shape) // rows

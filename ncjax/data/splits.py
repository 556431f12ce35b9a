"""Images of a split, and seeded parts of them."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncjax.data import images as im


class Split(NamedTuple):
    """Images and labels of one split."""

    images: np.ndarray | im.Lazy  # uint8 [N, H, W, C], or activations, floating point [N, ...], on the host or the device
    labels: np.ndarray  # [N] int32


def content_hash(split: Split) -> str:
    """First 12 hex digits of a SHA-256 over pixels (or file bytes, for sets read lazily) and labels."""
    return _hash(split) if isinstance(split.images, np.ndarray) else _hash_of_files(_Once(split))


def _hash(split: Split) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(split.labels, np.int32).tobytes())
    if isinstance(split.images, np.ndarray):
        digest.update(repr(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
    else:
        for item in split.images.items:
            digest.update(Path(item).read_bytes() if isinstance(item, str) else split.images.read(item).tobytes())
    return digest.hexdigest()[:12]


class _Once:
    """A split as a key: itself and no other."""

    def __init__(self, split: Split):
        self.split = split

    def __hash__(self) -> int:
        return hash((id(self.split.images), id(self.split.labels)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Once) and self.split.images is other.split.images and self.split.labels is other.split.labels
        )


@functools.lru_cache(maxsize=8)  # every file is read: once is enough
def _hash_of_files(held: _Once) -> str:
    return _hash(held.split)


def _by_class(labels: np.ndarray, split_seed: int, salt: int) -> list[np.ndarray]:
    """Row numbers of each class in a seeded order that does not depend on what other classes hold."""
    return [
        np.random.default_rng([split_seed, salt, k]).permutation(np.flatnonzero(labels == k)) for k in np.unique(labels)
    ]


def hold_out(split: Split, fraction: float, split_seed: int, salt: int) -> tuple[Split, Split]:
    """(kept, held out): a seeded `fraction` of every class, at least one and at most all but one of its images."""
    held = [
        rows[: min(max(1, round(fraction * len(rows))), len(rows) - 1)] if len(rows) else rows
        for rows in _by_class(split.labels, split_seed, salt)
    ]
    out = np.zeros(len(split.labels), bool)
    out[np.concatenate(held)] = True
    return select(split, np.flatnonzero(~out)), select(split, np.flatnonzero(out))


def nested_subset(split: Split, n_per_class: int, split_seed: int) -> Split:
    """The first `n_per_class` images of each class in a seeded order: the 10-shot set contains the 5-shot set."""
    chosen = [rows[:n_per_class] for rows in _by_class(split.labels, split_seed, salt=2)]
    return select(split, np.sort(np.concatenate(chosen)))


def select(split: Split, rows: np.ndarray) -> Split:
    """The given rows of a split."""
    return Split(im.subset(split.images, rows), split.labels[rows])


def keep_classes(split: Split, chosen: list[int]) -> Split:
    """Images of the chosen classes, which are counted from 0 on."""
    kept = select(split, np.flatnonzero(np.isin(split.labels, chosen)))
    return kept._replace(labels=np.searchsorted(chosen, kept.labels).astype(np.int32))


def merged(split: Split, groups: list[list[int]]) -> Split:
    """The same images, each labelled by the group that its class is in."""
    owner = {k: number for number, group in enumerate(groups) for k in group}
    lookup = np.array([owner[k] for k in range(len(owner))], np.int32)
    return split._replace(labels=lookup[split.labels])

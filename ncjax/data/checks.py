"""What is refused, left out, or said of a data set before anything is computed with it."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import numpy as np

from ncjax.core import memory
from ncjax.core.errors import UserError
from ncjax.data import images as im
from ncjax.data.readers import Raw
from ncjax.data.splits import Split, select


def checked(raw: Raw, name: str) -> dict[str, Split]:
    """The splits as a reader gave them, none empty, every label a class."""
    splits = {}
    for split, (images, labels) in raw.splits.items():
        if not len(labels):
            raise UserError(f"{name}: the {split} split is empty")
        if not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"{name}: {split} labels are {labels.dtype}, expected integers")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(raw.class_names):
            raise UserError(f"{name}: {split} labels run from {low} to {high}, outside [0, {len(raw.class_names)})")
        splits[split] = Split(images, labels.astype(np.int32))
    if "train" not in splits:
        raise UserError(f"{name}: no train split")
    return splits


def room(splits: dict[str, Split], fit: im.Fit, resident: int) -> None:
    """Refuses images that would be held in memory and do not fit, before the first is resized."""
    count, nbytes = 0, 0
    for images, labels in splits.values():
        height, width, channels = images.shape[1:] if isinstance(images, np.ndarray) else (1, 1, 3)
        size = len(labels) * (fit.size or height) * (fit.size or width) * (fit.channels or channels)
        if isinstance(images, np.ndarray) or size <= resident:
            count, nbytes = count + len(labels), nbytes + size
    memory.room(
        nbytes,
        f"{count} images of {fit.size or 'their'} pixels",
        "choose a smaller image_size, or a smaller resident_bytes, with which images of files stream",
    )


def fewer(splits: dict[str, Split], names: tuple[str, ...], wanted: int | None) -> list[str]:
    """Says where classes have fewer training images than are asked for."""
    counts = np.bincount(splits["train"].labels, minlength=len(names))
    short = [] if wanted is None else [k for k in np.flatnonzero(counts < wanted) if counts[k]]
    if not short:
        return []
    some = ", ".join(f"{names[k]} has {counts[k]}" for k in short[:3])
    return [
        f"n_per_class={wanted}: {len(short)} of {len(names)} classes have fewer training images, all are taken ({some})"
    ]


def alike(splits: dict[str, Split], name: str) -> None:
    """Refuses splits whose images differ in size or channels."""
    shapes = {key: im.take(split.images, np.arange(1)).shape[1:] for key, split in splits.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{key} {' x '.join(map(str, shape))}" for key, shape in shapes.items())
        raise UserError(f"{name}: images differ between splits ({found}): set image_size, and channels=1 or 3")


def untrained(splits: dict[str, Split], names: tuple[str, ...], source: str) -> list[str]:
    """Refuses classes that are asked for and never trained; says which names no image has."""
    trained = set(np.unique(splits["train"].labels).tolist())
    for key, split in splits.items():
        if unknown := sorted(set(np.unique(split.labels).tolist()) - trained):
            some = ", ".join(names[k] for k in unknown[:5])
            raise UserError(f"{source}: {key} has images of classes that train has none of: {some}")
    absent = [name for k, name in enumerate(names) if k not in trained]
    return [f"{len(absent)} of {len(names)} classes have no image: {', '.join(absent[:5])}"] if absent else []


def shared_images(splits: dict[str, Split]) -> list[str]:
    """Says how many images of a split are in the training split too, byte for byte."""
    if not all(isinstance(split.images, np.ndarray) for split in splits.values()):
        return _shared_files(splits)

    def digests(split: Split) -> list[bytes]:
        rows = np.ascontiguousarray(split.images).reshape(len(split.labels), -1)
        return [hashlib.blake2b(row.data, digest_size=8).digest() for row in rows]

    train = set(digests(splits["train"]))
    return _counted({key: sum(x in train for x in digests(s)) for key, s in splits.items() if key != "train"}, splits)


def _shared_files(splits: dict[str, Split]) -> list[str]:
    """The same of files that are read when asked for, those of one size compared."""
    files = {key: s.images.items.tolist() for key, s in splits.items() if isinstance(s.images, im.Lazy)}
    if len(files) < len(splits) or not all(isinstance(many[0], str) for many in files.values()):
        return []
    sizes: dict[int, list[str]] = {}
    for path in files["train"]:
        sizes.setdefault(os.path.getsize(path), []).append(path)

    @functools.cache
    def digest(path: str) -> bytes:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=8).digest()

    def known(path: str) -> bool:
        return any(digest(path) == digest(other) for other in sizes.get(os.path.getsize(path), ()))

    return _counted({key: sum(map(known, many)) for key, many in files.items() if key != "train"}, splits)


def _counted(shared: dict[str, int], splits: dict[str, Split]) -> list[str]:
    return [
        f"{n} of {len(splits[key].labels)} {key} images are in train too, byte for byte" for key, n in shared.items() if n
    ]


def decodable(splits: dict[str, Split]) -> tuple[dict[str, Split], int]:
    """The splits without images that do not decode, and how many those are."""
    kept, skipped = dict(splits), 0
    for key, split in splits.items():
        if isinstance(split.images, im.Lazy):
            good = im.decodable(split.images)
            skipped += int((~good).sum())
            kept[key] = select(split, np.flatnonzero(good))
    return kept, skipped

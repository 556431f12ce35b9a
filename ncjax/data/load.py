"""From a name to a `Dataset`: class subsets, splits, nested few-shot subsets, sizes, channels, normalisation, hashes."""

from __future__ import annotations

import functools
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from ncjax.core import memory
from ncjax.core.errors import UserError
from ncjax.core.options import check_block
from ncjax.core.values import COUNT, PART, PIXELS, POSITIVE_SHARE, SEED, SHARE, OneOf, Range
from ncjax.data import images as im
from ncjax.data.classes import parse_classes, parse_superclasses, ranges_of
from ncjax.data.readers import Raw, read

RESIDENT_BYTES = 2 << 30  # sets up to this size are decoded once and live on the device
MOMENT_IMAGES = 20_000  # images from which a lazily read set's normalisation is taken


class Split(NamedTuple):
    """Images and labels of one split."""

    images: np.ndarray | im.Lazy  # uint8 [N, H, W, C], or activations, floating point [N, ...], on the host or the device
    labels: np.ndarray  # [N] int32


class Dataset(NamedTuple):
    """A classification data set, ready for `ncjax.data.batches`."""

    name: str
    splits: dict[str, Split]  # "train", "test", and "val" unless val_fraction is 0 and the set has none
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]  # [C] of pixels / 255, over the training split
    std: tuple[float, ...]
    skipped: int  # images that did not decode (skip_bad)
    resident_bytes: int  # sets up to this size live on the device
    fit: im.Fit = im.Fit()  # how images came to their size
    notes: tuple[str, ...] = ()  # what a reader of results should know of the data, a line each

    def describe(self) -> dict[str, dict[str, Any]]:
        """Size and content hash of every split, and the share of its largest class."""
        return {
            name: {
                "size": len(s.labels),
                "hash": content_hash(s),
                "largest": self.largest(name),
            }
            for name, s in self.splits.items()
        }

    def largest(self, split: str) -> float:
        """The share of a split's largest class."""
        labels = self.splits[split].labels
        return float(np.bincount(labels).max() / len(labels))

    def identity(self) -> str:
        """All that a result depends on here, in 16 hex digits: images, how they came to their size, normalisation."""
        seen = (*(entry["hash"] for entry in self.describe().values()), self.fit, self.mean, self.std)
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


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


def _checked(raw: Raw, name: str) -> dict[str, Split]:
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


def _keep_classes(split: Split, chosen: list[int]) -> Split:
    kept = select(split, np.flatnonzero(np.isin(split.labels, chosen)))
    return kept._replace(labels=np.searchsorted(chosen, kept.labels).astype(np.int32))


def _merged(split: Split, groups: list[list[int]]) -> Split:
    owner = {k: number for number, group in enumerate(groups) for k in group}
    lookup = np.array([owner[k] for k in range(len(owner))], np.int32)
    return split._replace(labels=lookup[split.labels])


def _conformed(split: Split, fit: im.Fit, resident: int) -> Split:
    images = split.images
    if isinstance(images, np.ndarray):
        as_wanted = fit.size is None or (images.shape[1:3] == (fit.size, fit.size) and fit.resize in (None, fit.size))
        if as_wanted and fit.channels in (None, images.shape[-1]):
            return split
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = np.stack(list(pool.map(lambda x: im.conform(x, fit), images)))
    else:
        images = images._replace(fit=fit)
        one = im.read_one(images, images.items[0])
        if one.nbytes * im.length(images) <= resident:
            images = im.take(images, np.arange(im.length(images)))
    return Split(images, split.labels)


def _room(splits: dict[str, Split], fit: im.Fit, resident: int) -> None:
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


class Data(NamedTuple):
    """A labelled data set: which part of it, and how its images are prepared.

    Args:
      data: `embedded.NAME`, `npz:PATH`, `folder:PATH`, `tfds:NAME`, `hf:NAME`, or a reader of one's own,
        `file.py:function` or `my_package.function(key=value)`, which returns `ncjax.data.readers.Raw`.
      classes: class subset such as "0-4,7"; labels are renumbered from 0.
      superclasses: which classes are told apart no longer, such as "0,2-4/1/5,7", a group each between the strokes: labels
        become the group's number. Splits and subsets are drawn by the classes themselves, so that a set and its merged
        form hold the same images.
      n_per_class: training images per class, nested: a larger subset contains every smaller one.
      val_fraction: share of each class's training images held out where the set has no validation split; 0 for none.
      image_size: side in pixels; None keeps the set's own.
      resize: the short side before the central crop of `image_size`; None for `image_size`.
      interpolation: "bilinear" (None), "bicubic", "lanczos" or "nearest": Pillow's, antialiased.
      channels: 1 or 3; None keeps the set's own.
      skip_bad: leave out (and count) images that do not decode instead of stopping.
      split_seed: seed of the validation split and the subsets, apart from the training seed so that runs share their
        data. The test set is the same for every seed.
      val_per_class: validation images per class at most, nested too; None keeps all. With few labels, an honest number.
      max_test: test images at most, as many of each class as there are; None keeps all.
      mean, std: what images are normalised by, a number a channel, of pixels / 255; empty for those of the training images
        or, where a network is given, those it was trained with.
      resident_bytes: sets up to this many decoded bytes are kept in memory and on the device; larger ones stream.
    """

    data: str = "embedded.fashion_mnist_mini"
    classes: str | None = None
    superclasses: str | None = None
    n_per_class: Annotated[int | None, COUNT] = None
    val_fraction: Annotated[float, PART] = 0.1
    image_size: Annotated[int | None, PIXELS] = None
    resize: Annotated[int | None, PIXELS] = None
    interpolation: Annotated[str | None, OneOf(*im.INTERPOLATIONS)] = None
    channels: Annotated[int | None, Range("1 (grey) or 3 (RGB)", 1, 3)] = None
    skip_bad: bool = False
    split_seed: Annotated[int, SEED] = 0
    val_per_class: Annotated[int | None, COUNT] = None
    max_test: Annotated[int | None, COUNT] = None
    mean: Annotated[list[float], SHARE] = []
    std: Annotated[list[float], POSITIVE_SHARE] = []
    resident_bytes: Annotated[int, Range("0 or more", 0, 2**63)] = RESIDENT_BYTES

    def check(self) -> None:
        """Refuses a crop that is larger than what it comes out of, two channels, classes that are no numbers."""
        if self.resize is not None and (self.image_size is None or self.resize < self.image_size):
            raise UserError(
                f"resize={self.resize}, image_size={self.image_size}: the crop comes out of the resized image, so it "
                "cannot be larger"
            )
        if self.channels == 2:
            raise UserError("channels=2: 1 (grey) or 3 (RGB)")
        if self.classes is not None:
            ranges_of(str(self.classes))
        for part in [] if self.superclasses is None else self.superclasses.split("/"):
            ranges_of(part, f"superclasses={self.superclasses!r}")
        if len(self.mean) != len(self.std):
            raise UserError(f"mean={self.mean}, std={self.std}: both, a number a channel, or neither")


def load(options: Data) -> Dataset:
    """Loads a data set.

    Splits are made in this order: classes are chosen, a test split is held out if the set has none (a fifth), then a
    validation split (`val_fraction`), and only then the few-shot subset is taken from what is left.

    Raises:
      UserError: unknown name, unreadable file, labels out of range, fewer than two classes, an empty split.
    """
    check_block(options)
    raw = read(options.data)
    splits, names, skipped = _checked(raw, options.data), raw.class_names, 0
    notes = list(raw.notes)
    if options.skip_bad:
        splits, skipped = _decodable(splits)
    if options.classes is not None:
        chosen = parse_classes(str(options.classes), len(names))
        splits = {key: _keep_classes(split, chosen) for key, split in splits.items()}
        names = tuple(names[k] for k in chosen)
    splits = _held_out(splits, options)
    notes += _fewer(splits, names, options)
    splits = _subsets(splits, len(names), options)
    if options.superclasses is not None:
        groups = parse_superclasses(options.superclasses, len(names))
        splits = {key: _merged(split, groups) for key, split in splits.items()}
        names = tuple("+".join(names[k] for k in group) for group in groups)
    fit = _fit(options)
    for key, split in splits.items():
        if not len(split.labels):
            raise UserError(f"{options.data}: the {key} split is empty after classes, skip_bad and n_per_class")
    if len(np.unique(splits["train"].labels)) < 2:
        raise UserError(f"{options.data}: training images of one class only; collapse and classification need two")
    _room(splits, fit, options.resident_bytes)
    splits = {key: _conformed(split, fit, options.resident_bytes) for key, split in splits.items()}
    splits = {key: splits[key] for key in ("train", "val", "test") if key in splits}
    _alike(splits, options.data)
    notes += _untrained(splits, names, options.data) + _shared(splits)
    image_shape = im.take(splits["train"].images, np.arange(1)).shape[1:]
    mean, std = _normalisation(splits["train"], image_shape[-1], options)
    return Dataset(
        name=options.data,
        splits=splits,
        class_names=names,
        image_shape=image_shape,
        mean=mean,
        std=std,
        skipped=skipped,
        resident_bytes=options.resident_bytes,
        fit=fit,
        notes=tuple(notes),
    )


def _normalisation(train: Split, channels: int, options: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by which images are normalised: what is set, or those of the training images."""
    if options.mean:
        if len(options.mean) != channels:
            raise UserError(f"mean={options.mean}: {len(options.mean)} numbers for images of {channels} channels")
        return tuple(options.mean), tuple(options.std)
    rows = np.random.default_rng([options.split_seed, 3]).permutation(len(train.labels))
    mean, std = im.channel_moments(train.images, rows if isinstance(train.images, np.ndarray) else rows[:MOMENT_IMAGES])
    return tuple(mean.tolist()), tuple(std.tolist())


def _fewer(splits: dict[str, Split], names: tuple[str, ...], options: Data) -> list[str]:
    """Says where classes have fewer training images than are asked for."""
    wanted = options.n_per_class
    counts = np.bincount(splits["train"].labels, minlength=len(names))
    short = [] if wanted is None else [k for k in np.flatnonzero(counts < wanted) if counts[k]]
    if not short:
        return []
    some = ", ".join(f"{names[k]} has {counts[k]}" for k in short[:3])
    return [
        f"n_per_class={wanted}: {len(short)} of {len(names)} classes have fewer training images, all are taken ({some})"
    ]


def _alike(splits: dict[str, Split], name: str) -> None:
    """Refuses splits whose images differ in size or channels."""
    shapes = {key: im.take(split.images, np.arange(1)).shape[1:] for key, split in splits.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{key} {' x '.join(map(str, shape))}" for key, shape in shapes.items())
        raise UserError(f"{name}: images differ between splits ({found}): set image_size, and channels=1 or 3")


def _untrained(splits: dict[str, Split], names: tuple[str, ...], source: str) -> list[str]:
    """Refuses classes that are asked for and never trained; says which names no image has."""
    trained = set(np.unique(splits["train"].labels).tolist())
    for key, split in splits.items():
        if unknown := sorted(set(np.unique(split.labels).tolist()) - trained):
            some = ", ".join(names[k] for k in unknown[:5])
            raise UserError(f"{source}: {key} has images of classes that train has none of: {some}")
    absent = [name for k, name in enumerate(names) if k not in trained]
    return [f"{len(absent)} of {len(names)} classes have no image: {', '.join(absent[:5])}"] if absent else []


def _shared(splits: dict[str, Split]) -> list[str]:
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


def _decodable(splits: dict[str, Split]) -> tuple[dict[str, Split], int]:
    """The splits without images that do not decode, and how many those are."""
    kept, skipped = dict(splits), 0
    for key, split in splits.items():
        if isinstance(split.images, im.Lazy):
            good = im.decodable(split.images)
            skipped += int((~good).sum())
            kept[key] = select(split, np.flatnonzero(good))
    return kept, skipped


def _held_out(splits: dict[str, Split], options: Data) -> dict[str, Split]:
    splits = dict(splits)
    if "test" not in splits:
        splits["train"], splits["test"] = hold_out(splits["train"], 0.2, 0, salt=0)  # one test set for every seed
    if "val" not in splits and options.val_fraction > 0:
        splits["train"], splits["val"] = hold_out(splits["train"], options.val_fraction, options.split_seed, salt=1)
    return splits


def _subsets(splits: dict[str, Split], classes: int, options: Data) -> dict[str, Split]:
    splits = dict(splits)
    for key, wanted in (("train", "n_per_class"), ("val", "val_per_class")):
        count = getattr(options, wanted)
        if count is not None and key in splits:
            splits[key] = nested_subset(splits[key], count, options.split_seed)
    if options.max_test is not None:
        if options.max_test < classes:
            raise UserError(f"max_test={options.max_test}: at least one image for each of the {classes} classes")
        splits["test"] = nested_subset(splits["test"], options.max_test // classes, split_seed=0)
    return splits


def _fit(options: Data) -> im.Fit:
    return im.Fit(options.image_size, options.resize, options.interpolation or "bilinear", options.channels)

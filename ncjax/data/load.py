"""From a name to a `Dataset`: class subsets, splits, nested few-shot subsets, sizes, channels, normalisation, hashes."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, NamedTuple

import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.options import check_block
from ncjax.core.values import COUNT, PART, PIXELS, POSITIVE_SHARE, SEED, SHARE, OneOf, Range
from ncjax.data import images as im
from ncjax.data.checks import alike, checked, decodable, fewer, room, shared_images, untrained
from ncjax.data.classes import parse_classes, parse_superclasses, ranges_of
from ncjax.data.readers import read
from ncjax.data.splits import Split, content_hash, hold_out, keep_classes, merged, nested_subset

RESIDENT_BYTES = 2 << 30  # sets up to this size are decoded once and live on the device
MOMENT_IMAGES = 20_000  # images from which a lazily read set's normalisation is taken


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
    splits, names, skipped = checked(raw, options.data), raw.class_names, 0
    notes = list(raw.notes)
    if options.skip_bad:
        splits, skipped = decodable(splits)
    if options.classes is not None:
        chosen = parse_classes(str(options.classes), len(names))
        splits = {key: keep_classes(split, chosen) for key, split in splits.items()}
        names = tuple(names[k] for k in chosen)
    splits = _held_out(splits, options)
    notes += fewer(splits, names, options.n_per_class)
    splits = _subsets(splits, len(names), options)
    if options.superclasses is not None:
        groups = parse_superclasses(options.superclasses, len(names))
        splits = {key: merged(split, groups) for key, split in splits.items()}
        names = tuple("+".join(names[k] for k in group) for group in groups)
    fit = _fit(options)
    for key, split in splits.items():
        if not len(split.labels):
            raise UserError(f"{options.data}: the {key} split is empty after classes, skip_bad and n_per_class")
    if len(np.unique(splits["train"].labels)) < 2:
        raise UserError(f"{options.data}: training images of one class only; collapse and classification need two")
    room(splits, fit, options.resident_bytes)
    splits = {key: _conformed(split, fit, options.resident_bytes) for key, split in splits.items()}
    splits = {key: splits[key] for key in ("train", "val", "test") if key in splits}
    alike(splits, options.data)
    notes += untrained(splits, names, options.data) + shared_images(splits)
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

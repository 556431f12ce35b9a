"""Where labelled images come from. Each reader returns `Raw`; everything after that is shared by all of them."""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncjax.core.errors import UserError, nearest
from ncjax.core.roles import READER, resolve
from ncjax.data.images import Lazy, read_file

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Raw(NamedTuple):
    """Splits "train", "test" and perhaps "val" as (images, labels [N]); a set without "test" is split by seed."""

    splits: dict[str, tuple[np.ndarray | Lazy, np.ndarray]]
    class_names: tuple[str, ...]


def fashion_mnist_mini() -> Raw:
    """A cut of Fashion-MNIST: 28x28 grey, 10 classes, 400 training and 100 test images each. MIT licence."""
    path = importlib.resources.files("ncjax") / "data" / "files" / "fashion_mnist_mini.npz"
    with importlib.resources.as_file(path) as file:
        return read_npz(str(file))


def digits() -> Raw:
    """scikit-learn's digits: 8x8 grey, 10 classes, 1797 images, of which a seeded fifth of each class is the test set."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return Raw({"train": (images, bunch.target)}, tuple(str(i) for i in range(10)))


EMBEDDED = {f.__name__: f for f in (fashion_mnist_mini, digits)}


def read_npz(path: str) -> Raw:
    """An .npz file with x_train, y_train, x_test, y_test; optional x_val, y_val, class_names. Images uint8."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key[:2] in ("x_", "y_") or key == "class_names"}
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise UserError(f"{path} is not a readable .npz file ({e})") from None
    missing = [k for k in ("x_train", "y_train", "x_test", "y_test") if k not in arrays]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'no such arrays'}")
    splits = {}
    for split in ("train", "val", "test"):
        if f"x_{split}" not in arrays:
            continue
        if f"y_{split}" not in arrays:
            raise UserError(f"{path} has x_{split} but no y_{split}")
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        x = x[..., None] if x.ndim == 3 else x
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3):
            raise UserError(f"{path}: x_{split} is {x.dtype} {x.shape}; expected uint8 [N, H, W], [N, H, W, 1] or 3")
        if y.shape != x.shape[:1]:
            raise UserError(f"{path}: y_{split} has shape {y.shape} for {len(x)} images")
        splits[split] = (x, y)
    names = arrays.get("class_names")
    count = (
        len(names)
        if names is not None
        else max((int(y.max()) + 1 for _, y in splits.values() if y.size and np.issubdtype(y.dtype, np.integer)), default=0)
    )
    return Raw(splits, tuple(map(str, names)) if names is not None else tuple(map(str, range(count))))


def read_folder(path: str) -> Raw:
    """A folder of images: split/class/image (splits train, val, test) or class/image."""
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"no folder {path}")
    tops = sorted(p for p in root.iterdir() if p.is_dir())
    if any(p.name.lower() == "train" for p in tops):
        where = {SPLIT_NAMES[p.name.lower()]: p for p in tops if p.name.lower() in SPLIT_NAMES}
    else:
        where = {"train": root}
    names = sorted({p.name for folder in where.values() for p in folder.iterdir() if p.is_dir()})
    splits = {}
    for split, folder in where.items():
        files = [
            (str(f), label)
            for label, name in enumerate(names)
            if (folder / name).is_dir()
            for f in sorted((folder / name).iterdir())
            if f.suffix.lower() in EXTENSIONS
        ]
        if not files:
            raise UserError(f"{folder} holds no class/image files ({', '.join(EXTENSIONS)})")
        items = np.array([f for f, _ in files])
        splits[split] = (Lazy(items, read_file), np.array([label for _, label in files]))
    return Raw(splits, tuple(names))


def read_tfds(name: str) -> Raw:
    """A prepared tensorflow-datasets set with "image" and "label", read without TensorFlow."""
    import tensorflow_datasets as tfds

    prepare = f"pip install 'ncjax[tfds]' && tfds build {name} --file_format=array_record"
    try:
        builder: Any = tfds.builder(name)
    except Exception as e:  # tfds raises many kinds: unknown name, needs TensorFlow, ...
        raise UserError(f"tfds:{name} cannot be opened ({str(e).splitlines()[0]}); prepare it once: {prepare}") from None
    try:
        sources = {split: builder.as_data_source(split) for split in builder.info.splits}
        if not sources:
            raise ValueError("no splits found")
    except Exception as e:
        raise UserError(
            f"tfds:{name} is not prepared for reading without TensorFlow in {builder.data_dir} "
            f"({str(e).splitlines()[0]}); run once: {prepare}"
        ) from None
    if not {"image", "label"} <= set(builder.info.features):
        raise UserError(f"tfds:{name} has features {', '.join(builder.info.features)}; expected image and label")

    def read(source: Any, item: int) -> np.ndarray:
        image = np.asarray(source[int(item)]["image"])
        return image if image.ndim == 3 else image[..., None]

    splits = {}
    for split, source in sources.items():
        if split in SPLIT_NAMES:
            undecoded = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            labels = np.array([int(record["label"]) for record in undecoded])
            splits[SPLIT_NAMES[split]] = (Lazy(np.arange(len(source)), functools.partial(read, source)), labels)
    label = builder.info.features["label"]
    names = getattr(label, "names", None) or [str(i) for i in range(label.num_classes)]
    return Raw(splits, tuple(names))


def read(name: str) -> Raw:
    """Reads `embedded.NAME`, `npz:PATH`, `folder:PATH`, `tfds:NAME`, or what a reader of one's own returns.

    Raises:
      UserError: no such data set, or a reader that returns something else than `Raw`.
    """
    kind, _, rest = name.partition(":")
    readers = {"npz": read_npz, "folder": read_folder, "tfds": read_tfds}
    if kind in readers and rest:
        return readers[kind](rest)
    known = [f"embedded.{n}" for n in EMBEDDED]
    if name in known:
        return EMBEDDED[name.partition(".")[2]]()
    package = name.partition("(")[0].partition(".")[0]
    if ".py:" not in name and (package == "embedded" or not _installed(package)):
        raise UserError(
            f"no data set {name!r}; {nearest(name, known)}; also npz:PATH, folder:PATH, tfds:NAME, and readers of one's own"
        )
    raw = resolve(name, READER)()
    if not isinstance(raw, Raw):
        raise UserError(f"data={name}: returned {type(raw).__name__}, expected ncjax.data.readers.Raw")
    return raw


def _installed(package: str) -> bool:
    return package.isidentifier() and importlib.util.find_spec(package) is not None

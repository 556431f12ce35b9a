"""Where labelled images come from. Each reader returns `Raw`; everything after that is shared by all of them."""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import io
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ncjax.core.errors import UserError, meant, nearest
from ncjax.core.roles import READER, resolve
from ncjax.data.images import Lazy, decoded, picture_of

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ALMOST = ("testing", "tests", "dev", "devel", "eval", "evaluation", "holdout", "heldout")  # of folders beside a train
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Raw(NamedTuple):
    """Splits "train", "test" and perhaps "val" as (images, labels [N]); a set without "test" is split by seed."""

    splits: dict[str, tuple[np.ndarray | Lazy, np.ndarray]]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what lies there and was not read, a line each


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
    if (names := arrays.get("class_names")) is not None:
        return Raw(splits, tuple(map(str, names)))
    found = [np.unique(y) for _, y in splits.values() if y.size and np.issubdtype(y.dtype, np.integer)]
    known = np.unique(np.concatenate(found)) if found else np.zeros(0, int)
    if len(known) and known[0] >= 0 and len(known) <= known[-1]:
        shown = f"{known[0]}-{known[-1]}" if len(known) == known[-1] - known[0] + 1 else ", ".join(map(str, known[:6]))
        raise UserError(
            f"{path}: labels are {shown}: number them from 0 without gaps, or store class_names, a name for each of "
            f"0-{known[-1]}"
        )
    return Raw(splits, tuple(map(str, range(int(known.max(initial=-1)) + 1))))


def read_folder(path: str) -> Raw:
    """A folder of images: split/class/image (splits train, val, test) or class/image."""
    root = Path(path)
    if not root.is_dir():
        beside = [str(p) for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
        raise UserError(f"no folder {path}{meant(path, beside)}")
    where, notes = _splits_of(root)
    found = {split: _images_of(folder, notes) for split, folder in where.items()}
    names = sorted({name for classes in found.values() for name, files in classes.items() if files})
    empty = sorted({name for classes in found.values() for name in classes} - set(names))
    if empty and names:
        notes.append(f"no class: folders without images: {', '.join(empty[:5])}")
    splits = {}
    for split, classes in found.items():
        if not any(classes.values()):
            raise UserError(f"{where[split]} holds no class/image files ({', '.join(EXTENSIONS)})")
        unknown = [name for name in names if split != "train" and classes.get(name) and not found["train"].get(name)]
        if unknown:
            raise UserError(
                f"{where[split]} has classes that {where['train']} has no image of: {', '.join(unknown[:5])}; "
                f"{nearest(unknown[0], found['train'])}"
            )
        lacking = [name for name in names if not classes.get(name)]
        if lacking:
            notes.append(f"{split} has no image of {len(lacking)} of {len(names)} classes: {', '.join(lacking[:5])}")
        files = [(str(file), label) for label, name in enumerate(names) for file in classes.get(name, ())]
        splits[split] = (Lazy(np.array([f for f, _ in files]), picture_of), np.array([label for _, label in files]))
    return Raw(splits, tuple(names), tuple(notes))


def _splits_of(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split, and what else lies beside them; the whole is "train" where there is none of that name."""
    tops = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not any(SPLIT_NAMES.get(p.name.lower()) == "train" for p in tops):
        return {"train": root}, []
    where: dict[str, Path] = {}
    others = []
    for top in tops:
        split = SPLIT_NAMES.get(top.name.lower())
        if split is None and top.name.lower() in ALMOST:
            raise UserError(f"{top}: which split is that? Call it train, val or test, or move it elsewhere")
        if split in where:
            raise UserError(f"{where[split]} and {top} are both the {split} split: keep one, or join them")
        if split is None:
            others.append(top.name)
        else:
            where[split] = top
    return where, [f"not read, as no split is called so: {', '.join(others[:5])}"] if others else []


def _images_of(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """{class: its images} of a split's folder; what lies there and is not read is added to the notes, with counts."""
    found: dict[str, list[Path]] = {}
    types: dict[str, int] = {}
    nested: dict[str, int] = {}
    for file in (p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if file.suffix.lower() in EXTENSIONS:
            nested[folder.name] = nested.get(folder.name, 0) + 1
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        found[place.name] = []
        for path in sorted(place.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                count = sum(p.suffix.lower() in EXTENSIONS for p in path.rglob("*"))
                nested[f"{place.name}/{path.name}"] = count
            elif path.suffix.lower() in EXTENSIONS:
                found[place.name].append(path)
            else:
                types[path.suffix.lower() or "none"] = types.get(path.suffix.lower() or "none", 0) + 1
    count = sum(nested.values())
    if count:
        places = ", ".join(name for name, n in nested.items() if n)
        notes.append(f"not read: {count} images in {folder} that do not lie in a class's own folder ({places[:100]})")
    if types:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(types.items()))
        notes.append(
            f"not read: {sum(types.values())} files in {folder} of other types ({kinds}); read: {' '.join(EXTENSIONS)}"
        )
    return found


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
            _check_shards(name, builder.info.splits[split])
            undecoded = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            labels = np.array([int(record["label"]) for record in undecoded])
            splits[SPLIT_NAMES[split]] = (Lazy(np.arange(len(source)), functools.partial(read, source)), labels)
    label = builder.info.features["label"]
    names = getattr(label, "names", None) or [str(i) for i in range(label.num_classes)]
    return Raw(splits, tuple(names))


def read_hf(name: str) -> Raw:
    """A set of Hugging Face `datasets`: `OWNER/NAME` or a folder that it saved or can load, then `@CONFIG`, then `#LABEL`.

    The image is the column of that type, or one called image or img. The label is the column that is named; else one called
    label, labels or fine_label; else the only one of type `ClassLabel`. Images whose label is -1 are left out, and splits
    of them alone.

    Raises:
      UserError: it cannot be opened, or it cannot be told which column is meant.
    """
    try:
        import datasets as hf  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(f"data=hf:{name} needs datasets: pip install 'ncjax[hf]'") from None
    place, _, wanted = name.partition("#")
    splits = _hf_splits(hf, place)
    features = next(iter(splits.values())).features
    image = _column(features, name, hf.Image, ("image", "img"))
    if wanted and wanted not in features:
        raise UserError(f"hf:{place} has columns {', '.join(features)}; none is called {wanted}")
    label = wanted or _column(features, name, hf.ClassLabel, ("label", "labels", "fine_label"))
    out: dict[str, tuple[Lazy, np.ndarray]] = {}
    notes = []
    for split, rows in splits.items():
        kept, labels = SPLIT_NAMES.get(split.lower()), np.asarray(rows[label])
        if kept is None or kept in out:
            notes.append(
                f"not read, as no split is called so: {split}" if kept is None else f"not read: {split}, a second {kept}"
            )
            continue
        if not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"hf:{name}: {label} holds {labels.dtype}, expected integers or class labels")
        known = np.flatnonzero(labels >= 0)
        if len(known) < len(labels):
            notes.append(f"{split}: {len(labels) - len(known)} of {len(labels)} images have no label, and are left out")
        if len(known):
            undecoded = rows.cast_column(image, hf.Image(decode=False)) if isinstance(features[image], hf.Image) else rows
            out[kept] = (Lazy(known, functools.partial(_hf_image, undecoded, image, name)), labels[known])
    count = 1 + max((int(y.max()) for _, y in out.values()), default=-1)
    names = getattr(features[label], "names", None) or [str(i) for i in range(count)]
    return Raw(dict(out), tuple(map(str, names)), tuple(notes))


def _hf_splits(hf: Any, name: str) -> dict[str, Any]:
    path, _, variant = name.partition("@")
    local = Path(path).expanduser()
    try:
        if any((local / marker).exists() for marker in ("dataset_dict.json", "state.json")):
            found = hf.load_from_disk(str(local))
        else:
            found = hf.load_dataset(str(local) if local.is_dir() else path, variant or None)
    except Exception as e:  # datasets raises many kinds: unknown name, no network, a gated set, ...
        raise UserError(f"hf:{name} cannot be opened ({' '.join(str(e).split())[:200]})") from None
    return dict(found) if isinstance(found, dict) else {"train": found}


def _column(features: Any, name: str, kind: type, called: tuple[str, ...]) -> str:
    """The column of one of these names, else the only one of a type."""
    named = [key for key in called if key in features]
    typed = [key for key, feature in features.items() if isinstance(feature, kind)]
    found = [key for key in named if key in typed] or named or typed
    if not found:
        raise UserError(
            f"hf:{name} has columns {', '.join(features)}; expected one of {kind.__name__}, or called {called[0]}"
        )
    if not named and len(typed) > 1:
        raise UserError(
            f"hf:{name} has several columns of {kind.__name__}: {', '.join(typed)}; say which: hf:NAME#{typed[0]}"
        )
    return found[0]


def _hf_image(rows: Any, column: str, name: str, item: int) -> np.ndarray | Image.Image:
    """An image as the file that holds it is decoded: upright, 8 bits, grey or RGB."""
    held, place = rows[int(item)][column], f"hf:{name}, row {item}"
    if isinstance(held, dict):
        return decoded(io.BytesIO(held["bytes"]) if held.get("bytes") else held["path"], place)
    x = np.asarray(held)
    if x.dtype != np.uint8:
        raise UserError(f"{place}: {column} holds {x.dtype}, expected images or uint8")
    return x if x.ndim == 3 else x[..., None]


def _check_shards(name: str, split: Any) -> None:
    """Names a file of a prepared split that is missing, cut short, or holds fewer records than it should."""
    from array_record.python.array_record_module import ArrayRecordReader

    for path, wanted in zip(split.filepaths, split.shard_lengths, strict=False):
        try:
            if not Path(path).is_file():
                raise OSError("it is missing")
            reader = ArrayRecordReader(str(path))
            found = reader.num_records()
            reader.close()
            if found != wanted:
                raise OSError(f"{found} records of {wanted}")
        except Exception as e:  # array_record raises many kinds for a damaged file
            reason = next(iter(str(e).splitlines()), type(e).__name__)[:160]
            raise UserError(f"tfds:{name}: {path} cannot be read ({reason}); prepare the set again") from None


def read(name: str) -> Raw:
    """Reads `embedded.NAME`, `npz:PATH`, `folder:PATH`, `tfds:NAME`, `hf:NAME`, or what a reader of one's own returns.

    Raises:
      UserError: no such data set, or a reader that returns something else than `Raw`.
    """
    kind, _, rest = name.partition(":")
    readers = {"npz": read_npz, "folder": read_folder, "tfds": read_tfds, "hf": read_hf}
    if kind in readers and rest:
        return readers[kind](os.path.expanduser(rest) if kind in ("npz", "folder") else rest)
    known = [f"embedded.{n}" for n in EMBEDDED]
    if name in known:
        return EMBEDDED[name.partition(".")[2]]()
    package = name.partition("(")[0].partition(".")[0]
    if Path(name).expanduser().is_dir():
        raise UserError(f"data={name} is a folder: did you mean folder:{name}?")
    if name.endswith(".npz") and Path(name).expanduser().is_file():
        raise UserError(f"data={name} is a file: did you mean npz:{name}?")
    if ".py:" not in name and (package == "embedded" or not _installed(package)):
        raise UserError(
            f"no data set {name!r}; {nearest(name, known)}; also npz:PATH, folder:PATH, tfds:NAME, hf:NAME, and "
            "readers of one's own"
        )
    raw = resolve(name, READER)()
    if not isinstance(raw, Raw):
        raise UserError(f"data={name}: returned {type(raw).__name__}, expected ncjax.data.readers.Raw")
    return raw


def _installed(package: str) -> bool:
    return package.isidentifier() and importlib.util.find_spec(package) is not None

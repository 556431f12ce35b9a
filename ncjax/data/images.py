"""Pixels on the host: decoding, resizing, channels. Every set takes this one route, always through Pillow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ncjax.core.errors import UserError

INTERPOLATIONS = {name: getattr(Image.Resampling, name.upper()) for name in ("nearest", "bilinear", "bicubic", "lanczos")}


class Fit(NamedTuple):
    """How an image comes to its size."""

    size: int | None = None  # side of the central crop; None leaves the image as it is
    resize: int | None = None  # of the short side, before; None for `size`
    interpolation: str = "bilinear"  # Pillow's, antialiased
    channels: int | None = None  # 1 or 3; None keeps them


def conform(image: np.ndarray, fit: Fit) -> np.ndarray:
    """One uint8 image [H, W, C] -> the wanted side and channels.

    Grey to RGB repeats the channel; RGB to grey is the ITU-R 601 luma. The short side is scaled to `fit.resize`, then the
    centre cropped.
    """
    size, channels = fit.size, fit.channels
    resize = fit.resize or size
    if channels not in (None, image.shape[-1]):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        image = np.asarray(picture.convert("RGB" if channels == 3 else "L")).reshape(*image.shape[:2], channels)
    height, width = image.shape[:2]
    if size is None:
        return image
    if min(height, width) != resize:
        scale = resize / min(height, width)
        height, width = max(resize, round(height * scale)), max(resize, round(width * scale))
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        image = np.asarray(picture.resize((width, height), INTERPOLATIONS[fit.interpolation])).reshape(height, width, -1)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def read_file(path: str) -> np.ndarray:
    """Decodes one image file to uint8 [H, W, C], C = 1 for grey files and 3 otherwise.

    It is turned as its EXIF orientation says; of 16-bit files (0 to 65535) the upper eight bits are taken; of an animation
    the first frame; transparency is left out.

    Raises:
      UserError: it does not decode, or its numbers have no fixed range (32-bit and floating-point TIFF).
    """
    try:
        with Image.open(path) as picture:
            image = _eight_bits(ImageOps.exif_transpose(picture), picture.format, path)
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, Image.DecompressionBombError) as e:
        reason = str(e).replace(repr(path), "").strip() or type(e).__name__
        raise UserError(f"{path} does not decode as an image ({reason}); remove it, or set skip_bad=True") from None
    return image.reshape(*image.shape[:2], -1)


def _eight_bits(picture: Image.Image, kind: str | None, path: str) -> np.ndarray:
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and kind == "PNG"):  # which older Pillow opens a 16-bit PNG as
        return (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
    if mode in ("I", "F"):
        raise UserError(f"{path} holds {'floating-point' if mode == 'F' else '32-bit'} numbers; save it with 8 or 16 bits")
    grey = mode in ("1", "L", "LA", "La") or (mode == "P" and _grey_palette(picture))
    return np.asarray(picture.convert("L" if grey else "RGB"))


def _grey_palette(picture: Image.Image) -> bool:
    colours = np.asarray(picture.getpalette() or [], np.uint8)
    colours = colours[: len(colours) // 3 * 3].reshape(-1, 3)
    return bool(len(colours)) and bool((colours == colours[:, :1]).all())


class Lazy(NamedTuple):
    """Images read when asked for: `read(item) -> uint8 [H, W, C]`, then `conform`ed."""

    items: np.ndarray  # [N] paths or record numbers
    read: Callable[[Any], np.ndarray]
    fit: Fit = Fit()


def read_one(images: Lazy, item: Any) -> np.ndarray:
    """Reads and conforms a single item."""
    return conform(images.read(item), images.fit)


def take(images: np.ndarray | Lazy, rows: np.ndarray) -> np.ndarray:
    """uint8 [len(rows), H, W, C]; lazy images are decoded by a pool of threads (Pillow lets go of the GIL)."""
    if isinstance(images, np.ndarray):
        return images[rows]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(lambda item: read_one(images, item), images.items[rows]))
    shapes = {x.shape for x in read}
    if len(shapes) > 1:
        odd = next(i for i, x in enumerate(read) if x.shape != read[0].shape)
        raise UserError(
            f"images differ in shape: {images.items[rows[0]]} is {read[0].shape}, "
            f"{images.items[rows[odd]]} is {read[odd].shape}; set image_size (and channels=1 or 3)"
        )
    return np.stack(read)


def decodable(images: Lazy) -> np.ndarray:
    """[N] booleans: which items decode. Reads everything once."""

    def check(item: Any) -> bool:
        try:
            images.read(item)
        except UserError:
            return False
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.array(list(pool.map(check, images.items)), bool)


def subset(images: np.ndarray | Lazy, rows: np.ndarray) -> np.ndarray | Lazy:
    """The chosen rows, still lazy if the images were."""
    return images[rows] if isinstance(images, np.ndarray) else images._replace(items=images.items[rows])


def length(images: np.ndarray | Lazy) -> int:
    """Number of images."""
    return len(images) if isinstance(images, np.ndarray) else len(images.items)


def channel_moments(images: np.ndarray | Lazy, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [C] of pixels / 255 over the given rows, in float64, a few hundred at a time."""
    total, squares, count = np.zeros(()), np.zeros(()), 0
    for part in np.array_split(np.asarray(rows), max(1, len(rows) // 512)):
        x = take(images, part)
        x = x.reshape(-1, x.shape[-1]) / 255.0
        total, squares, count = total + x.sum(0), squares + np.square(x).sum(0), count + len(x)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-8))

"""Pixels on the host: decoding, resizing, channels. Every set takes this one route, always through Pillow."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ncjax.core.errors import UserError

INTERPOLATIONS = {name: getattr(Image.Resampling, name.upper()) for name in ("nearest", "bilinear", "bicubic", "lanczos")}


class Fit(NamedTuple):
    """How an image comes to its size."""

    size: int | None = None  # side of the central crop; None leaves the image as it is
    resize: int | None = None  # of the short side, before; None for `size`
    interpolation: str = "bilinear"  # Pillow's, antialiased
    channels: int | None = None  # 1 or 3; None keeps them


def conform(image: np.ndarray | Image.Image, fit: Fit) -> np.ndarray:
    """One uint8 image [H, W, C], or Pillow's (L or RGB) -> the wanted side and channels, uint8 [H, W, C].

    Grey to RGB repeats the channel; RGB to grey is the ITU-R 601 luma. The short side is scaled to `fit.resize`, then the
    centre cropped.
    """
    if isinstance(image, np.ndarray):
        side = fit.size or image.shape[0]
        same = fit.size is None or (image.shape[:2] == (side, side) and fit.resize in (None, side))
        if same and fit.channels in (None, image.shape[-1]):
            return image  # of any number of channels
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if fit.channels not in (None, len(picture.getbands())):
        picture = picture.convert("RGB" if fit.channels == 3 else "L")
    if fit.size is not None:
        (width, height), size, resize = picture.size, fit.size, fit.resize or fit.size
        if min(height, width) != resize:
            scale = resize / min(height, width)
            height, width = max(resize, round(height * scale)), max(resize, round(width * scale))
            picture = picture.resize((width, height), INTERPOLATIONS[fit.interpolation])
        top, left = (height - size) // 2, (width - size) // 2
        picture = picture.crop((left, top, left + size, top + size)) if (width, height) != (size, size) else picture
    return _array(picture)


def _array(picture: Image.Image) -> np.ndarray:
    x = np.asarray(picture)
    return x[..., None] if x.ndim == 2 else x


def read_file(path: str) -> np.ndarray:
    """Decodes one image file to uint8 [H, W, C], as `decoded` does."""
    return _array(picture_of(path))


def picture_of(path: str) -> Image.Image:
    """Decodes one image file, as `decoded` does."""
    return decoded(str(path), str(path))


def decoded(file: str | BinaryIO, path: str) -> Image.Image:
    """One image with eight bits a channel, grey (mode L) for grey files and RGB otherwise.

    It is turned as its EXIF orientation says; of 16-bit files (0 to 65535) the upper eight bits are taken; of an animation
    the first frame; transparency is left out.

    Args:
      file: its path, or the file.
      path: what it is called in an error.

    Raises:
      UserError: it does not decode, or its numbers have no fixed range (32-bit and floating-point TIFF).
    """
    try:
        with Image.open(file) as picture:
            picture.load()
            return upright(picture, path)
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, Image.DecompressionBombError) as e:
        reason = str(e).replace(repr(path), "").strip() or type(e).__name__
        raise UserError(f"{path} does not decode as an image ({reason}); remove it, or set skip_bad=True") from None


def upright(picture: Image.Image, path: str) -> Image.Image:
    """A picture turned as its EXIF orientation says, grey (L) or RGB; see `decoded`.

    Raises:
      UserError: its numbers have no fixed range.
    """
    turned = picture.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
    return _eight_bits(ImageOps.exif_transpose(picture) if turned else picture, picture.format, path)


def _eight_bits(picture: Image.Image, kind: str | None, path: str) -> Image.Image:
    mode = picture.mode
    if mode in ("L", "RGB"):
        return picture
    if mode.startswith("I;16") or (mode == "I" and kind == "PNG"):  # which older Pillow opens a 16-bit PNG as
        return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if mode in ("I", "F"):
        raise UserError(f"{path} holds {'floating-point' if mode == 'F' else '32-bit'} numbers; save it with 8 or 16 bits")
    grey = mode in ("1", "LA", "La") or (mode == "P" and _grey_palette(picture))
    return picture.convert("L" if grey else "RGB")


def _grey_palette(picture: Image.Image) -> bool:
    colours = np.asarray(picture.getpalette() or [], np.uint8)
    colours = colours[: len(colours) // 3 * 3].reshape(-1, 3)
    return bool(len(colours)) and bool((colours == colours[:, :1]).all())


class Lazy(NamedTuple):
    """Images read when asked for: `read(item)`, uint8 [H, W, C] or a Pillow image (L or RGB), then `conform`ed."""

    items: np.ndarray  # [N] paths or record numbers
    read: Callable[[Any], np.ndarray | Image.Image]
    fit: Fit = Fit()


def read_one(images: Lazy, item: Any) -> np.ndarray:
    """Reads and conforms a single item."""
    return conform(images.read(item), images.fit)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """A thread a core, for as long as the process lives."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")


def take(images: np.ndarray | Lazy, rows: np.ndarray) -> np.ndarray:
    """uint8 [len(rows), H, W, C]; lazy images are decoded by a pool of threads (Pillow lets go of the GIL)."""
    if isinstance(images, np.ndarray):
        return images[rows]
    read = list(_pool().map(lambda item: read_one(images, item), images.items[rows]))
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

    return np.array(list(_pool().map(check, images.items)), bool)


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

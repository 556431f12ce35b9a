"""From the names and shapes that a network's weights have elsewhere to ours, and back, bit for bit.

A `Layout` says how a family is written: it turns each of our leaves into the tensor that holds it, there and back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncjax.core import trees
from ncjax.core.types import Model

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Shapes = Mapping[str, tuple[int, ...]]


class Preprocess(NamedTuple):
    """What a network is fed."""

    size: int = 224
    resize: int = 256  # the short side before the central crop
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN  # of pixels / 255, red first
    std: tuple[float, ...] = IMAGENET_STD


TORCH_KINDS = {"kernel": "weight", "scale": "weight", "shift": "bias", "mean": "running_mean", "var": "running_var"}
FLAX_KINDS = {"shift": "bias"}
KERAS_KINDS = {"scale": "gamma", "shift": "beta", "mean": "moving_mean", "var": "moving_variance"}


class Layout(NamedTuple):
    """How a family of networks is written elsewhere.

    Our leaf "block/module.kind" becomes a name by `blocks` (what a block is called), `kinds` and then `rules`, regular
    expressions applied in turn; what is left of "/" turns into ".". A name may end in "[i|n]" (rows of part i of n
    stacked tensors), ":T" (a matrix stored as [in, out]), or ":d" (a tensor of d axes, the others of length 1).
    """

    title: str
    recognise: Callable[[Shapes], str | None]  # names and shapes in a file -> dotted name of the network, or None
    rules: Sequence[tuple[str, Any]] = ()
    blocks: Callable[[Model], dict[str, str]] = lambda model: {}
    kinds: Mapping[str, str] = TORCH_KINDS
    hwio: bool = False  # kernels as [h, w, in, out] and [in, out]
    bgr: bool = False  # blue comes first: folded into the first convolution
    preprocess: Callable[[str, Shapes], Preprocess] = lambda model, shapes: Preprocess()
    normalise: Sequence[tuple[str, str]] = ()  # regular expressions applied to the names in a file
    ignored: str = r".*num_batches_tracked"  # names in a file that are no part of the network
    separator: str = "."
    prefix: str = ""  # of every name, taken off by `normalise`
    classifier: bool = True  # whether files of this layout have one


class Place(NamedTuple):
    """Where one of our leaves is: a tensor's name, part `part` of `parts` along its first axis, how it is stored."""

    name: str
    part: int
    parts: int
    flag: str  # "", "T" or a number of axes


def _kind(path: str, norms: set[str]) -> tuple[str, str, str]:
    """("block", "module/path", kind) of a leaf; a norm's bias is its "shift"."""
    _, block, *inner, kind = path.split("/")
    module = "/".join(inner)
    return block, module, "shift" if kind == "bias" and f"{block}/{module}" in norms else kind


def places(layout: Layout, model: Model, paths: Sequence[str]) -> dict[str, Place]:
    """Where each leaf of a network's variables (by slash-joined path) is in a file of this layout."""
    norms = {path.partition("/")[2].removesuffix("/scale") for path in paths if path.endswith("/scale")}
    called, out = layout.blocks(model), {}
    for path in paths:
        block, module, kind = _kind(path, norms)
        name = called.get(block, block) + (f"/{module}" if module else "") + "." + layout.kinds.get(kind, kind)
        for pattern, replacement in layout.rules:
            name = re.sub(pattern, replacement, name)
        found = re.fullmatch(r"(.+?)(?:\[(\d)\|(\d)\])?(?::(\w))?", name.replace("/", "."))
        assert found is not None, name
        name, part, parts, flag = found.groups()
        out[path] = Place(name, int(part or 0), int(parts or 1), flag or "")
    return out


def stored_shape(place: Place, path: str, shape: tuple[int, ...], hwio: bool) -> tuple[int, ...]:
    """The shape of the tensor (all parts of it) that holds a leaf of `shape`."""
    if not hwio and path.endswith("/kernel") and len(shape) != 4:
        rows, columns = trees.matrix_shape(path.split("/")[-2], shape)
        shape = (rows, columns) if place.flag == "T" else (columns, rows)
    elif not hwio and path.endswith("/kernel"):
        shape = (shape[3], shape[2], shape[0], shape[1])
    elif not hwio and path.endswith("/bias"):
        shape = (int(np.prod(shape)),)
    if place.flag.isdigit():
        axes = int(place.flag)
        shape = shape[len(shape) - axes :] if len(shape) > axes else shape + (1,) * (axes - len(shape))
    return (shape[0] * place.parts, *shape[1:])


def take(place: Place, path: str, stored: np.ndarray, shape: tuple[int, ...], hwio: bool) -> np.ndarray:
    """One of our leaves out of the tensor that holds it."""
    size = stored.shape[0] // place.parts
    x = stored[place.part * size : (place.part + 1) * size]
    if not hwio and path.endswith("/kernel") and place.flag != "T":
        x = x.transpose(2, 3, 1, 0) if len(shape) == 4 else x.reshape(x.shape[0], -1).T
    return np.ascontiguousarray(x.reshape(shape), np.float32)


def put(place: Place, path: str, leaf: np.ndarray, hwio: bool) -> np.ndarray:
    """The (part of a) tensor that holds a leaf."""
    shape = stored_shape(place._replace(parts=1), path, leaf.shape, hwio)
    if not hwio and path.endswith("/kernel") and place.flag != "T":
        leaf = (
            leaf.transpose(3, 2, 0, 1)
            if leaf.ndim == 4
            else leaf.reshape(trees.matrix_shape(path.split("/")[-2], leaf.shape)).T
        )
    return leaf.reshape(shape)


def normalised(layout: Layout, names: Sequence[str]) -> dict[str, str]:
    """Names as the layout writes them -> names in the file, those that it ignores left out."""
    out = {}
    for name in names:
        clean = name.replace("/", ".")
        for pattern, replacement in layout.normalise:
            clean = re.sub(pattern, replacement, clean)
        if not re.fullmatch(layout.ignored, clean):
            out[clean] = name
    return out


class Comparison(NamedTuple):
    """A file beside a network: names of tensors."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]

    def line(self, limit: int = 4) -> str:
        """One line on what does not fit."""
        groups = {k: v for k, v in self._asdict().items() if k != "matched" and v}
        return "; ".join(
            f"{len(v)} {k}: {', '.join(v[:limit])}" + (", ..." if len(v) > limit else "") for k, v in groups.items()
        )


def compare(
    layout: Layout, found: Mapping[str, Place], leaves: Mapping[str, tuple[int, ...]], shapes: Shapes
) -> Comparison:
    """What of a file fits.

    Args:
      layout: the file's.
      found: where each leaf should be.
      leaves: shapes of our leaves by path.
      shapes: of the file's tensors, by normalised name.
    """
    wanted = {place.name: stored_shape(place, path, leaves[path], layout.hwio) for path, place in found.items()}
    both = [n for n in wanted if n in shapes]
    bad = [n for n in both if tuple(shapes[n]) != wanted[n]]
    return Comparison(
        tuple(n for n in both if n not in bad),
        tuple(n for n in wanted if n not in shapes),
        tuple(n for n in shapes if n not in wanted),
        tuple(f"{n} {tuple(shapes[n])} instead of {wanted[n]}" for n in bad),
    )

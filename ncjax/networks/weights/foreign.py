"""Networks trained elsewhere: recognised, compared with what they should be, loaded; and written back under their names.

    python -m ncjax.weights FILE [--model models.resnet.resnet50]

prints the layout of a file and a table of its tensors: matched, missing, unexpected, misshaped.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.types import Model, PyTree
from ncjax.models.named import build
from ncjax.networks.weights import convolutional, layouts, transformers
from ncjax.networks.weights.layouts import Comparison, Layout, Place, Preprocess

LAYOUTS: tuple[Layout, ...] = (*convolutional.LAYOUTS, *transformers.LAYOUTS)
NO_CLASSES = ("none",)  # of a network whose file has no classifier


class Match(NamedTuple):
    """A file beside the network it should be."""

    layout: Layout
    model: str
    network: Model
    preprocess: Preprocess
    template: PyTree  # shapes of the network's variables
    places: dict[str, Place]
    names: dict[str, str]  # tensors as the layout writes them -> as the file does
    comparison: Comparison

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of the images that the network was trained on."""
        return (self.preprocess.size, self.preprocess.size, 3)


class Loaded(NamedTuple):
    """A network read from someone else's file."""

    match: Match
    variables: PyTree
    drawn: tuple[str, ...]  # tensors that were allowed to be missing: drawn at random


# What tools put before every name: data-parallel training, torch.compile, Lightning, wrappers of self-supervision.
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "base_model.",
    "student.",
    "teacher.",
    "ema.",
    "state_dict.",
)
HEADS = {"fc.weight": (1, 1), "fc.bias": (1,)}  # by which a recogniser tells a file of a ResNet


def bare(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays under their names without what tools put before them, where that makes a layout known.

    Tensors that lack the prefix are no part of the network: a loss's, a projector's.

    Raises:
      UserError: two prefixes lead to a network each, a student and its teacher.
    """
    tried = arrays
    while _sure(tried) is None:
        inside = {
            prefix: {name.removeprefix(prefix): x for name, x in tried.items() if name.startswith(prefix)}
            for prefix in PREFIXES
        }
        whole = [prefix for prefix, x in inside.items() if x and _sure(x) is not None]
        if len(whole) > 1:
            raise UserError(
                f"holds two networks, {whole[0]}* and {whole[1]}*: write the one that is meant to a file of its own"
            )
        chosen = whole[0] if whole else max(inside, key=lambda prefix: len(inside[prefix]))
        if not whole and 2 * len(inside[chosen]) <= len(tried):
            return arrays
        tried = inside[chosen]
    return tried


def _sure(arrays: dict[str, Any]) -> tuple[Layout, str] | None:
    """The layout and the network that names and shapes tell; with a ResNet's classifier or without."""
    for more in ({}, HEADS):
        for layout in LAYOUTS:
            named = layouts.normalised(layout, list(arrays))
            try:
                found = layout.recognise({**more, **{clean: np.shape(arrays[raw]) for clean, raw in named.items()}})
            except (KeyError, IndexError):  # a tensor that tells networks apart is missing or has too few axes
                continue
            if found is not None:
                return layout, found
    return None


def _recognised(arrays: dict[str, Any], model: str | None) -> tuple[Layout, str]:
    """The layout of a file and the network in it; where no layout is sure, the one that most names of `model` fit."""
    if (sure := _sure(arrays)) is not None:
        return sure[0], model or sure[1]
    named = {layout.title: layouts.normalised(layout, list(arrays)) for layout in LAYOUTS}
    best, most = None, 0
    if model is not None:
        network = build(model, 1)
        paths = list(trees.paths(jax.eval_shape(lambda: network.init(jax.random.key(0), (224, 224, 3)))))
        for layout in LAYOUTS:
            hits = sum(p.name in named[layout.title] for p in layouts.places(layout, network, paths).values())
            best, most = (layout, hits) if hits > most else (best, most)
    if best is None or model is None:
        raise UserError(
            f"weights of an unknown layout, with tensors {', '.join(sorted(arrays)[:4])}, ...; known: "
            + "; ".join(x.title for x in LAYOUTS)
        )
    return best, model


def match(arrays: dict[str, Any], model: str | None = None) -> Match:
    """Finds the layout of a file and what of it fits.

    Args:
      arrays: anything with a shape, by name.
      model: dotted name of the network, if the caller knows better than names and shapes tell.

    Raises:
      UserError: an unknown layout.
    """
    layout, name = _recognised(arrays, model)
    names = layouts.normalised(layout, list(arrays))
    shapes = {clean: np.shape(arrays[raw]) for clean, raw in names.items()}
    kernel, bare = "params/head/linear/kernel", build(name, 1)
    shape = shapes.get(layouts.places(layout, bare, [kernel])[kernel].name) if layout.classifier else None
    network = bare if shape is None else build(name, shape[-1 if layout.hwio else 0])
    try:
        preprocess = layout.preprocess(name, shapes)
    except KeyError as e:
        raise UserError(f"{layout.title} without {e.args[0]}") from None
    template = jax.eval_shape(lambda: network.init(jax.random.key(0), (preprocess.size, preprocess.size, 3)))
    leaves = {p: x.shape for p, x in trees.paths(template).items() if layout.classifier or not p.startswith("params/head/")}
    places = layouts.places(layout, network, list(leaves))
    return Match(
        layout, name, network, preprocess, template, places, names, layouts.compare(layout, places, leaves, shapes)
    )


def _flipped(variables: PyTree, block: str) -> PyTree:
    """The input channels of a network's first convolution the other way round."""
    flip = jax.tree_util.tree_map_with_path(
        lambda path, x: x[:, :, ::-1] if path[-1].key == "kernel" and x.ndim == 4 and x.shape[2] == 3 else x,
        variables["params"][block],
    )
    return {**variables, "params": {**variables["params"], block: flip}}


def load(
    arrays: dict[str, np.ndarray],
    source: str,
    model: str | None = None,
    allow_missing: Sequence[str] = (),
    preprocess: dict[str, Any] | None = None,
) -> Loaded:
    """A network from someone else's arrays.

    Args:
      arrays: by name, as read from a file.
      source: the file, for errors.
      model: as for `match`.
      allow_missing: globs over tensor names that may be missing; they are drawn at random.
      preprocess: fields of `Preprocess` that the publisher prescribes, in place of the layout's.

    Raises:
      UserError: an unknown layout; tensors missing, unexpected or of another shape; a glob that allows nothing.
    """
    try:
        arrays = bare(arrays)
        found = match(arrays, model)
    except UserError as e:
        raise UserError(f"{source}: {e}") from None
    found = found._replace(preprocess=found.preprocess._replace(**(preprocess or {})))
    layout, seen = found.layout, found.comparison
    drawn: set[str] = set()
    for pattern in allow_missing:
        hits = fnmatch.filter(seen.missing, pattern)
        if not hits:
            raise UserError(
                f"allow_missing: {pattern!r} matches none of the missing tensors of {source} "
                f"({', '.join(seen.missing[:6]) or 'none is missing'})"
            )
        drawn.update(hits)
    left = seen._replace(missing=tuple(n for n in seen.missing if n not in drawn))
    if left.missing or left.unexpected or left.misshaped:
        raise UserError(
            f"{source} ({layout.title}) is not {found.model}: {len(seen.matched)} tensors matched, "
            f"{left.line()}; {_instead(found, left)}python -m ncjax.weights prints all of them"
        )
    fresh = trees.paths(found.network.init(jax.random.key(0), found.image_shape)) if drawn else {}

    def value(path: str, leaf: Any) -> np.ndarray:
        place = found.places.get(path)
        if place is None:  # the classifier of a layout without one
            return np.zeros(leaf.shape, np.float32)
        if place.name in drawn:
            return np.asarray(fresh[path])
        return layouts.take(place, path, arrays[found.names[place.name]], leaf.shape, layout.hwio)

    values = [value(path, leaf) for path, leaf in trees.paths(found.template).items()]
    variables = jax.tree.unflatten(jax.tree.structure(found.template), values)
    return Loaded(found, _flipped(variables, found.network.blocks[0]) if layout.bgr else variables, tuple(sorted(drawn)))


def _instead(found: Match, left: layouts.Comparison) -> str:
    """What to do about a file without a classifier."""
    heads = {place.name for path, place in found.places.items() if path.startswith("params/head/")}
    if not left.missing or left.unexpected or left.misshaped or not set(left.missing) <= heads:
        return ""
    globs = ",".join(sorted({name.rpartition(".")[0] + ".*" for name in left.missing}))
    return f"set allow_missing={globs} to have a classifier drawn, or take a file that has one; "


def has_classifier(title: str) -> bool:
    """Whether files of a layout hold a classifier."""
    return next(x for x in LAYOUTS if x.title == title).classifier


def module_of(block: str, network: Model, title: str) -> str:
    """What a layout of that title calls a block: `features.14` of a torchvision MobileNetV2."""
    layout = next(x for x in LAYOUTS if x.title == title)
    return layout.blocks(network).get(block, block).replace("/", ".")


def classifier_of(network: Model, title: str) -> str:
    """What a layout of that title calls the classifier's module: `fc` of a torchvision ResNet."""
    layout, path = next(x for x in LAYOUTS if x.title == title), "params/head/linear/kernel"
    return layout.prefix + layouts.places(layout, network, [path])[path].name.rpartition(".")[0]


def export(variables: PyTree, network: Model, title: str) -> dict[str, np.ndarray]:
    """Arrays under the names, orders and shapes of a layout; `load` of them gives the same numbers, bit for bit.

    Args:
      variables: of the plain network, low-rank updates merged.
      network: it.
      title: the layout's.

    Raises:
      UserError: no such layout, or a network of another family.
    """
    layout = next((x for x in LAYOUTS if x.title == title), None)
    if layout is None:
        raise UserError(f"no layout {title!r}; known: {'; '.join(x.title for x in LAYOUTS)}")
    if layout.bgr:
        variables = _flipped(variables, network.blocks[0])
    leaves = {
        p: np.asarray(x) for p, x in trees.paths(variables).items() if layout.classifier or not p.startswith("params/head/")
    }
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, place in layouts.places(layout, network, list(leaves)).items():
        parts.setdefault(place.name, {})[place.part] = layouts.put(place, path, leaves[path], layout.hwio)
    return {
        layout.prefix + name.replace(".", layout.separator): np.concatenate([x for _, x in sorted(found.items())])
        if len(found) > 1
        else found[0]
        for name, found in parts.items()
    }


def table(arrays: dict[str, Any], model: str | None = None, preprocess: dict[str, Any] | None = None) -> str:
    """What `load` would make of a file, a line a tensor that does not fit, and counts."""
    found = match(bare(arrays), model)
    seen = found.comparison
    fed = found.preprocess._replace(**(preprocess or {}))
    lines = [f"layout  {found.layout.title}", f"network {found.model}", f"images  {fed}"]
    for kind, names in seen._asdict().items():
        lines.append(f"{len(names):>5} {kind}")
        if kind != "matched":
            lines += [f"      {name}" for name in names]
    return "\n".join(lines)

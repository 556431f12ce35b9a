"""Features taken from networks of other frameworks: hooks on torch modules, intermediates of Flax.

>>> with nc.torch_hooks(model, ["layer3", "layer4"]) as seen:
...     for images, labels in loader:
...         model(images)
...         seen.labels(labels)
>>> seen.measure()["layer4"].nc1
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ncjax.core.errors import UserError, nearest
from ncjax.nc.inputs import check_labels
from ncjax.nc.measure import measure
from ncjax.nc.report import Report


class Hooks:
    """Features of some modules, batch by batch, averaged over positions, on the host; `with` takes the hooks off again.

    Attributes:
      layers: names of the modules, in the model's order.
    """

    def __init__(self, modules: Mapping[str, Any], pool: Callable[[Any], Any] | None):
        self.layers = tuple(modules)
        self._pool = pool
        self._found: dict[str, list[np.ndarray]] = {name: [] for name in modules}
        self._labels: list[np.ndarray] = []
        self._handles = [m.register_forward_hook(self._hook(name)) for name, m in modules.items()]

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            x = output if hasattr(output, "detach") else _first(output, name)
            x = (
                self._pool(x.detach())
                if self._pool is not None
                else _over_positions(x.detach(), name, type(module).__name__)
            )
            self._found[name].append(np.asarray(x.float().cpu()))

        return hook

    def labels(self, labels: Any) -> None:
        """The labels [N] of the batch that went through last."""
        self._labels.append(check_labels(labels))

    @property
    def features(self) -> dict[str, np.ndarray]:
        """{layer: features [N, D] so far}."""
        return {name: np.concatenate(parts) for name, parts in self._found.items() if parts}

    def measure(self, labels: Any = None, **options: Any) -> dict[str, Report]:
        """{layer: `nc.measure` of its features}.

        Args:
          labels: [N], if not given batch by batch.
          **options: of `nc.measure`, for every layer; a classifier only fits one.

        Raises:
          UserError: nothing went through, or another number of labels.
        """
        found = self.features
        if not found:
            raise UserError("nothing went through the model while the hooks were on it")
        if labels is None and not self._labels:
            raise UserError("no labels: call .labels(batch) after each batch, or give them here")
        y = check_labels(labels) if labels is not None else np.concatenate(self._labels)
        return {name: measure(x, y, **options) for name, x in found.items()}

    def clear(self) -> None:
        """Forgets features and labels, before the next split or epoch."""
        for parts in (*self._found.values(), self._labels):
            parts.clear()

    def close(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _first(output: Any, name: str) -> Any:
    """The first tensor of what a module returns: of a tuple, or of a library's own kind of output."""
    try:
        found = output[0]
    except (KeyError, IndexError, TypeError):
        found = None
    if not hasattr(found, "detach"):
        raise UserError(f"module {name} returns {type(output).__name__}, expected a tensor or several; hook one inside it")
    return found


def _over_positions(x: Any, name: str, kind: str) -> Any:
    """A torch tensor averaged over positions: maps [N, C, H, W] or [N, H, W, C], sequences [N, T, D]; [N, D] as it is.

    Raises:
      UserError: it cannot be told which axes are positions.
    """
    if x.ndim == 2:
        return x
    if x.ndim == 3 and "1d" not in kind:
        return x.float().mean(1)
    if x.ndim == 4 and (x.shape[1] == x.shape[2]) != (x.shape[2] == x.shape[3]):
        return x.float().mean((1, 2) if x.shape[1] == x.shape[2] else (2, 3))
    if x.ndim == 4 and "2d" in kind:
        return x.float().mean((2, 3))
    raise UserError(
        f"module {name} ({kind}) returns {list(x.shape)}: say how it becomes [N, D] with pool=, a function of it"
    )


def torch_hooks(model: Any, layers: Sequence[str] | str, *, pool: Callable[[Any], Any] | None = None) -> Hooks:
    """Collects the outputs of modules of a torch model while batches go through it.

    Args:
      model: a `torch.nn.Module`.
      layers: names as `model.named_modules()` gives them, or patterns such as "layer?.*".
      pool: what makes features [N, D] of a module's output; default: square feature maps, [N, C, H, W] or [N, H, W, C], and
        sequences [N, T, D] are averaged over positions.

    Raises:
      UserError: no torch module, or no module of that name.
    """
    if not hasattr(model, "named_modules"):
        raise UserError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    known = {name: module for name, module in model.named_modules() if name}
    wanted: list[str] = []
    for pattern in [layers] if isinstance(layers, str) else list(layers):
        matches = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise UserError(f"no module {pattern!r} in the model; {nearest(pattern, known)}")
        wanted += matches
    if not wanted:
        raise UserError("layers: name one module at least")
    return Hooks({name: m for name, m in known.items() if name in wanted}, pool)


def flax_features(intermediates: Mapping[str, Any]) -> dict[str, Any]:
    """Features [N, D] of what a Flax model captured, averaged over positions.

    >>> _, state = model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
    >>> nc.measure(nc.flax_features(state["intermediates"])["Dense_0"], labels)

    Args:
      intermediates: the collection of that name; outputs are [N, ..., D], features last.

    Returns:
      {module: features [N, D]}, in Flax's order; the model's own output is "output".
    """
    found: dict[str, Any] = {}

    def walk(tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                walk(value, (*path, name))
            elif name == "__call__" and hasattr(value[0], "ndim") and value[0].ndim > 1:
                x = value[0]
                found["/".join(path) or "output"] = x if x.ndim == 2 else x.mean(axis=tuple(range(1, x.ndim - 1)))

    if not isinstance(intermediates, Mapping):
        raise UserError(f"intermediates: got {type(intermediates).__name__}, expected Flax's collection of that name")
    walk(intermediates, ())
    if not found:
        raise UserError("intermediates hold no outputs of modules: apply with capture_intermediates=True")
    return found

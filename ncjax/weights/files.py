"""Single files of weights: networks trained elsewhere in, tuned leaves (deltas) and joined models in and out.

Nothing in a file is executed: `.safetensors` and `.npz` hold arrays and text only.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ncjax import trees
from ncjax.types import PyTree, UserError

# What torchvision's networks, and those trained to its conventions, are fed.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BLOCK = re.compile(r"(layer\d+\.\d+)\.(.+)")
_STATISTICS = {"running_mean": "mean", "running_var": "var"}


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, text by key) of a `.safetensors` or `.npz` file.

    Raises:
      UserError: no such file, another kind of file, or a damaged one.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}, {}
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, SafetensorError) as e:
        raise UserError(f"{path} is damaged and cannot be read ({str(e).splitlines()[0][:160]})") from None
    raise UserError(f"{path}: weights are read from .safetensors and .npz files")


def write(path: str | Path, arrays: dict[str, np.ndarray], text: dict[str, str]) -> None:
    """Writes a `.safetensors` file in one step."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, part, text)
    part.replace(path)


def _renamed(name: str, x: np.ndarray) -> tuple[str, np.ndarray] | None:
    """A torch name and array -> ours: (slash-joined path below `variables`, array), or None for bookkeeping."""
    if name.endswith("num_batches_tracked"):
        return None
    match = _BLOCK.fullmatch(name)
    block, rest = match.groups() if match else ("stem", name)
    rest = rest.replace("downsample.0.", "downsample_conv.").replace("downsample.1.", "downsample_bn.")
    module, _, kind = rest.rpartition(".")
    if not match and module in ("fc", "linear"):
        return f"params/head/linear/{'kernel' if kind == 'weight' else 'bias'}", x.T
    if kind in _STATISTICS:
        return f"batch_stats/{block}/{module}/{_STATISTICS[kind]}", x
    if kind == "weight" and x.ndim == 4:
        return f"params/{block}/{module}/kernel", x.transpose(2, 3, 1, 0)  # OIHW -> HWIO
    return f"params/{block}/{module}/{'scale' if kind == 'weight' else kind}", x


def from_torch(arrays: dict[str, np.ndarray], build: Callable[[int], PyTree], source: str) -> tuple[int, PyTree]:
    """(classes, variables) of a ResNet from a file with torchvision's names.

    Args:
      arrays: by torch name, convolutions as OIHW.
      build: classes -> shapes of the wanted variables.
      source: the file, for errors.

    Raises:
      UserError: the names or shapes are not exactly those of the wanted network.
    """
    renamed = dict(r for name, x in arrays.items() if (r := _renamed(name, x.astype(np.float32))) is not None)
    bias = renamed.get("params/head/linear/bias")
    if bias is None:
        raise UserError(f"{source} holds no classifier named fc or linear; its arrays: {', '.join(list(arrays)[:4])}, ...")
    wanted = build(len(bias))
    difference = trees.differences(renamed, trees.paths(wanted))
    if difference:
        raise UserError(f"{source} is of another architecture: {difference}")
    leaves = [np.ascontiguousarray(renamed[p]) for p in trees.paths(wanted)]
    return len(bias), jax.tree.unflatten(jax.tree.structure(wanted), leaves)

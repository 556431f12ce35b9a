"""Builds conv.cc once for this machine, hands it to XLA, and differentiates it."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jaxlib import version as jaxlib_version

from ncjax.conv import devices
from ncjax.conv.xla import Pads
from ncjax.core import hosts
from ncjax.core.errors import UserError
from ncjax.core.machine import cache_folder, cores
from ncjax.core.types import Array

SOURCE = Path(__file__).with_name("conv.cc")
TARGETS = {
    "ncjax_conv_forward": "NcjaxConvForward",
    "ncjax_conv_fused": "NcjaxConvFused",
    "ncjax_conv_data": "NcjaxConvData",
    "ncjax_conv_weights": "NcjaxConvWeights",
}
AXES = {  # of arguments and result: images n h w c, kernels a b i d, images convolved n p q d
    "ncjax_conv_forward": "n h w c, a b i d -> n p q d",
    "ncjax_conv_fused": "n h w c, a b i d, d -> n p q d",
    "ncjax_conv_data": "n p q d, a b i d -> n h w c",
    "ncjax_conv_weights": "n h w c, n p q d -> a b i d",
}
ACTIVATIONS = (None, "relu", "relu6")  # in conv.cc's order


class Wheels(NamedTuple):
    """Where oneDNN's wheels put what is needed."""

    include: Path
    library: Path
    version: str


def wheels() -> Wheels:
    """The installed wheels of the extra `.[cpu]`.

    Raises:
      UserError: they are not installed.
    """

    def located(package: str, name: str) -> Path:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            raise UserError("oneDNN is not installed: pip install '.[cpu]'") from None
        found = next((f for f in files if f.name == name), None)
        if found is None:
            raise UserError(f"the package {package} holds no {name}")
        return Path(found.locate()).resolve()

    return Wheels(
        located("onednn-devel-cpu-gomp", "dnnl.hpp").parent,
        located("onednn-cpu-gomp", "libdnnl.so.3"),
        importlib.metadata.version("onednn-cpu-gomp"),
    )


def build(*, fresh: bool = False) -> Path:
    """The compiled library in the user's cache, built if it is not there: a few seconds, once.

    Args:
      fresh: build even if it is there.

    Raises:
      UserError: no wheels, no compiler, or a compiler that fails.
    """
    found, compiler = wheels(), shutil.which("g++")
    if compiler is None:
        raise UserError("no g++ to build oneDNN's convolutions with")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    key = "\n".join(
        (SOURCE.read_text(), jaxlib_version.__version__, version, found.version, str(found.library), sys.platform)
    )
    folder = cache_folder()
    path = folder / f"conv-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if path.is_file() and not fresh:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(suffix=".so", dir=folder)  # several processes may build at once
    os.close(handle)
    headers = Path(jaxlib.__file__).parent / "include"
    words = [
        compiler,
        "-O2",
        "-std=c++17",
        "-shared",
        "-fPIC",
        "-fopenmp",
        "-w",
        f"-I{found.include}",
        f"-I{headers}",
        str(SOURCE),
        "-o",
        part,
        f"-L{found.library.parent}",
        f"-l:{found.library.name}",
        f"-Wl,-rpath,{found.library.parent}",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        os.unlink(part)
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise UserError(f"g++ cannot build oneDNN's convolutions: {first}")
    os.replace(part, path)
    return path


CHOICES = ("auto", "onednn", "xla")


_override: contextvars.ContextVar[str | None] = contextvars.ContextVar("convolutions", default=None)


@contextlib.contextmanager
def as_xla() -> Iterator[None]:
    """What is traced inside convolves by XLA: for its cost analysis, which does not look into custom calls."""
    token = _override.set("xla")
    try:
        yield
    finally:
        _override.reset(token)


def implementation() -> str:
    """What convolves here, "onednn" or "xla"; `$NCJAX_CONV` may name one, "auto" takes oneDNN where it can.

    Raises:
      UserError: `$NCJAX_CONV` is none of these, or "onednn" where that cannot be.
    """
    return _override.get() or _chosen()


@functools.cache
def bfloat16() -> bool:
    """Whether oneDNN convolves bfloat16 on this processor: it asks for AVX-512 (or AVX-NE-CONVERT), or an Arm with BF16.

    Of several processes, on the processors of all.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    words = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    able = {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= words or bool(words & {"avx_ne_convert", "bf16"})
    return hosts.everywhere("onednn bfloat16", able)


def convolves(dtype: jnp.dtype) -> bool:
    """Whether oneDNN is to convolve images of a type."""
    return implementation() == "onednn" and (dtype == jnp.float32 or (dtype == jnp.bfloat16 and bfloat16()))


def header() -> str:
    """One line for the start of a run."""
    if implementation() == "onednn":
        return f"convolutions: onednn, {threads()} threads" + ("" if bfloat16() else "; bfloat16 by xla, on this processor")
    reason = why_not() if jax.default_backend() == "cpu" else None
    return "convolutions: xla" + (f" ({reason})" if reason else "")


@functools.cache
def _chosen() -> str:
    wanted = os.environ.get("NCJAX_CONV", "auto")
    if wanted not in CHOICES:
        raise UserError(f"NCJAX_CONV={wanted!r}: one of {', '.join(CHOICES)}")
    reason = "NCJAX_CONV=xla" if wanted == "xla" else why_not()
    if wanted == "onednn" and reason is not None:
        raise UserError(f"NCJAX_CONV=onednn: {reason}")
    return "onednn" if hosts.everywhere("onednn", reason is None) else "xla"


def threads() -> int:
    """How many a convolution runs on: the process's cores, shared by the devices that it simulates."""
    return max(cores() // jax.local_device_count(), 1)


@functools.cache
def why_not() -> str | None:
    """None once oneDNN's convolutions are registered with XLA, else why they cannot be."""
    if jax.default_backend() != "cpu":
        return f"this is a {jax.default_backend()}"
    try:
        # Read when the first OpenMP library is loaded: threads that spin would take the cores from XLA's own.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        library = ctypes.CDLL(str(build()))
    except (UserError, OSError) as e:
        return str(e)
    library.NcjaxSetThreads(threads())
    # Kept programs are told apart by what they call (`devices._told`), not by where the function lies that splits it.
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)
    for target, symbol in TARGETS.items():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, symbol)), platform="cpu")
    return None


class How(NamedTuple):
    """What is known of a convolution before it runs."""

    stride: int
    pads: Pads
    groups: int
    activation: str | None  # with a bias only


class Settings(NamedTuple):
    """Of a call to oneDNN."""

    target: str
    how: How


def _alone(settings: Settings, like: jax.ShapeDtypeStruct, *given: Array) -> Array:
    how = settings.how
    more = {"activation": np.int64(ACTIVATIONS.index(how.activation))} if settings.target == "ncjax_conv_fused" else {}
    return jax.ffi.ffi_call(settings.target, like, vmap_method="sequential")(
        *given, stride=np.int64(how.stride), pads=np.array(how.pads, np.int64).ravel(), groups=np.int64(how.groups), **more
    )


def _call(target: str, like: Array | jax.ShapeDtypeStruct, how: How, *given: Array) -> Array:
    run = _alone if jax.device_count() == 1 else devices.split(_alone, AXES[target])
    return run(Settings(target, how), jax.ShapeDtypeStruct(like.shape, like.dtype), *given)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _convolve(x: Array, kernel: Array, bias: Array | None, how: How) -> Array:
    height, width = (
        (n + sum(p) - k) // how.stride + 1 for n, p, k in zip(x.shape[1:3], how.pads, kernel.shape[:2], strict=True)
    )
    like = jax.ShapeDtypeStruct((x.shape[0], height, width, kernel.shape[3]), x.dtype)
    if bias is None:
        return _call("ncjax_conv_forward", like, how, x, kernel)
    return _call("ncjax_conv_fused", like, how, x, kernel, bias)


def _forward(x, kernel, bias, how):
    y = _convolve(x, kernel, bias, how)
    return y, (x, kernel, None if bias is None else y)


def _backward(how, kept, dy):
    x, kernel, y = kept
    if how.activation is not None:
        dy = jnp.where((y > 0) & (y < 6) if how.activation == "relu6" else y > 0, dy, 0)
    return (
        _call("ncjax_conv_data", x, how, dy, kernel),
        _call("ncjax_conv_weights", kernel, how, x, dy),
        None if y is None else jnp.sum(dy, (0, 1, 2), jnp.float32),
    )


_convolve.defvjp(_forward, _backward)


def convolve(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int,
    pads: Pads,
    groups: int,
    activation: str | None = None,
) -> Array:
    """A convolution, bias and activation, with all gradients; forward-mode derivatives are not defined.

    Args:
      x: [N, H, W, C], float32 or bfloat16; bfloat16 is multiplied as such and summed in float32.
      kernel: [h, w, C / groups, D]; taken as float32, and so is its gradient.
      bias: [D], likewise, or None.
      stride: of both axes.
      pads: ((top, bottom), (left, right)).
      groups: sets of channels that do not see each other.
      activation: one of `ACTIVATIONS`.

    Returns:
      [N, H', W', D] in the type of `x`.
    """
    if bias is None and activation is not None:
        bias = jnp.zeros(kernel.shape[3])
    given = None if bias is None else bias.astype(jnp.float32)
    return _convolve(x, kernel.astype(jnp.float32), given, How(stride, pads, groups, activation))

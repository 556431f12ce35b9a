"""What convolves on CPUs: the choice, and oneDNN's numbers where it can be built."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import conv
from ncjax.conv import __main__ as command
from ncjax.conv import onednn, xla
from ncjax.core.errors import UserError

CLEAN = {k: v for k, v in os.environ.items() if k not in ("NPROC", "JAX_NUM_CPU_DEVICES", "NCJAX_CONV")}


@pytest.fixture(autouse=True)
def forgotten():
    for function in (onednn._chosen, onednn.why_not):
        function.cache_clear()
    yield
    for function in (onednn._chosen, onednn.why_not):
        function.cache_clear()


@pytest.mark.parametrize("script", ["onednn_script.py", "devices_script.py"])
def test_numbers_are_xlas(script):
    try:
        onednn.build()
    except UserError as e:
        pytest.skip(str(e))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(script)],
        capture_output=True,
        text=True,
        env=CLEAN,
        timeout=300,
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]


def test_without_wheels_or_compiler_xla_convolves_and_one_line_says_why(monkeypatch, capsys):
    def none():
        raise UserError("oneDNN is not installed: pip install '.[cpu]'")

    monkeypatch.delenv("NCJAX_CONV")
    monkeypatch.setattr(onednn, "wheels", none)
    assert conv.implementation() == "xla"
    assert conv.header() == "convolutions: xla (oneDNN is not installed: pip install '.[cpu]')"
    assert command.main(["which"]) == 0
    assert command.main(["build"]) == 2
    assert "pip install" in capsys.readouterr().err
    monkeypatch.setattr(onednn, "wheels", lambda: onednn.Wheels(Path("/x"), Path("/x/libdnnl.so.3"), "1"))
    monkeypatch.setattr(onednn.shutil, "which", lambda _: None)
    onednn.why_not.cache_clear()
    assert "no g++" in onednn.why_not()


def test_a_compiler_that_fails_is_one_line(monkeypatch, tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo g++ 0 || { echo 'x.cc: error: no' >&2; exit 1; }\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(onednn, "wheels", lambda: onednn.Wheels(tmp_path, tmp_path / "libdnnl.so.3", "1"))
    monkeypatch.setattr(onednn.shutil, "which", lambda _: str(compiler))
    with pytest.raises(UserError, match=r"cannot build .* error: no"):
        onednn.build()
    assert not list((tmp_path / "cache" / "ncjax").iterdir())


def test_the_choice_can_be_made(monkeypatch):
    monkeypatch.setenv("NCJAX_CONV", "xla")
    assert conv.implementation() == "xla"
    onednn._chosen.cache_clear()
    monkeypatch.setenv("NCJAX_CONV", "mkl")
    with pytest.raises(UserError, match="one of auto, onednn, xla"):
        conv.implementation()
    monkeypatch.setenv("NCJAX_CONV", "onednn")
    monkeypatch.setattr(onednn.jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match="NCJAX_CONV=onednn: this is a gpu"):
        conv.implementation()


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("batch", [6, 8])  # 8 is taken in pieces
def test_a_kernels_gradient_in_pieces_is_that_of_the_whole(monkeypatch, stride, groups, batch):
    monkeypatch.setattr(xla.jax, "device_count", lambda: 1)
    x = jax.random.normal(jax.random.key(0), (batch, 9, 7, 4))
    kernels = jax.random.normal(jax.random.key(1), (2, 3, 3, 4 // groups, 6))
    how = {"stride": stride, "pads": ((1, 1), (0, 1)), "groups": groups}

    def loss(convolve, x, kernels):
        return jnp.sum(jnp.sin(jax.vmap(lambda k: convolve(x, k, **how))(kernels)))

    found = jax.value_and_grad(functools.partial(loss, xla.convolve), (0, 1))(x, kernels)
    wanted = jax.value_and_grad(functools.partial(loss, xla._whole), (0, 1))(x, kernels)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, wanted)
    # Only what is asked for is computed: the whole forward, then the image's gradient or the kernel's in pieces.
    counts = [
        str(jax.make_jaxpr(jax.grad(functools.partial(loss, xla.convolve), of))(x, kernels)).count("conv_general_dilated[")
        for of in (0, 1)
    ]
    assert counts == [2, 1 + (xla.PIECES if batch == 8 else 1)]


def test_cores_respect_affinity():
    assert 1 <= onednn.cores() <= len(os.sched_getaffinity(0))

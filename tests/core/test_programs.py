"""Programs that measure: compiler options where they help, none inside another program."""

import jax
import jax.numpy as jnp
import pytest

from ncjax import nc
from ncjax.core import programs


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setitem(programs.OPTIONS, "cpu", programs.OPTIONS["gpu"])


def test_options_are_names_that_xla_knows(as_on_a_gpu):
    double = programs.jit(lambda x, *, times: times * x, static_argnames="times")
    assert float(double(jnp.ones(()), times=3)) == 3


def test_within_another_program_there_are_none(as_on_a_gpu):
    product = programs.jit(lambda x: x @ x)
    assert float(jax.jit(lambda x: product(x))(jnp.ones((3, 3)))[0, 0]) == 3  # JAX refuses options there


def test_metrics_are_what_they_were(as_on_a_gpu, rng):
    x, y = rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 3, 40)
    for spectrum in (True, False):
        assert nc.measure(x, y, classifier=(x[:3], None), spectrum=spectrum).nc1 > 0

"""Nothing explodes where examples are few and features many: what is solved is then N x N, and can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ncjax import nc
from ncjax.transfer import logistic, probe


def _data(count: int, width: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    means = np.random.default_rng(99).normal(size=(classes, width))
    return (rng.normal(size=(count, width)) + means[labels]).astype(np.float32), labels


@pytest.mark.parametrize(("count", "width"), [(10, 11), (12, 40), (30, 31), (30, 200), (60, 500)])
@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_the_narrow_side_gives_the_solution_of_the_wide_one(count, width, l2):
    x, y = _data(count, width)
    x -= x.mean(axis=0)
    (found,) = logistic.solve(x, y, 3, (l2,), tolerance=1e-6, max_steps=2000)
    # The same rows twice over and then some make N > D, and change nothing of the problem.
    times = width // count + 2
    (wide,) = logistic.solve(np.tile(x, (times, 1)), np.tile(y, times), 3, (l2,), tolerance=1e-6, max_steps=2000)

    def objective(params):
        w, b = np.split(np.asarray(params, np.float64), [width], axis=1)
        logits = x @ w.T + b.T
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        gradient = (p - np.eye(3)[y]).T @ x / count + l2 * w
        return -np.log(p[np.arange(count), y]).mean() + l2 / 2 * np.square(w).sum(), np.abs(gradient).max()

    value, gradient = objective(found.params)
    assert gradient < 2e-5
    assert value <= objective(wide.params)[0] + 1e-5


@pytest.mark.parametrize(("count", "width"), [(30, 40), (60, 300)])
def test_spectra_are_the_same_from_both_sides(count, width):
    x, y = _data(count, width)
    found = nc.measure(x, y, spectrum=True, floors=False).to_dict()
    with jax.enable_x64(True):  # from the D x D scatter
        stats = nc.collect(x.astype(np.float64), y, scatter=True)
        wanted = nc.report(stats, spectrum=True, floors=False).to_dict()
    for name in ("effective_rank", "effective_rank_centred", "stable_rank", "stable_rank_centred", "rankme", "vci"):
        assert found[name] == pytest.approx(wanted[name], rel=5e-4, abs=1e-6), name


def test_warm_starts_survive_the_change_of_sides():
    x, y = _data(20, 100)
    first, second = logistic.solve(x, y, 3, (1e-1, 1e-2), tolerance=1e-6)
    (again,) = logistic.solve(x, y, 3, (1e-2,), start=first.params, tolerance=1e-6)
    np.testing.assert_allclose(again.params, second.params, atol=1e-4)


def test_chosen_features_alone_have_weights():
    x, y = _data(30, 64)
    keep = np.arange(64) % 4 == 0
    found = probe.fit((x, y), (x, y), 3, keep=keep)
    assert not found.weight[:, ~keep].any()
    assert found.weight[:, keep].any()


LONG = """
import signal
import numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job that was started with nohup ignores it
from ncjax.transfer import group_lasso, logistic
rng = np.random.default_rng(0)
x, y = rng.normal(size=(20000, 200)).astype(np.float32), rng.integers(0, 100, 20000)
print("begun", flush=True)
def show(*told):
    print("told", *told, flush=True)
{call}
"""


@pytest.mark.parametrize(
    "call",
    [
        "logistic.solve(x, y, 100, (1e-6,), tolerance=0, max_steps=100000, show=show)",
        "group_lasso.STEPS = 100000; group_lasso.norms(x, y.astype(np.int32), 100, show)",
    ],
)
def test_a_long_solve_says_how_far_it_is_and_is_stopped_within_a_second(call):
    program = [sys.executable, "-c", LONG.format(call=call)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert process.stdout.readline().startswith(b"told")
        process.send_signal(signal.SIGINT)
        begun = time.time()
        process.wait(timeout=60)
        assert process.returncode != 0
        # generous: the machine may be busy; without parts it would take minutes
        assert time.time() - begun < 20

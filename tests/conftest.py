"""Two simulated CPU devices for every test, so that nothing passes only because there is one."""

import os
import tempfile

# XLA's CPU thread pool must outnumber the simulated devices: a device that waits in a collective holds a thread.
os.environ["NPROC"] = "16"
os.environ["NCJAX_CONV"] = "xla"  # whether or not oneDNN is installed; tests/conv has it
# The tests compile many small programs, and the same ones in this process and in others: compile in haste, and keep.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)
if "NCJAX_TEST_CACHE" not in os.environ:  # the first process makes it; workers and programs that tests start share it
    _cache = tempfile.TemporaryDirectory(prefix="ncjax-xla-", ignore_cleanup_errors=True)
    os.environ["NCJAX_TEST_CACHE"] = os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import numpy as np
import pytest

from ncjax.features import picture

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_enable_async_dispatch", False)
picture.FEWEST = 1 << 30  # t-SNE takes a second of every run; tests/features/test_by_class.py has it


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go():
    """Programs compiled for one file are not kept for the next: they take memory, and a process may map only so much."""
    yield
    jax.clear_caches()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def strict():
    """No silent dtype or rank promotion: what the mathematics floor is held to."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def npz(tmp_path):
    """A tiny learnable .npz data set with three classes; returns its path."""
    rng = np.random.default_rng(1)
    arrays = {}
    for split, per_class in (("train", 20), ("test", 6)):
        y = np.repeat(np.arange(3), per_class)
        x = rng.integers(0, 60, (len(y), 8, 8, 1))
        x[np.arange(len(y)), 1 + 2 * y] += 180
        arrays[f"x_{split}"], arrays[f"y_{split}"] = x.astype(np.uint8), y
    path = tmp_path / "tiny.npz"
    np.savez(path, class_names=np.array(["a", "b", "c"]), **arrays)
    return str(path)

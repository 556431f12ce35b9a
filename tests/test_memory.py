"""Freed memory stays with the process."""

import os
import platform
import subprocess
import sys

import jax
import pytest

from ncjax import memory

FAULTS = """
import resource, ncjax, numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 24)
before = faults()
for _ in range(4):
    np.ones(1 << 24)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_what_is_freed_is_not_fetched_anew():
    found = {}
    for malloc in ("system", "kept"):
        done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True,
                              env={**os.environ, "NCJAX_MALLOC": malloc, "GLIBC_TUNABLES": "",
                                   "NUMPY_MADVISE_HUGEPAGE": "0"})  # huge pages would hide it
        found[malloc] = int(done.stdout)
    assert found["kept"] < 1000 < found["system"], found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts mappings")
def test_compiled_programs_are_let_go_before_mappings_run_out():
    double = jax.jit(lambda x: 2 * x)
    double(1.0)
    assert not memory.let_go(limit=1 << 30)
    assert double._cache_size() == 1
    assert memory.let_go(limit=1)
    assert double._cache_size() == 0

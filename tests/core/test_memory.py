"""Huge pages, and compiled programs that do not pile up."""

import os
import subprocess
import sys

import jax
import pytest

from ncjax.core import memory

FAULTS = """
from ncjax.core import memory
memory.huge_pages()
import resource, sys
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 24)
before = faults()
for _ in range(4):
    np.ones(1 << 24)
print(faults() - before, memory.pages(), *sys.argv[1:])
"""


@pytest.mark.skipif(memory.why_not() is not None, reason=str(memory.why_not()))
def test_a_program_starts_again_in_huge_pages(tmp_path):
    script, found = tmp_path / "script.py", {}
    script.write_text(FAULTS)
    for malloc in ("system", ""):
        done = subprocess.run(
            [sys.executable, script, "a word", "--flag=1"],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "NCJAX_MALLOC": malloc,
                "GLIBC_TUNABLES": "glibc.malloc.tcache_count=7",
                "NUMPY_MADVISE_HUGEPAGE": "0",
            },
        )  # which asks by itself
        faults, found[malloc], *words = done.stdout.split(maxsplit=2)
        assert words == ["a word --flag=1\n"]
        assert (int(faults) < 10_000) == (malloc == ""), faults  # of 131 072 small pages
    assert found == {"system": "small", "": "huge"}


def test_where_huge_pages_cannot_be_had_nothing_starts_again(monkeypatch, tmp_path):
    monkeypatch.setattr(memory.os, "execv", lambda *_: pytest.fail("started again"))
    monkeypatch.setattr(memory, "THP", tmp_path / "absent")
    memory.huge_pages()
    monkeypatch.setenv("GLIBC_TUNABLES", memory.TUNABLE)
    assert memory.pages() == "small"
    (tmp_path / "absent").write_text("[always] madvise never\n")
    memory.huge_pages()
    assert memory.pages() == "huge"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts mappings")
def test_compiled_programs_are_let_go_before_mappings_run_out():
    double = jax.jit(lambda x: 2 * x)
    double(1.0)
    assert not memory.let_go(limit=1 << 30)
    assert double._cache_size() == 1
    assert memory.let_go(limit=1)
    assert double._cache_size() == 0

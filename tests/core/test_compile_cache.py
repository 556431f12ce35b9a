"""Programs on disk: found again by the next process, bounded, and never in the way."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ncjax.core import compile_cache

FRESH = ("JAX_COMPILATION_CACHE_DIR", *compile_cache.SETTINGS)


@pytest.fixture
def environ(tmp_path, monkeypatch):
    for name in FRESH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "cache"))
    return monkeypatch


def measure(tmp_path, **env):
    """Collapse of a file by the command, and whether that took compiling."""
    path = tmp_path / "x.npz"
    rng = np.random.default_rng(0)
    np.savez(path, X=rng.normal(size=(40, 6)).astype(np.float32), y=np.arange(40) % 4)
    env = {k: v for k, v in os.environ.items() if k not in FRESH} | {"NCJAX_MALLOC": "system", **env}
    done = subprocess.run(
        [sys.executable, "-m", "ncjax", "nc", str(path), "--json"], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_second_process_compiles_nothing_and_says_the_same(tmp_path):
    env = {compile_cache.VARIABLE: str(tmp_path / "cache")}
    first = measure(tmp_path, **env)
    written = files(tmp_path / "cache")
    assert len(written) > 5
    assert measure(tmp_path, **env) == first
    assert files(tmp_path / "cache").keys() == written.keys()  # nothing new: all of it was found


def test_damaged_programs_are_compiled_again(tmp_path):
    env = {compile_cache.VARIABLE: str(tmp_path / "cache")}
    first = measure(tmp_path, **env)
    for i, path in enumerate(files(tmp_path / "cache")):
        path.write_bytes(path.read_bytes()[: 100 * (i % 2)])
    assert measure(tmp_path, **env) == first


def test_off_and_folders_that_cannot_be_written_leave_no_trace(tmp_path):
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""}
    env = {compile_cache.VARIABLE: "off", **home}
    first = measure(tmp_path, **env)
    assert not (tmp_path / "home").exists()
    (tmp_path / "file").touch()
    assert measure(tmp_path, **{compile_cache.VARIABLE: str(tmp_path / "file" / "cache")}) == first
    assert measure(tmp_path, **{compile_cache.VARIABLE: "", **home}) == first
    assert files(tmp_path / "home" / ".cache" / "ncjax" / "xla")


def test_a_folder_of_the_users_own_is_left_alone(environ):
    environ.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    compile_cache.keep()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/mine"
    assert "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ


def test_it_is_kept_by_version_and_processor(environ, tmp_path):
    compile_cache.keep()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "cache" / compile_cache.machine())
    assert compile_cache.machine().startswith("jaxlib-0.")


def test_what_was_used_least_lately_goes_first(tmp_path):
    for i in range(8):
        path = tmp_path / f"{i % 2}" / f"{i}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 + i, 1000))  # read later, written at the same time
    compile_cache.shrink(tmp_path, 800)
    assert len(files(tmp_path)) == 8
    compile_cache.shrink(tmp_path, 799)
    assert sorted(p.name for p in files(tmp_path)) == ["3", "4", "5", "6", "7"]


def test_every_door_turns_it_on_before_jax_is_there(tmp_path):
    """`python -m ncjax.main` imports what it needs in an order of its own."""
    env = {k: v for k, v in os.environ.items() if k not in FRESH}
    env |= {"NCJAX_MALLOC": "system", compile_cache.VARIABLE: str(tmp_path / "cache")}
    command = [sys.executable, "-m", "ncjax.main", "--config=pretrain:smoke", "--config.n_per_class=4", "--config.epochs=1"]
    command += ["--config.model=models.mlp.mlp(depth=1,width=4)", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(files(tmp_path / "cache")) > 5

"""The notebook runs from top to bottom; the shell scripts parse and say how to be used."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "wanted"),
    [("colab", ["<svg", "image/png", "What does tuning gain"]), ("own_features", ["95 % interval", "image/png"])],
)
def test_notebooks_run_in_a_fresh_kernel_from_an_empty_folder(tmp_path, monkeypatch, name, wanted):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "launch" / f"{name}.ipynb", as_version=4)
    said = sum(cell.cell_type == "markdown" for cell in notebook.cells)
    assert said >= 0.4 * len(notebook.cells)
    monkeypatch.setenv("NCJAX_VARIANT", "smoke")
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = json.dumps([o.get("data", {}) for c in notebook.cells if c.cell_type == "code" for o in c.outputs])
    assert [word for word in wanted if word not in outputs] == []


def test_notebooks_name_no_address_that_may_not_exist():
    for path in (ROOT / "launch").glob("*.ipynb"):
        assert "https://github.com" not in path.read_text()


@pytest.mark.parametrize("script", ["tpu_vm.sh", "slurm.sh"])
def test_shell_scripts_parse(script):
    assert os.access(ROOT / "launch" / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / "launch" / script)], check=True)


def test_tpu_script_asks_for_what_it_needs():
    done = subprocess.run(["bash", str(ROOT / "launch" / "tpu_vm.sh")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_tpu_script_creates_pushes_runs_and_deletes(tmp_path):
    log = tmp_path / "log"
    fake = tmp_path / "gcloud"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in *describe*) exit 1;; esac\n')
    fake.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ZONE": "z", "TYPE": "v4-8"}
    command = [str(ROOT / "launch" / "tpu_vm.sh"), "name", "--config=configs/pretrain.py"]
    subprocess.run(command, check=True, env=env, cwd=ROOT)
    calls = log.read_text().splitlines()
    verbs = [c.split()[3] for c in calls]
    assert verbs == ["describe", "create", "scp", "ssh", "ssh", "scp", "delete"]
    assert "ncjax.main --distributed --config=configs/pretrain.py" in calls[4]

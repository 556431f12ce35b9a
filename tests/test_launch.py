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


@pytest.fixture
def tpu(tmp_path):
    """Runs tpu_vm.sh with a gcloud that answers `answers` (shell patterns over its words and what to do); (code, verbs)."""

    def run(answers, **env):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        fake = tmp_path / "gcloud"
        cases = " ".join(f'*"{pattern}"*) {does};;' for pattern, does in answers.items())
        fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in {cases} esac\n')
        fake.chmod(0o755)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ZONE": "z", "TYPE": "v4-8", **env}
        command = [str(ROOT / "launch" / "tpu_vm.sh"), "name", "--config=configs/pretrain.py"]
        code = subprocess.run(command, env=env, cwd=ROOT, capture_output=True).returncode
        calls = log.read_text().splitlines()
        return code, [c.split()[3] for c in calls if c.startswith("compute")], "\n".join(calls)

    return run


NEW = {"describe": "exit 1"}


def test_tpu_script_creates_pushes_runs_fetches_and_deletes(tpu):
    code, verbs, said = tpu({**NEW, "test ! -d": "exit 1"})
    assert code == 0
    assert verbs == ["describe", "create", "scp", "ssh", "ssh", "ssh", "scp", "delete"]
    assert "-m ncjax.main --distributed --config=configs/pretrain.py" in said
    assert "venv -q --allow-existing --python 3.12" in said


def test_tpu_script_leaves_a_machine_that_was_there(tpu):
    code, verbs, _ = tpu({"test ! -d": "exit 1"})
    assert code == 0
    assert verbs == ["describe", "scp", "ssh", "ssh", "ssh", "scp"]


def test_tpu_script_fetches_what_a_failed_run_left(tpu):
    code, verbs, _ = tpu({**NEW, "test ! -d": "exit 1", "ncjax.main": "exit 3"})
    assert code == 3
    assert verbs[-2:] == ["scp", "delete"]


def test_tpu_script_keeps_a_machine_whose_runs_did_not_come_home(tpu):
    code, verbs, _ = tpu({**NEW, "test ! -d": "exit 1", "scp --recurse": "exit 1"})
    assert code == 1
    assert verbs[-1] == "scp"
    code, verbs, _ = tpu({**NEW, "test ! -d": "exit 1"}, KEEP="1")
    assert code == 0
    assert verbs[-1] == "scp"


@pytest.fixture
def slurm(tmp_path):
    """Runs slurm.sh with an srun that starts one task a node, whose program says its device ids and exits with `code`."""

    def run(code, nodes, *, told=False):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        ends = "kill -TERM $PPID;" if told else ""
        programs = {
            # each task of a real one would see its own SLURM_PROCID; slurm.sh looks at none
            "srun": f'for i in $(seq $SLURM_JOB_NUM_NODES); do "$@"; code=$?; done; {ends} exit $code',
            "python": f'echo "$JAX_LOCAL_DEVICE_IDS $@" >> {log}; exit {code}',
            "scontrol": f'echo "scontrol $@" >> {log}',
        }
        for name, text in programs.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "JAX_LOCAL"))}
        env |= {"PATH": f"{tmp_path}:{env['PATH']}", "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_GPUS_ON_NODE": "8"}
        command = [str(ROOT / "launch" / "slurm.sh"), "--config=a b.py", "--workdir=w"]
        done = subprocess.run(command, env={**env, "SLURM_JOB_ID": "77"})
        return done.returncode, log.read_text().splitlines()

    return run


def test_slurm_script_gives_each_node_all_of_its_gpus(slurm):
    code, calls = slurm(0, nodes=2)
    assert code == 0
    assert calls == ["0,1,2,3,4,5,6,7 -m ncjax.main --distributed --config=a b.py --workdir=w"] * 2
    assert slurm(0, nodes=1) == (0, [" -m ncjax.main --config=a b.py --workdir=w"])


def test_slurm_script_queues_a_run_again_that_was_stopped_and_saved(slurm):
    assert slurm(143, nodes=2)[1][-1] == "scontrol requeue 77"
    for code, told in ((2, False), (1, False), (143, True)):  # the last: cancelled, or preempted, by SLURM itself
        found, calls = slurm(code, nodes=2, told=told)
        assert found == code
        assert not any("scontrol" in call for call in calls)

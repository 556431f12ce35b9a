"""The script for a GPU is rehearsed on a CPU: time on a GPU is dear."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*words):
    command = [sys.executable, str(ROOT / "bench" / "gpu.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_parts_write_a_record_each(tmp_path):
    parts = ["ceilings", "train_cnn", "probe"]
    done = run(str(tmp_path), "--tiny", "--parts", *parts)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {part: json.loads((tmp_path / f"{part}.json").read_text())["rows"] for part in parts}
    assert rows["ceilings"][0]["copy_bytes_per_second"] > 0
    assert rows["train_cnn"][0]["images_per_second"] > 0
    assert rows["probe"][0]["gradient"] < 1e-4


def test_the_tests_it_runs_are_there():
    named = re.findall(r'"(tests/[\w/]+\.py)"', (ROOT / "bench" / "gpu.py").read_text())
    assert len(named) >= 5
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_a_stopped_part_says_so(tmp_path):
    done = run(str(tmp_path), "--tiny", "--parts", "probe", "--seconds", "0")
    rows = json.loads((tmp_path / "probe.json").read_text())["rows"]
    assert done.returncode == 1
    assert rows[-1]["failed"] == "stopped after 0 s"
    assert "no part 'prob'" in run(str(tmp_path), "--parts", "prob").stderr

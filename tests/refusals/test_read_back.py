"""What is read back is checked: a run's files in every state that a disk, an editor or a script may leave them in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ncjax import main
from ncjax.core.errors import UserError
from ncjax.core.files import read_json
from ncjax.networks import delta
from ncjax.report import __main__ as report_command
from ncjax.runs.run import Run

ROOT = Path(__file__).parents[2]
ARGV = [
    f"--config={ROOT / 'configs' / 'pretrain.py'}:smoke",
    "--config.model=models.mlp.mlp(depth=1,width=4)",
    "--config.epochs=1",
    "--config.n_per_class=4",
]
NOT_JSON = {
    "empty": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "not UTF-8": lambda p: p.write_bytes(b'{"a": "\xff\xfe"}'),
    "another type": lambda p: p.write_text("[1, 2]"),
    "a number": lambda p: p.write_text("3"),
    "null": lambda p: p.write_text("null"),
    "deep": lambda p: p.write_text("[" * 100_000),
    "binary": lambda p: p.write_bytes(bytes(range(256))),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a pipe": lambda p: (p.unlink(), os.mkfifo(p)),
    "a loop": lambda p: (p.unlink(), p.symlink_to(p)),
}


@pytest.fixture
def run(small_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    return folder


READERS: dict[str, tuple[str, Callable[[Path, Path], int]]] = {
    "the same command": ("config.json results.json metrics.jsonl", lambda run, to: main.main([*ARGV, f"--workdir={run}"])),
    "report": ("results.json metrics.jsonl", lambda run, to: report_command.main([str(run), f"--out={to / 'page'}"])),
    "delta": ("checkpoints/model.json", lambda run, to: delta.main([str(run), str(to / "m.safetensors")])),
    "init": (
        "checkpoints/model.json",
        lambda run, to: main.main(
            [f"--config={ROOT / 'configs' / 'measure.py'}:smoke", f"--config.init={run}", f"--workdir={to / 'm'}"]
        ),
    ),
}
SOME = ("cut", "not UTF-8", "another type", "deep", "a pipe")
CASES = [
    (who, name, how)
    for who, (names, _) in READERS.items()
    for name in names.split()
    for how in (NOT_JSON if who == "report" else SOME)
]


@pytest.mark.parametrize(("who", "name", "how"), CASES)
def test_a_file_that_is_none_of_ncjax_is_one_line_that_names_it(run, tmp_path, capsys, who, name, how):
    if (name, how) == ("metrics.jsonl", "empty") or (name, how) == ("metrics.jsonl", "cut"):
        words = "rows of the"
    else:
        words = Path(name).name
    NOT_JSON[how](run / name)
    capsys.readouterr()
    assert READERS[who][1](run, tmp_path) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert str(run) in said


def _mutations(value: Any, depth: int = 3) -> list[Callable[[Any], Any]]:
    """Functions that return a copy with one field gone, or of another type, down to a depth."""

    def at(path: tuple, change: Callable[[dict, Any], None]) -> Callable[[Any], Any]:
        def mutate(whole: Any) -> Any:
            whole = json.loads(json.dumps(whole))
            place = whole
            for key in path[:-1]:
                place = place[key]
            change(place, path[-1])
            return whole

        return mutate

    found = []

    def walk(x: Any, path: tuple, left: int) -> None:
        if not left or not isinstance(x, dict):
            return
        for key, inner in x.items():
            found.append(at((*path, key), lambda place, k: place.pop(k)))
            for other in (None, 3, "x", [], {}, [["x"]]):
                if type(other) is not type(inner):
                    found.append(at((*path, key), lambda place, k, other=other: place.__setitem__(k, other)))
            walk(inner, (*path, key), left - 1)

    walk(value, (), depth)
    return found


def test_fields_of_results_that_are_missing_or_of_another_type_never_end_in_a_traceback(run, tmp_path, capsys):
    path = run / "results.json"
    whole, refused, tried = json.loads(path.read_text()), 0, 0
    for mutate in _mutations(whole)[::47]:  # a page takes half a second
        path.write_text(json.dumps(mutate(whole)))
        capsys.readouterr()
        code = report_command.main([str(run), f"--out={tmp_path / 'page'}"])
        said = capsys.readouterr().err
        assert code in (0, 2)
        assert said.count("\n") == (code == 2), said
        assert code == 0 or "results.json" in said
        refused, tried = refused + (code == 2), tried + 1
    assert tried > 10
    assert refused > 2


def test_fields_of_a_card_that_are_missing_or_of_another_type_are_refused_or_do_not_matter(run, tmp_path, capsys):
    path = run / "checkpoints" / "model.json"
    whole, refused = json.loads(path.read_text()), 0
    for mutate in _mutations(whole, 1):
        path.write_text(json.dumps(mutate(whole)))
        capsys.readouterr()
        code = delta.main([str(run), str(tmp_path / "m.safetensors")])
        said = capsys.readouterr().err
        assert code in (0, 2)
        assert said.count("\n") == (code == 2), said
        refused += code == 2
    assert refused > 40


@pytest.mark.parametrize(
    "change",
    [
        lambda row: {**row, "extra": 1},
        lambda row: {k: v for k, v in row.items() if k != "value"},
        lambda row: {**row, "value": "high"},
        lambda row: {**row, "value": True},
        lambda row: {**row, "epoch": 1.5},
        lambda row: {**row, "layer": None},
        lambda row: [row],
        lambda row: None,
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(run, tmp_path, capsys, change):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(change(json.loads(lines[2])))
    path.write_text("\n".join(lines) + "\n")
    assert report_command.main([str(run), f"--out={tmp_path / 'page'}"]) == 2
    said = capsys.readouterr().err
    assert f"{path}, line 3 is no row" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("lost", [1, 5, 1000])
def test_rows_that_a_finished_run_lost_are_counted(run, tmp_path, capsys, lost):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[lost:]))
    assert report_command.main([str(run), f"--out={tmp_path / 'page'}"]) == 2
    assert f"holds {max(0, len(lines) - lost)} rows of the {len(lines)}" in capsys.readouterr().err


def _damage(folder: Path, which: int, how: str) -> Path:
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)
    file = files[which]
    data = file.read_bytes()
    {
        "gone": file.unlink,
        "empty": lambda: file.write_bytes(b""),
        "cut": lambda: file.write_bytes(data[: len(data) // 2]),
        "other bytes": lambda: file.write_bytes(bytes(255 - x for x in data)),
    }[how]()
    return file


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "other bytes"])
@pytest.mark.parametrize("which", [0, 1, 2, 3, 4, 5])
def test_a_damaged_checkpoint_is_named_and_the_other_offered(run, tmp_path, capfd, which, how):
    _damage(run / "checkpoints" / "best", which, how)
    code = delta.main([str(run), str(tmp_path / "m.safetensors"), "--which=best"])
    said = capfd.readouterr().err
    if code == 0:  # a file that says nothing of the arrays
        return
    assert code == 2
    assert said.count("\n") == 1, said
    assert f"checkpoint {run / 'checkpoints' / 'best'} is damaged" in said
    assert "which=last" in said
    assert "Event loop" not in said
    assert delta.main([str(run), str(tmp_path / "m.safetensors"), "--which=last"]) == 0


@pytest.mark.parametrize("text", ["[]", "3", '{"value": 2}', '{"sha256": "0", "value": 1}', "{", ""])
def test_a_cell_that_is_not_what_was_written_is_named(tmp_path, text):
    run = Run(tmp_path)
    assert run.once({"a": 1}, lambda: {"value": 1, "none": float("nan")}) == {"value": 1, "none": None}
    assert run.once({"a": 1}, lambda: {"value": 2}) == {"value": 1, "none": None}
    path = next((tmp_path / "cells").iterdir())
    assert "NaN" not in path.read_text()
    found = read_json(path)
    path.write_text(json.dumps({**found, **json.loads(text)}) if text.startswith('{"v') else text)
    with pytest.raises(UserError, match=path.name):
        run.once({"a": 1}, lambda: {"value": 2})


def test_a_state_stored_just_before_a_kill_has_no_seal_and_is_taken(run, tmp_path):
    folder = run / "checkpoints" / "best"
    seal = next(folder.glob("crc32_*.json"))
    seal.rename(folder / "crc32_999.json")  # of the step before, which is gone
    assert delta.main([str(run), str(tmp_path / "m.safetensors"), "--which=best"]) == 0
    (run / "results.json").unlink()
    assert main.main([*ARGV, f"--workdir={run}"]) == 0

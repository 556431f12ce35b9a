"""What an earlier ncjax wrote is refused in one line, by whoever reads it; it is never half-read."""

import json
import re

import pytest

from ncjax import main
from ncjax.core.errors import UserError
from ncjax.networks import card
from ncjax.report import __main__ as report_main


@pytest.fixture
def old_run(tmp_path):
    """A run as the layout before format 2 left it: no format in its files."""
    run = tmp_path / "old"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"study": "pretrain", "head": 0}))
    (run / "results.json").write_text(json.dumps({"study": "pretrain", "config": {}, "results": {}, "seconds": 1.0}))
    (run / "metrics.jsonl").write_text('{"epoch": 0, "split": "chosen:test", "layer": "x", "metric": "nc1", "value": 1}\n')
    (run / "checkpoints" / "model.json").write_text(json.dumps({"model": "models.mlp.mlp", "head": 0}))
    return run


def config_file(tmp_path, study, **values):
    path = tmp_path / f"{study}.py"
    made = f"config.make('{study}', arg, smoke={{}}, **{values})"
    path.write_text(f"from ncjax import config\n\n\ndef get_config(arg=''):\n    return {made}\n")
    return path


def test_an_old_run_is_neither_gone_on_with_nor_reported_nor_loaded(old_run, tmp_path, capsys):
    before = {p: p.read_text() for p in old_run.rglob("*.*") if p.is_file()}
    commands = [
        lambda: main.main([f"--config={config_file(tmp_path, 'pretrain')}", f"--workdir={old_run}"]),
        lambda: main.main(
            [f"--config={config_file(tmp_path, 'measure', init=str(old_run))}", f"--workdir={tmp_path / 'm'}"]
        ),
        lambda: report_main.main([str(old_run), "--out", str(tmp_path / "r")]),
    ]
    for command in commands:
        assert command() == 2
        said = capsys.readouterr().err
        assert re.search("of format 1, this ncjax reads format [23]", said)
        assert said.count("\n") == 1
    assert before == {p: p.read_text() for p in before}
    with pytest.raises(UserError, match="format 1"):
        card.read(old_run / "checkpoints")

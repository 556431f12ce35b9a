"""Every config resolves, and its :smoke variant runs from an empty folder; then reports are made of what is there."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from ncjax import config as door
from ncjax import main, report
from ncjax.core.errors import UserError
from ncjax.report import __main__ as report_main
from ncjax.runs.rows import read_rows
from ncjax.studies import module_of

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "configs").rglob("*.py"))
OWN = [p for p in FILES if p.parent.name == "configs"]  # the paper's, and other chains, are the same studies
CONFIGS = sorted(p.stem for p in OWN)
PLACE = {p.stem: p for p in OWN}


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_config_resolves_and_its_docstring_is_a_lab_note(path):
    note = path.read_text().split('"""')[1]
    name = path.relative_to(ROOT)
    commands = re.findall(rf"python -m ncjax.main --config={name}:?(\w*)(?![\w=])", note)
    assert commands
    for arg in {"", "smoke", *commands}:
        study, values = door.plain(door.load(f"{path}:{arg}"))
        assert set(values) == set(door.schema(module_of(study).run))


def test_records_have_configs_that_make_them():
    """What stands in docs/results was made by these keys; words have changed since, values have not."""
    records = {
        f"few_labels.py:{p.stem}": json.loads(p.read_text())["config"]
        for p in (ROOT / "docs" / "results" / "few_labels").glob("resnet*.json")
    }
    for study, folder in (("choose_layer", "choose_layer"), ("e1", "e1_backbones")):
        for run in json.loads((ROOT / "docs" / "results" / folder / "results.json").read_text()):
            records[f"{study}.py:{run['name'].removeprefix('e1_')}"] = run["config"]
    assert len(records) == 9
    for spec, made in records.items():
        _, values = door.plain(door.load(str(ROOT / "configs" / "paper" / spec)))
        differing = {k: v for k, v in made.items() if k not in ("study", "format") and values.get(k, "gone") != v}
        # A rule's name, and the methods that are compared with, to which layer FT has been added.
        allowed = {
            "choose_layer.py": {"rule": "default"},
            "few_labels.py": {"references": ["tuning.layer_ft_scaled", "tuning.full_ft"]},
        }.get(spec.partition(":")[0], {})
        assert differing == allowed, spec
        assert values.get("rule") in (None, "key_layer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the configs have been run, in the order a user would."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in (
            "pretrain",
            "measure",
            "transfer",
            "finetune",
            *sorted(set(CONFIGS) - {"pretrain", "measure", "transfer", "finetune"}),
        ):
            assert main.main([f"--config={PLACE[name]}:smoke"]) == 0, name
    return folder / "runs"


@pytest.mark.parametrize("name", CONFIGS)
def test_smoke_variant_leaves_results_and_a_report(folder, name):
    run = folder / f"{name}_smoke"
    record = json.loads((run / "results.json").read_text())
    assert {"config", "results", "environment", "seconds"} <= set(record)
    assert {"versions", "devices", "commit"} <= set(record["environment"])
    page = (run / "report.html").read_text()
    assert not re.search(r'(src|href)="https?:', page)  # self-contained
    assert "NaN" not in (run / "results.json").read_text()


def test_results_hold_data_hashes_and_rows(folder):
    record = json.loads((folder / "pretrain_smoke" / "results.json").read_text())
    assert all(re.fullmatch("[0-9a-f]{12}", s["hash"]) for s in record["results"]["data"].values())
    rows = read_rows(folder / "pretrain_smoke")
    assert {r["epoch"] for r in rows} == {0, 1, 2}
    seen = {(r["split"], r["layer"], r["metric"]) for r in rows}
    for split in ("train", "test"):
        for metric in ("nc1", "nc2", "nc3", "nc4", "cdnv"):
            assert (split, "layer3.0", metric) in seen


def test_numbers_in_the_page_can_be_traced_to_their_rows(folder):
    page = (folder / "pretrain_smoke" / "report.html").read_text()
    rows = {(r["epoch"], r["split"], r["layer"], r["metric"]): r["value"] for r in read_rows(folder / "pretrain_smoke")}
    source = r"metrics.jsonl: epoch (\d+), split (\w+), layer ([\w.]+), metric (\w+)"
    cells = re.findall(rf'<td[^>]* title="[^"]*{source}">([^<]*)<', page)
    assert len(cells) > 10
    for epoch, split, layer, metric, shown in cells:
        value = rows[int(epoch), split, layer, metric]
        number = float(shown.split(" ")[0])
        assert number == pytest.approx(100 * value if metric == "accuracy" else value, rel=6e-3)


def test_chain_report_has_every_section_and_tables(folder):
    run = folder / "quickstart_smoke"
    page = (run / "report.html").read_text()
    for words in (
        "How collapsed did the features become?",
        "Layer by layer on embedded.fashion_mnist_mini",
        "Layer by layer on embedded.digits",
        "What does tuning gain on embedded.digits?",
    ):
        assert words in page
    assert page.count("<svg") >= 6
    with open(run / "tables" / "tuning_embedded_digits.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["run"] for row in table] == ["probe", "layer_ft", "layer_ft_scaled", "scl_ft", "full_ft"]
    shares = {row["run"]: float(row["tuned %"]) for row in table}
    assert shares["probe"] < shares["layer_ft"] == shares["scl_ft"] < shares["full_ft"] == 1
    flops = {row["run"]: float(row["FLOPs a step"]) for row in table if row["FLOPs a step"]}
    assert flops["layer_ft"] < flops["full_ft"]
    assert "probe" not in flops  # solved, not stepped
    latex = (run / "tables" / "tuning_embedded_digits.tex").read_text()
    assert r"layer\_ft" in latex
    assert r"\toprule" in latex


def test_runs_can_be_compared(folder, capsys):
    out = folder / "compared"
    code = report_main.main([str(folder / "transfer_smoke"), str(folder / "measure_smoke"), "--out", str(out), "--archive"])
    assert code == 0
    assert len(json.loads((out / "results.json").read_text())) == 2
    assert list((out / "figures").glob("*.png"))
    page = (out / "report.html").read_text()
    assert "transfer_smoke" in page
    assert "measure_smoke" in page
    assert report_main.main([str(folder / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sweeps_are_told_with_their_intervals(folder, tmp_path):
    """Methods on few labels, blocks, what rules lose, and, over two studies, which rule loses least."""
    page = (folder / "few_labels_smoke" / "report.html").read_text()
    assert "Which method with few labels?" in page
    record = json.loads((folder / "few_labels_smoke" / "results.json").read_text())
    mean, low, high = (
        100 * x for x in record["results"]["table"]["3"]["tuning.scl_ft"]["paired"]["tuning.full_ft"]["difference"]
    )
    assert f'paired.tuning.full_ft.difference">{mean:.1f} [{low:.1f}, {high:.1f}]' in page
    one, other = folder / "choose_layer_smoke", tmp_path / "other"
    shutil.copytree(one, other)
    page = report.write([one, other], tmp_path / "r", title="x").read_text()
    assert page.count("the best block in hindsight") == 2
    assert "Which rule to trust?" in page
    with open(tmp_path / "r" / "tables" / "regret.csv") as file:
        found = {row["rule"]: float(row["regret % [95 %]"]) for row in csv.DictReader(file)}
    regret = json.loads((one / "results.json").read_text())["results"]["regret"]
    assert found == pytest.approx({rule: mean for rule, (mean, _, _) in regret.items()})


def test_runs_of_different_architectures_can_be_compared(folder, tmp_path):
    for name, model in (("a", "models.mlp.mlp(width=8)"), ("b", "models.resnet.resnet8(width=4, stem_stride=2)")):
        assert (
            main.main(
                [
                    f"--config={ROOT}/configs/pretrain.py:smoke,epochs=1",
                    f"--config.model={model}",
                    f"--workdir={tmp_path / name}",
                ]
            )
            == 0
        )
        assert (
            main.main(
                [
                    f"--config={ROOT}/configs/transfer.py:smoke",
                    f"--config.init={tmp_path / name}",
                    f"--workdir={tmp_path / name / 't'}",
                ]
            )
            == 0
        )
    assert report_main.main([*(str(tmp_path / n) for n in ("a", "b", "a/t", "b/t")), "--out", str(tmp_path / "r")]) == 0


def test_a_chain_goes_on_with_a_corrected_step(tmp_path, capsys):
    chain = f"--config={ROOT}/configs/chains/cifar10_to_fashion_mnist.py:smoke"
    wrong = [chain, "--config.steps.target.data=npz:nowhere.npz", f"--workdir={tmp_path / 'c'}"]
    assert main.main(wrong) == 2
    assert main.main([chain, f"--workdir={tmp_path / 'c'}"]) == 0
    assert "already finished" in capsys.readouterr().out


def test_a_finished_run_is_reported_and_not_repeated(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    before = (folder / "pretrain_smoke" / "results.json").read_text()
    assert main.main([f"--config={ROOT}/configs/pretrain.py:smoke"]) == 0
    assert "already finished" in capsys.readouterr().out
    assert (folder / "pretrain_smoke" / "results.json").read_text() == before


def test_another_config_in_the_same_workdir_is_refused(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert main.main([f"--config={ROOT}/configs/pretrain.py:smoke", "--config.lr=0.123"]) == 2
    message = capsys.readouterr().err
    assert "lr (0.05 there, 0.123 now)" in message
    assert message.count("\n") == 1


def test_classifier_metrics_need_the_classifiers_own_classes(folder):
    own, other = (
        json.loads((folder / f"{name}_smoke" / "results.json").read_text())["results"] for name in ("measure", "transfer")
    )
    assert own["layers"]["layer3.0"]["train"]["nc3"] is not None
    assert other["layers"]["layer3.0"]["train"]["nc3"] is None
    assert "accuracy" in own
    assert "accuracy" not in other


def test_a_fine_tuned_checkpoint_can_be_measured(folder, tmp_path):
    code = main.main(
        [
            f"--config={ROOT}/configs/measure.py:smoke",
            f"--config.init={folder / 'finetune_smoke'}",
            "--config.data=embedded.digits",
            f"--workdir={tmp_path / 'm'}",
        ]
    )
    assert code == 0
    results = json.loads((tmp_path / "m" / "results.json").read_text())["results"]
    assert results["readout"] == "readout"
    assert results["layers"]["readout"]["train"]["nc3"] is not None


def test_report_of_a_damaged_run_is_one_line(folder, tmp_path):
    (tmp_path / "results.json").write_text('{"study": "pre')
    with pytest.raises(UserError, match="truncated"):
        report.write([tmp_path], tmp_path / "out", title="x")

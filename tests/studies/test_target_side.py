"""Few-shot episodes, the benchmark of scores and the ranking of networks, on small perceptrons from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from ncjax import main
from ncjax.networks import weights
from ncjax.studies import rank_backbones

ROOT = Path(__file__).parents[2]
KEYS = ["model=models.mlp.mlp(depth=1,width=16)", "n_per_class=8", "augment=None", "epochs=1"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Six perceptrons that differ in their seeds."""
    found = []
    for seed in range(6):
        folder = tmp_path_factory.mktemp("networks") / f"mlp{seed}"
        argv = [f"--config={ROOT / 'configs' / 'pretrain.py'}:smoke", f"--workdir={folder}", f"--config.seed={seed}"]
        assert main.main([*argv, *(f"--config.{k}" for k in KEYS)]) == 0
        found.append(str(folder))
    return found


def ran(config, networks, folder, *more):
    argv = [f"--config={ROOT / 'configs' / config}:smoke", f"--config.backbones=[{','.join(networks)}]"]
    code = main.main([*argv, *(f"--config.{k}" for k in more), f"--workdir={folder}"])
    return code, json.loads((folder / "results.json").read_text())["results"] if code == 0 else None


def test_few_shot_episodes_are_the_same_for_all_and_resume(networks, tmp_path, capsys):
    code, found = ran("paper/e2_few_shot.py", networks, tmp_path / "a")
    assert code == 0
    cells = found["cells"]["embedded.digits"]
    assert set(found["classes"]["embedded.digits"]) == {"base", "val", "novel"}
    for setting in ("2-way 1-shot", "2-way 2-shot", "4-way 1-shot", "4-way 2-shot"):
        drawn = {cell["settings"][setting]["episodes"] for cell in cells.values()}
        assert len(drawn) == 1
        for cell in cells.values():
            each = cell["settings"][setting]
            assert set(each["accuracy"]) == {"nearest_mean", "cosine", "ridge", "logistic"}
            assert all(0 <= low <= mean <= high <= 1 for mean, low, high in each["accuracy"].values())
            assert 1 - each["accuracy"]["nearest_mean"][0] <= each["certificate"] + 0.2
    assert found["correlations"]["nc1"]["spearman"]["mean"] is not None
    assert "C11" in found["verdicts"]
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Does collapse on novel classes say" in page
    (tmp_path / "a" / "results.json").unlink()
    for cell in sorted((tmp_path / "a" / "cells").iterdir())[:2]:
        cell.unlink()
    code, again = ran("paper/e2_few_shot.py", networks, tmp_path / "a")
    assert again["cells"] == found["cells"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["novel_classes=8"], "leave none for the base"),
        (["pool=4"], "an episode takes"),
        (["ways=[1]"], "ways=1"),
        (["classifiers=[cosine]"], "judged_by=logistic"),
        (["families=[a]"], "families has 1 entries for 6"),
    ],
)
def test_few_shot_refuses_what_cannot_be(networks, tmp_path, capsys, keys, said):
    code, _ = ran("paper/e2_few_shot.py", networks, tmp_path / "a", *keys)
    err = capsys.readouterr().err
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_the_benchmark_judges_every_score(networks, tmp_path, capsys):
    code, found = ran("paper/scores.py", networks, tmp_path / "a")
    assert code == 0
    assert set(found["truths"]) == {"probe", "tuning.scl_ft"}
    summary = found["truths"]["probe"]["summary"]
    assert {"nc1", "logme", "ncti", "face", "leep", "sfda", "knn"} <= set(summary)
    assert found["rule"]["rule"] in found["labels"]
    cell = next(iter(found["cells"]["embedded.digits"].values()))
    assert cell["seconds"]["moments"] > 0
    assert np.isfinite(cell["predictors"]["leep"])
    assert "Which score says which network to take?" in (tmp_path / "a" / "report.html").read_text()
    assert ran("paper/scores.py", networks, tmp_path / "b", "controls=[knnn]")[0] == 2
    assert "did you mean 'knn'" in capsys.readouterr().err


def test_networks_are_ranked_and_what_tuning_costs_is_told(networks, tmp_path, capsys):
    code, found = ran("rank_backbones.py", networks[:3], tmp_path / "a", "rule=scores.nc1")
    assert code == 0
    values = [found["values"][n]["nc1"] for n in found["order"]]
    assert values == sorted(values)
    out = capsys.readouterr().out
    assert "as asked for" in out
    assert f"ncjax finetune:init={found['order'][0]}" in out
    assert all(0 < c["cost"]["share"] <= 1 for c in found["cells"].values())
    code, default = ran("rank_backbones.py", networks[:3], tmp_path / "b")
    assert default["rule"] == rank_backbones.evidence()["rule"]
    assert "ncjax's own benchmark" in default["evidence"]
    assert ran("rank_backbones.py", networks[:1], tmp_path / "c")[0] == 2
    assert "1 network named: there is nothing to rank" in capsys.readouterr().err


def test_networks_at_hand_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").touch()
    (tmp_path / "weights").mkdir()
    for name in ("a.npz", "b.safetensors", "c.txt"):
        (tmp_path / "weights" / name).touch()
    found = rank_backbones.held(tmp_path / "weights")
    assert [Path(x).name for x in found[:2]] == ["a.npz", "b.safetensors"]
    assert "torchvision:resnet18" in found
    assert weights.SUFFIXES
    assert rank_backbones.held(tmp_path / "nowhere") == found[2:]

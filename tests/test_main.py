"""The door: config arguments, overrides, and every kind of bad input as one line and exit code 2."""

import errno
from pathlib import Path

import pytest

from ncjax import config as door
from ncjax import main
from ncjax.core import resolve, roles
from ncjax.core.errors import UserError
from ncjax.training import fit

ROOT = Path(__file__).parent.parent
PRETRAIN = f"--config={ROOT}/configs/pretrain.py"


def values_of(*argv):
    _, config = main._parse(list(argv))
    return door.plain(config)[1]


def test_overrides_and_config_arguments():
    v = values_of(PRETRAIN, "--config.lr=0.3", "--config.augment=augment.crop_flip(strength=1.0)", "--config.n_per_class=5")
    assert (v["lr"], v["augment"], v["n_per_class"]) == (0.3, "augment.crop_flip(strength=1.0)", 5)
    v = values_of(PRETRAIN + ":smoke,lr=1,model=models.resnet.resnet8(width=4, stem_stride=2),classes=0,3-5,epochs=7")
    assert (v["lr"], v["model"], v["classes"]) == (1.0, "models.resnet.resnet8(width=4, stem_stride=2)", "0,3-5")
    assert (v["epochs"], v["n_per_class"]) == (7, 8)
    assert isinstance(v["lr"], float)
    assert values_of(PRETRAIN, "--config.augment=None")["augment"] is None
    assert values_of(PRETRAIN, "--config.skip_bad=true")["skip_bad"] is True
    chain = values_of(f"--config={ROOT}/configs/quickstart.py", "--config.steps.pretrain.epochs=3")
    assert chain["steps"]["pretrain"]["epochs"] == 3
    assert chain["steps"]["pretrain_head"]["epochs"] == 15
    assert list(chain["steps"])[:2] == ["pretrain", "pretrain_head"]


def test_the_same_thing_has_the_same_key_everywhere():
    studies = ("pretrain", "measure", "finetune")
    keys = {s: set(door.schema(resolve.find(f"studies.{s}.run"))) for s in studies}
    assert {"data", "model", "loss", "projection_layers", "epochs", "batch_size", "lr", "weight_decay", "seed"} <= keys[
        "pretrain"
    ]
    assert {
        "data",
        "model",
        "loss",
        "init",
        "method",
        "layer",
        "epochs",
        "batch_size",
        "lr",
        "weight_decay",
        "seed",
    } <= keys["finetune"]
    assert {"data", "model", "init", "batch_size"} <= keys["measure"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["--config=configs/quickstart.py"]),
        (["--config=configs/nowhere.py"], ["no file configs/nowhere.py"]),
        ([PRETRAIN, "--workdr=x"], ["workdr", "did you mean 'workdir'"]),
        ([PRETRAIN, "--config.lrr=1"], ["'lrr'", "pretrain", "did you mean 'lr'"]),
        ([PRETRAIN + ":lrr=1"], ["'lrr'", "did you mean 'lr'"]),
        ([PRETRAIN + ":smok"], ["'smok'", "smoke"]),
        ([PRETRAIN, "--config.lr=fast"], ["lr='fast'", "expected float"]),
        ([PRETRAIN, "--config.epochs=1.5"], ["epochs='1.5'", "expected int"]),
        ([PRETRAIN, "--config.epochs"], ["--config.epochs=value"]),
        ([PRETRAIN, "--config.model=models.resnet.resnet19"], ["resnet19", "resnet18"]),
        ([PRETRAIN, "--config.model=models.resnt.resnet18"], ["ncjax.models.resnt"]),
        ([PRETRAIN, "--config.model=models.resnet.resnet18(wdth=3)"], ["'wdth'", "did you mean 'width'"]),
        ([PRETRAIN, "--config.model=models.resnet.resnet18("], ["cannot read"]),
        ([PRETRAIN, "--config.loss=losses.sup_cn"], ["sup_cn", "did you mean 'sup_con'"]),
        ([PRETRAIN, "--config.projection_layers=9"], ["0 to 5"]),
        ([PRETRAIN, "--config.head=2"], ["no key 'head'", "did you mean 'projection_layers'"]),
        ([PRETRAIN, "--config.data=npz:nowhere.npz"], ["no file nowhere.npz"]),
        ([PRETRAIN, "--config.classes=3"], ["at least two"]),
        ([PRETRAIN, "--config.batch_size=0"], ["batch_size=0"]),
        ([f"--config={ROOT}/configs/measure.py", "--config.init=nowhere"], ["init='nowhere'", "no checkpoint"]),
        (
            [f"--config={ROOT}/configs/quickstart.py", "--config.steps.pretran.epochs=1"],
            ["pretran", "did you mean 'pretrain'"],
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("ncjax: ")
    for word in words:
        assert word in err


def test_a_bad_run_leaves_a_workdir_that_a_good_one_can_use(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main([PRETRAIN + ":smoke", "--config.loss=losses.nothing"]) == 2
    assert main.main([PRETRAIN + ":smoke", "--config.epochs=1"]) == 0


def test_a_pattern_that_matches_no_block(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main([PRETRAIN + ":smoke", "--config.epochs=1"]) == 0
    assert main.main([f"--config={ROOT}/configs/finetune.py:smoke", "--config.layer=layer5.*"]) == 2
    assert "'layer5.*' matches no block" in capsys.readouterr().err


def test_a_workdir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main.main([PRETRAIN + ":smoke", f"--workdir={tmp_path / 'file' / 'run'}"]) == 2
    assert "cannot write to workdir" in capsys.readouterr().err


def test_a_folder_with_other_things_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert main.main([PRETRAIN + ":smoke", f"--workdir={tmp_path}"]) == 2
    assert "holds 'thesis.tex' and no run" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: No space left on device [writing chunk]"),
    ],
)
def test_no_space_left(error, tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(fit.checkpoint.Store, "save", full)
    assert main.main([PRETRAIN + ":smoke", f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert "no space left" in err
    assert err.count("\n") == 1


def test_public_names_are_listed_and_private_ones_are_not():
    with pytest.raises(UserError, match=r"cross_entropy, .*focal, label_smoothing, mse, nt_xent, sup_con"):
        roles.resolve("losses._masked_mean", roles.LOSS)
    with pytest.raises(UserError, match="key=value"):
        roles.resolve("losses.mse(15)", roles.LOSS)

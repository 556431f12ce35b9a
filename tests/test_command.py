"""The command `ncjax`: from an empty folder, with the configs that ship."""

import csv
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import ncjax
from ncjax import __main__, config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tell(capsys, monkeypatch, tmp_path):
    """(exit code, output, errors) of `ncjax ...` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        code = __main__.command(list(argv))
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def test_version_and_help(tell):
    assert tell("--version") == (0, f"ncjax {ncjax.__version__}\n", "")
    code, out, _ = tell()
    assert code == 0
    assert "ncjax predict RUN PHOTOS..." in out


def test_list_names_every_config_with_its_first_line(tell):
    code, out, _ = tell("list")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} == set(config.shipped())
    assert all(len(line.split()) > 4 for line in out.splitlines())
    assert len(config.shipped()) == len(list((ROOT / "configs").rglob("*.py")))


@pytest.mark.parametrize(
    ("kind", "one"),
    [
        ("models", "models.resnet.resnet18"),
        ("losses", "losses.cross_entropy"),
        ("augmentations", "augment.crop_flip"),
        ("optimisers", "optim.sgd"),
        ("methods", "tuning.scl_ft"),
        ("scores", "scores.logme"),
        ("metrics", "nc.metrics.nc1"),
    ],
)
def test_list_of_a_kind(tell, kind, one):
    code, out, _ = tell("list", kind)
    assert code == 0
    assert one in out.splitlines()


def test_unknown_names_are_one_line(tell):
    for argv, words in ((("finetun",), "did you mean 'finetune'"), (("list", "model"), "did you mean 'models'")):
        code, out, err = tell(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


@pytest.mark.parametrize("name", ["finetune", "configs/finetune.py", "configs/paper/choose_layer.py"])
def test_help_of_a_config_lists_its_keys(tell, name):
    code, out, _ = tell(name, "--help")
    assert code == 0
    assert "--config.data=" in out
    assert "range" not in out.splitlines()[0]


def test_a_run_from_an_empty_folder_and_its_predictions(tell, tmp_path):
    code, out, _ = tell("pretrain:smoke", "--epochs=1", "--model=models.mlp.mlp(width=8)", "--workdir=run")
    assert code == 0
    assert "report: run/report.html" in out
    photos = tmp_path / "photos"
    photos.mkdir()
    from PIL import Image

    for i, image in enumerate(np.random.default_rng(0).integers(0, 255, (3, 40, 30), np.uint8)):
        Image.fromarray(image).save(photos / f"{i}.png")
    (photos / "broken.jpg").write_bytes(b"nothing")
    code, out, err = tell("predict", "run", "photos")
    assert (code, err.count("left out")) == (0, 1)
    with open("predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"photos/{i}.png" for i in range(3)]
    names = ncjax.load("run").classes
    for row in rows:
        assert float(row[row["label"]]) == float(row["probability"]) == max(float(row[name]) for name in names)
    code, out, err = tell("predict", "run", "photos")
    assert code == 2
    assert "is there already" in err
    assert tell("predict", "run", "photos/0.png", "--out", "-")[1].startswith("file,label,probability")
    assert tell("predict", "run", "photo", "--force")[0] == 2


def test_configs_are_in_the_wheel(tmp_path):
    """As `pip wheel` builds it, without network: setuptools of this environment."""
    pytest.importorskip("setuptools", minversion="77")
    build = "from setuptools import build_meta as b; import sys; print(b.build_wheel(sys.argv[1]))"
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "ncjax = ncjax.__main__:command" in wheel.read(entry).decode()
    assert {f"ncjax/configs/{name}.py" for name in config.shipped()} <= names
    assert "ncjax/py.typed" in names

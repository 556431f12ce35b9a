"""What is read is what lies there, or it is said: folders and .npz files laid out in every way that people lay them out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ncjax import data
from ncjax.core.errors import UserError

RNG = np.random.default_rng(0)


def _image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    for split, count in (("train", 6), ("test", 3)):
        for name in ("ant", "bee"):
            for i in range(count):
                _image(tmp_path / split / name / f"{i}.png")
    return tmp_path


def _load(root: Path, **options) -> data.Dataset:
    return data.load(data.Data(f"folder:{root}", **options))


def test_nothing_is_said_where_all_is_read(photos):
    assert _load(photos).notes == ()


LEFT_OUT = {
    "nested": (lambda p: _image(p / "train/ant/more/x.png"), "1 images in .*ant/more"),
    "nested deep": (lambda p: [_image(p / f"test/bee/a/b/{i}.jpg") for i in range(4)], "4 images in .*bee/a"),
    "beside the classes": (lambda p: _image(p / "train/x.png"), "1 images in"),
    "heic": (lambda p: (p / "train/ant/x.heic").write_bytes(b"x"), r"1 files in .*1 \.heic"),
    "several types": (
        lambda p: [(p / f"train/ant/x{s}").write_bytes(b"x") for s in (".heic", ".pdf", ".svg")],
        "3 files in",
    ),
    "text": (lambda p: (p / "train/ant/labels.txt").write_text("x"), r"1 \.txt"),
    "no suffix": (lambda p: (p / "test/ant/README").write_text("x"), "1 none"),
    "another folder": (lambda p: _image(p / "unlabelled/x.png"), "no split is called so: unlabelled"),
    "a class missing in test": (lambda p: shutil.rmtree(p / "test/bee"), "test has no image of 1 of 2 classes: bee"),
    "an empty class in test": (
        lambda p: [f.unlink() for f in (p / "test/bee").iterdir()],
        "no image of 1 of 2 classes: bee",
    ),
    "a class missing in val": (lambda p: _image(p / "val/ant/x.png"), "val has no image of 1 of 2 classes"),
    "an empty class in train": (lambda p: (p / "train/cow").mkdir(), "no class: folders without images: cow"),
    "a shared file": (
        lambda p: shutil.copy(p / "train/ant/0.png", p / "test/ant/again.png"),
        "1 of 7 test images are in train too",
    ),
}


@pytest.mark.parametrize("how", LEFT_OUT)
@pytest.mark.parametrize("resident", [0, 2**30])
def test_what_is_left_out_is_said_with_counts(photos, how, resident):
    change, words = LEFT_OUT[how]
    change(photos)
    notes = _load(photos, val_fraction=0.0, resident_bytes=resident).notes
    assert any(__import__("re").search(words, note) for note in notes), notes
    assert all("\n" not in note for note in notes)


@pytest.mark.parametrize("name", [".DS_Store", ".ipynb_checkpoints/x.png", "._0.png"])
def test_hidden_files_are_nobodys_images(photos, name):
    _image(photos / "train/ant/x.png").rename(photos / "keep.png")
    place = photos / "train/ant" / name
    place.parent.mkdir(exist_ok=True)
    (photos / "keep.png").rename(place)
    (photos / ".git").mkdir()
    found = _load(photos)
    assert found.notes == ()
    assert sum(len(s.labels) for k, s in found.splits.items() if k != "test") == 12


REFUSED = {
    "val and valid": (
        lambda p: [_image(p / f"{s}/{c}/x.png") for s in ("val", "valid") for c in ("ant", "bee")],
        "both the val",
    ),
    "test and Test": (lambda p: [_image(p / f"TEST/{c}/x.png") for c in ("ant", "bee")], "both the test"),
    "train and training": (lambda p: _image(p / "training/ant/x.png"), "both the train"),
    **{
        name: (lambda p, name=name: [_image(p / f"{name}/{c}/x.png") for c in ("ant", "bee")], "which split is that")
        for name in ("testing", "dev", "eval", "evaluation", "Holdout")
    },
    "another case": (lambda p: (p / "test/ant").rename(p / "test/Ant"), "no image of: Ant; did you mean 'ant'"),
    "a class of test alone": (lambda p: _image(p / "test/cow/x.png"), "no image of: cow"),
    "a class of val alone": (lambda p: _image(p / "val/cow/x.png"), "no image of: cow"),
    "an empty split": (lambda p: (shutil.rmtree(p / "test"), (p / "test").mkdir()), "holds no class/image files"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_cannot_be_meant_is_refused(photos, how):
    change, words = REFUSED[how]
    change(photos)
    with pytest.raises(UserError, match=words):
        _load(photos)


def _npz(path: Path, **changes) -> Path:
    arrays = {}
    for split, count in (("train", 10), ("test", 4)):
        arrays[f"x_{split}"] = RNG.integers(0, 255, (2 * count, 8, 8, 1), np.uint8)
        arrays[f"y_{split}"] = np.arange(2 * count) % 2
    np.savez(path, **{**arrays, **{k: f(arrays) for k, f in changes.items()}})
    return path


NPZ = {
    "labels from 1": (
        {"y_train": lambda a: a["y_train"] + 1, "y_test": lambda a: a["y_test"] + 1},
        "labels are 1-2: number",
    ),
    "gaps": ({"y_train": lambda a: 5 * a["y_train"], "y_test": lambda a: 5 * a["y_test"]}, "labels are 0, 5: number"),
    "a class of test alone": (
        {"y_test": lambda a: a["y_test"] + 1, "class_names": lambda a: np.array(["a", "b", "c"])},
        "test has images of classes that train has none of: c",
    ),
    "sizes": (
        {"x_test": lambda a: np.zeros((8, 12, 12, 1), np.uint8)},
        "differ between splits .train 8 x 8 x 1, .*test 12 x 12",
    ),
    "channels": ({"x_test": lambda a: np.zeros((8, 8, 8, 3), np.uint8)}, "differ between splits"),
    "negative": ({"y_train": lambda a: a["y_train"] - 1}, "outside"),
    "text": ({"y_train": lambda a: a["y_train"].astype(str)}, "expected integers"),
    "float": ({"x_train": lambda a: a["x_train"] / 255}, "expected uint8"),
    "shorter": ({"y_train": lambda a: a["y_train"][:-1]}, "has shape"),
}


@pytest.mark.parametrize("how", NPZ)
def test_arrays_that_do_not_go_together_are_refused(tmp_path, how):
    changes, words = NPZ[how]
    with pytest.raises(UserError, match=words):
        data.load(data.Data(f"npz:{_npz(tmp_path / 'd.npz', **changes)}"))


def test_sizes_and_channels_that_are_asked_for_make_splits_alike(tmp_path):
    changes = {"x_test": lambda a: np.zeros((8, 12, 12, 3), np.uint8)}
    found = data.load(data.Data(f"npz:{_npz(tmp_path / 'd.npz', **changes)}", image_size=8, channels=1))
    assert found.image_shape == (8, 8, 1)


def test_notes_of_arrays(tmp_path):
    names = {"class_names": lambda a: np.array(["a", "b", "c"])}
    found = data.load(data.Data(f"npz:{_npz(tmp_path / 'd.npz', **names)}"))
    assert found.notes == ("1 of 3 classes have no image: c",)
    shared = {"x_test": lambda a: np.concatenate([a["x_train"][:3], a["x_test"][:5]])}
    found = data.load(data.Data(f"npz:{_npz(tmp_path / 'e.npz', **shared)}", val_fraction=0.0))
    assert found.notes == ("3 of 8 test images are in train too, byte for byte",)
    found = data.load(data.Data(f"npz:{_npz(tmp_path / 'f.npz')}", n_per_class=500, val_fraction=0.0))
    assert found.notes == (
        "n_per_class=500: 2 of 2 classes have fewer training images, all are taken (0 has 10, 1 has 10)",
    )


def test_notes_are_told_before_training(tmp_path, capsys):
    from ncjax import main

    path = _npz(tmp_path / "d.npz", class_names=lambda a: np.array(["a", "b", "c"]))
    argv = ["--config=configs/pretrain.py:smoke", "--config.epochs=1", f"--config.data=npz:{path}"]
    assert main.main([*argv, "--config.model=models.mlp.mlp(depth=1,width=4)", f"--workdir={tmp_path / 'w'}"]) == 0
    said = capsys.readouterr().out
    assert "note: 1 of 3 classes have no image: c" in said
    assert said.index("note:") < said.index("epoch")

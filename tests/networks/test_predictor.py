"""A trained network in use: the numbers are those of its study."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import ncjax
from ncjax import data, main
from ncjax.core.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a tiny data set, and its images."""
    folder = tmp_path_factory.mktemp("predictor")
    rng, arrays = np.random.default_rng(1), {}
    for split, count in (("train", 20), ("test", 6)):
        y = np.repeat(np.arange(3), count)
        x = rng.integers(0, 60, (len(y), 8, 8, 3))
        x[np.arange(len(y)), 1 + 2 * y] += 180
        arrays[f"x_{split}"], arrays[f"y_{split}"] = x.astype(np.uint8), y
    np.savez(folder / "tiny.npz", class_names=np.array(["ant", "bee", "cow"]), **arrays)
    argv = ["--config=pretrain", f"--config.data=npz:{folder / 'tiny.npz'}", "--config.epochs=3", "--config.batch_size=16"]
    assert main.main([*argv, "--config.model=models.mlp.mlp(width=12)", f"--workdir={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture
def test_set(run):
    return data.load(data.Data(f"npz:{run.parent / 'tiny.npz'}")).splits["test"]


def test_accuracy_is_that_of_the_study(run, test_set):
    net = ncjax.load(str(run))
    found = net.predict(test_set.images, batch_size=5)  # 18 images: a padded batch
    right = np.mean([net.classes.index(label) == y for label, y in zip(found.labels, test_set.labels, strict=True)])
    record = json.loads((run / "results.json").read_text())["results"]
    assert right == record["final"]["test"]["output"]["accuracy"]
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert net.classes == ("ant", "bee", "cow")
    assert found.files == ()


def test_batches_change_nothing(run, test_set):
    net = ncjax.load(str(run))
    one, many = (net.predict(test_set.images, batch_size=n).probabilities for n in (1, 64))
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-7)


def test_files_arrays_and_pillow_images_agree(run, test_set, tmp_path):
    net = ncjax.load(str(run))
    for i, image in enumerate(test_set.images[:4]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    Image.fromarray(test_set.images[0]).save(tmp_path / ".ipynb_checkpoints" / "0.png")
    wanted = net.predict(test_set.images[:4]).probabilities
    by_folder = net.predict(tmp_path)
    by_files = net.predict([str(tmp_path / f"{i}.png") for i in range(4)])
    by_pillow = net.predict([Image.open(tmp_path / f"{i}.png") for i in range(4)])
    for found in (by_folder, by_files, by_pillow):
        np.testing.assert_array_equal(found.probabilities, wanted)
    assert by_folder.files == by_files.files == tuple(str(tmp_path / f"{i}.png") for i in range(4))


def test_other_sizes_and_channels_are_brought_to_the_network(run, test_set):
    net = ncjax.load(str(run))
    assert net.predict(np.zeros((30, 20), np.uint8)).probabilities.shape == (1, 3)
    assert net.predict(np.zeros((2, 30, 20), np.uint8)).probabilities.shape == (2, 3)
    grown = np.asarray(Image.fromarray(test_set.images[0]).resize((64, 64), Image.Resampling.NEAREST))
    assert net.predict(grown).labels == net.predict(test_set.images[0]).labels


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LA"])
def test_pillow_images_of_any_mode_are_read_as_their_files_are(run, test_set, tmp_path, mode):
    net, path = ncjax.load(str(run)), tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    source = Image.fromarray(test_set.images[0]).convert("L" if mode == "LA" else "RGB").convert(mode)
    source.save(path, exif=exif)
    with Image.open(path) as picture:
        found = net.predict([picture, picture])
    np.testing.assert_allclose(found.probabilities[0], net.predict(path).probabilities[0], rtol=1e-5)
    assert found.probabilities.shape == (2, 3)


def test_features_are_those_that_the_network_gives(run, test_set):
    net = ncjax.load(str(run))
    model, variables = net.network.model, net.network.variables
    scaled = (test_set.images / 255 - np.asarray(net.card.mean)) / np.asarray(net.card.std)
    features, _ = jax.jit(model.apply)(variables, scaled.astype(np.float32))
    for layer in net.layers:
        np.testing.assert_allclose(net.features(test_set.images, layer=layer), features[layer], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(net.features(test_set.images), net.features(test_set.images, layer=model.readout))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 8, 8, 3)), "images are float64 .* expected files, or uint8"),
        (np.zeros((2, 8, 8, 4), np.uint8), "the last axis holds channels"),
        (np.zeros((8, 8, 4), np.uint8), "one of 4 channels, or several grey ones"),
        ([], "no images were given"),
        ("nowhere", "no file or folder nowhere"),
    ],
)
def test_what_is_no_image_is_refused(run, images, words):
    with pytest.raises(UserError, match=words):
        ncjax.load(str(run)).predict(images)


def test_a_damaged_file_is_named_or_left_out(run, test_set, tmp_path):
    net = ncjax.load(str(run))
    (tmp_path / "x.png").write_bytes(b"no")
    Image.fromarray(test_set.images[0]).save(tmp_path / "y.png")
    with pytest.raises(UserError, match=r"x.png does not decode"):
        net.predict(tmp_path)
    found = net.predict(tmp_path, skip_bad=True)
    assert found.files == (str(tmp_path / "y.png"),)
    assert len(found.unread) == 1
    with pytest.raises(UserError, match="none of 1 files decodes"):
        net.predict(tmp_path / "x.png", skip_bad=True)
    with pytest.raises(UserError, match="no layer 'dens'"):
        net.features(test_set.images, layer="dens")


def test_a_table_of_many_classes_has_the_likeliest(run):
    from ncjax.networks.predictor import Predictions

    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(200), 3).astype(np.float32)
    names = tuple(f"c{i}" for i in range(200))
    lines = Predictions(tuple(names[i] for i in p.argmax(1)), p, names, ()).to_csv().splitlines()
    assert len(lines[0].split(",")) == 13
    assert lines[1].split(",")[1] == lines[1].split(",")[3] == names[p[0].argmax()]

"""Data: one route for every kind of set, nothing dropped, nothing counted twice."""

import threading

import jax
import numpy as np
import pytest
from PIL import Image

from ncjax import data
from ncjax.core import mesh
from ncjax.core.errors import UserError
from ncjax.data import images as im
from ncjax.data.load import parse_classes


def rows_of(split):
    """Each example as bytes, to compare sets of examples."""
    return {x.tobytes() + bytes([y]) for x, y in zip(split.images, split.labels, strict=True)}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name, mode, ending in (("cat", "RGB", "png"), ("dog", "RGB", "jpg"), ("eel", "L", "webp")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                shape = (12, 9, 3) if mode == "RGB" else (12, 9)
                Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / split / name / f"{i}.{ending}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [("embedded.fashion_mnist_mini", (3600, 400, 1000), (28, 28, 1)), ("embedded.digits", (1295, 143, 359), (8, 8, 1))],
)
def test_embedded_sets(name, sizes, shape):
    d = data.load(data.Data(name))
    assert tuple(len(s.labels) for s in d.splits.values()) == sizes
    assert d.image_shape == shape
    assert all(np.bincount(s.labels).min() > 0 for s in d.splits.values())
    assert d.describe() == data.load(data.Data(name)).describe()


def test_splits_are_disjoint_and_complete():
    d, whole = data.load(data.Data("embedded.digits")), data.load(data.Data("embedded.digits", val_fraction=0.0))
    train, val, test = (rows_of(d.splits[s]) for s in ("train", "val", "test"))
    assert not train & val
    assert not train & test
    assert train | val == rows_of(whole.splits["train"])


def test_few_shot_subsets_are_nested_and_balanced():
    five, ten = (data.load(data.Data("embedded.digits", n_per_class=n)) for n in (5, 10))
    assert rows_of(five.splits["train"]) < rows_of(ten.splits["train"])
    assert set(np.bincount(ten.splits["train"].labels)) == {10}
    assert rows_of(five.splits["val"]) == rows_of(ten.splits["val"])
    other = data.load(data.Data("embedded.digits", n_per_class=5, split_seed=1))
    assert rows_of(other.splits["train"]) != rows_of(five.splits["train"])
    assert rows_of(other.splits["test"]) == rows_of(five.splits["test"])
    assert not rows_of(other.splits["train"]) & rows_of(five.splits["test"])


def test_class_subsets_are_renumbered():
    d = data.load(data.Data("embedded.digits", classes="2-4,7"))
    assert d.class_names == ("2", "3", "4", "7")
    assert set(d.splits["train"].labels) == {0, 1, 2, 3}
    assert parse_classes("0-2, 5", 6) == [0, 1, 2, 5]


def test_sizes_and_channels(npz):
    d = data.load(data.Data(npz and f"npz:{npz}", image_size=16, channels=3))
    assert d.image_shape == (16, 16, 3)
    x = d.splits["train"].images
    assert (x[..., 0] == x[..., 2]).all()
    rgb = np.zeros((10, 8, 3), np.uint8)
    rgb[..., 1] = 200
    assert im.conform(rgb, im.Fit(channels=1))[0, 0, 0] == round(0.587 * 200)
    assert im.conform(rgb, im.Fit(4)).shape == (4, 4, 3)


def test_normalised_training_pixels_have_mean_0_and_variance_1(npz):
    d = data.load(data.Data(f"npz:{npz}"))
    m = mesh.make()
    source = data.batches_of(d.splits["train"], d, m, batch_size=64)
    batch = source.fetch(source.arrays, next(source.items(np.arange(source.size))), jax.random.key(0))
    real = np.asarray(batch.image)[np.asarray(batch.mask) > 0]
    assert real.mean() == pytest.approx(0, abs=1e-5)
    assert real.std() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 27, 64])
def test_every_example_is_seen_once(npz, resident, batch_size):
    d = data.load(data.Data(f"npz:{npz}", val_fraction=0.0, **({} if resident else {"resident_bytes": 0})))
    m = mesh.make()
    source = data.batches_of(d.splits["train"], d, m, batch_size=batch_size)
    assert bool(jax.tree.leaves(source.arrays)) == resident
    order = np.random.default_rng(0).permutation(source.size)
    images, labels = [], []
    batches = list(source.items(order))
    assert len(batches) == source.steps
    for item in batches:
        batch = source.fetch(source.arrays, item, jax.random.key(0))
        keep = np.asarray(batch.mask) > 0
        images.append(np.asarray(batch.image)[keep])
        labels.append(np.asarray(batch.label)[keep])
    expected = (d.splits["train"].images[order] / 255 - d.mean) / d.std
    np.testing.assert_allclose(np.concatenate(images), expected, atol=1e-4)
    np.testing.assert_array_equal(np.concatenate(labels), d.splits["train"].labels[order])


def test_two_views_differ_and_share_labels(npz):
    from ncjax.core.roles import AUGMENT, resolve

    d = data.load(data.Data(f"npz:{npz}"))
    crop = resolve("augment.crop_flip(strength=1.0)", AUGMENT)
    source = data.batches_of(
        d.splits["train"],
        d,
        mesh.make(),
        batch_size=8,
        views=2,
        augment=crop,
    )
    batch = source.fetch(source.arrays, next(source.items(np.arange(8))), jax.random.key(0))
    assert batch.image.shape[0] == 16
    assert (batch.label[:8] == batch.label[8:]).all()
    assert not np.array_equal(batch.image[:8], batch.image[8:])


def test_a_stream_can_be_left_early(npz):
    d = data.load(data.Data(f"npz:{npz}", resident_bytes=0))
    source = data.batches_of(d.splits["train"], d, mesh.make(), batch_size=2)
    items = source.items(np.arange(source.size))
    next(items)
    items.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("resident_bytes", [1 << 30, 0])
def test_folders_of_images(folder, resident_bytes):
    d = data.load(data.Data(f"folder:{folder}", image_size=8, channels=3, val_fraction=0.2, resident_bytes=resident_bytes))
    assert d.class_names == ("cat", "dog", "eel")
    assert {k: len(s.labels) for k, s in d.splits.items()} == {"train": 15, "val": 3, "test": 9}
    assert im.take(d.splits["train"].images, np.arange(15)).shape == (15, 8, 8, 3)
    flat = data.load(data.Data(f"folder:{folder / 'train'}", image_size=8, channels=1, val_fraction=0.0))
    assert {k: len(s.labels) for k, s in flat.splits.items()} == {"train": 15, "test": 3}


@pytest.mark.parametrize("resident_bytes", [1 << 30, 0])
def test_images_that_do_not_decode(folder, resident_bytes):
    bad = folder / "train" / "cat" / "0.png"
    bad.write_bytes(bad.read_bytes()[:40])
    options = dict(image_size=8, channels=3, val_fraction=0.0, resident_bytes=resident_bytes)
    with pytest.raises(UserError, match=r"0\.png does not decode"):
        data.load(data.Data(f"folder:{folder}", **options))
    d = data.load(data.Data(f"folder:{folder}", skip_bad=True, **options))
    assert (d.skipped, len(d.splits["train"].labels)) == (1, 17)


def test_images_of_several_sizes_ask_for_one(folder):
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(folder / "train" / "cat" / "5.png")
    with pytest.raises(UserError, match="set image_size"):
        data.load(data.Data(f"folder:{folder}"))


def broken(tmp_path, **changes):
    arrays = (
        dict(
            x_train=np.zeros((6, 4, 4), np.uint8),
            y_train=np.arange(6) % 2,
            x_test=np.zeros((2, 4, 4), np.uint8),
            y_test=np.arange(2),
        )
        | changes
    )
    np.savez(tmp_path / "b.npz", **{k: v for k, v in arrays.items() if v is not None})
    return f"npz:{tmp_path / 'b.npz'}"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (dict(y_test=None), "lacks y_test"),
        (dict(y_train=np.zeros(6, int), y_test=np.zeros(2, int)), "one class"),
        (dict(y_train=np.arange(5)), "y_train has shape"),
        (dict(x_train=np.zeros((6, 4, 4))), "expected uint8"),
        (dict(y_train=np.arange(6) - 1), "outside"),
        (dict(y_train=np.ones(6)), "expected integers"),
        (dict(class_names=np.array(["a"])), "outside"),
        (dict(x_test=np.zeros((0, 4, 4), np.uint8), y_test=np.zeros(0, int)), "empty"),
    ],
)
def test_broken_npz_files(tmp_path, changes, word):
    with pytest.raises(UserError, match=word):
        data.load(data.Data(broken(tmp_path, **changes)))


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("npz:nowhere.npz", {}, "no file"),
        ("folder:nowhere", {}, "no folder"),
        ("embedded.digit", {}, "did you mean"),
        ("embedded.digits", dict(classes="3"), "at least two"),
        ("embedded.digits", dict(classes="5-12"), "0-9"),
        ("embedded.digits", dict(classes="a"), "numbers and ranges"),
        ("embedded.digits", dict(n_per_class=0), "expected from 1"),
        ("embedded.digits", dict(channels=2), "grey"),
    ],
)
def test_bad_requests(name, options, word):
    with pytest.raises(UserError, match=word):
        data.load(data.Data(name, **options))


def test_classes_that_a_split_lacks(tmp_path):
    x, y = np.zeros((9, 4, 4), np.uint8), np.arange(9) % 3
    np.savez(tmp_path / "c.npz", x_train=x, y_train=y, x_test=x[:3], y_test=np.full(3, 2))
    with pytest.raises(UserError, match="test split is empty"):
        data.load(data.Data(f"npz:{tmp_path / 'c.npz'}", classes="0-1"))


def test_a_truncated_npz_file(tmp_path, npz):
    path = tmp_path / "cut.npz"
    with open(npz, "rb") as file:
        path.write_bytes(file.read()[:500])
    with pytest.raises(UserError, match="not a readable"):
        data.load(data.Data(f"npz:{path}"))

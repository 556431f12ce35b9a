"""Weights under the names that tools give them, what is wrong with them named; and fresh networks of the right size."""

from __future__ import annotations

import collections
import functools
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.models import convnext, densenet, mobilenet, sequential
from ncjax.models.named import build
from ncjax.networks import weights
from ncjax.networks.load import Init, load
from ncjax.networks.weights import command, foreign

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from test_weights import torch_file


@pytest.fixture(scope="module")
def arrays():
    network = build("models.resnet.resnet8(width=4)", 3)
    variables = network.init(jax.random.key(0), (32, 32, 3))
    return weights.export(variables, network, "torchvision ResNet")


def _write(path: Path, arrays: dict) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        weights.write(path, arrays, {})
    else:
        torch_file(path, {"state_dict": collections.OrderedDict(arrays)}, path.suffix == ".pt")
    return path


FORMATS = ("w.npz", "w.safetensors", "w.pth", "w.pt")


@pytest.mark.parametrize("prefix", [*foreign.PREFIXES, "module._orig_mod.", "model.net.module."])
@pytest.mark.parametrize("name", FORMATS)
def test_what_tools_put_before_names_is_taken_off_in_every_format(tmp_path, arrays, prefix, name):
    path = _write(tmp_path / name, {prefix + k: x for k, x in arrays.items()})
    found = load(Init(str(path)))
    plain = load(Init(str(_write(tmp_path / f"plain{path.suffix}", arrays))))
    assert found.card.model == plain.card.model == "models.resnet.resnet8(width=4)"
    assert trees.digest(found.variables) == trees.digest(plain.variables)


@pytest.mark.parametrize("name", FORMATS)
def test_tensors_of_a_loss_beside_a_prefixed_network_are_no_part_of_it(tmp_path, arrays, name):
    path = _write(tmp_path / name, {f"model.{k}": x for k, x in arrays.items()} | {"loss.weight": np.ones(3, np.float32)})
    assert load(Init(str(path))).card.model == "models.resnet.resnet8(width=4)"


def test_a_student_beside_its_teacher_is_not_guessed(tmp_path, arrays):
    both = {f"student.{k}": x for k, x in arrays.items()} | {f"teacher.{k}": x for k, x in arrays.items()}
    with pytest.raises(UserError, match=r"two networks, student\.\* and teacher"):
        load(Init(str(_write(tmp_path / "w.npz", both | {"student.more": np.ones(3)}))))


@pytest.mark.parametrize("model", ["resnet8(width=4)", "resnet18(width=8)", "resnet50(width=8,stem=imagenet)"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_resnet_without_its_classifier_is_recognised_and_the_line_says_what_to_do(tmp_path, capsys, model, prefix):
    network = build(f"models.resnet.{model}", 3)
    variables = network.init(jax.random.key(0), (64, 64, 3))
    headless = {
        prefix + k: x
        for k, x in weights.export(variables, network, "torchvision ResNet").items()
        if not k.startswith("fc.")
    }
    path = str(_write(tmp_path / "w.npz", headless))
    with pytest.raises(UserError, match=r"allow_missing=fc\.\* to have a classifier drawn, or take a file that has one"):
        load(Init(path))
    found = load(Init(path, allow_missing=["fc.*"]))
    assert found.card.model.startswith("models.resnet.")
    assert command.main([path]) == 0
    assert "fc.weight" in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_are_not_finite_are_named(tmp_path, arrays, refused, value, name):
    broken = dict(arrays)
    broken["layer2.0.conv1.weight"] = np.where(np.arange(3) == 1, value, arrays["layer2.0.conv1.weight"])
    path = _write(tmp_path / name, {k: np.asarray(x, np.float32) for k, x in broken.items()})
    with pytest.raises(UserError, match=r"layer2\.0\.conv1\.weight is NaN or infinite"):
        load(Init(str(path)))
    said = refused(f"init={path}", config="measure.py:smoke", workdir=tmp_path / "m")
    assert "layer2.0.conv1.weight" in said


@pytest.mark.parametrize(
    "model",
    [
        "models.resnet.resnet8(width=4)",
        "models.resnet.resnet8(width=4,stem_stride=1)",
        "models.resnet.resnet8(width=4,stem_stride=2,dtype=bfloat16)",
        "models.resnet.resnet8(width=8,stem_stride=2)",
        "models.resnet.resnet14(width=4,stem_stride=2)",
        "models.mlp.mlp",
    ],
)
def test_a_model_that_contradicts_the_card_is_refused(resnet_run, model):
    with pytest.raises(UserError, match="was trained as"):
        load(Init(str(resnet_run), model=model))


def test_the_same_model_written_otherwise_is_taken(resnet_run):
    found = load(Init(str(resnet_run), model="models.resnet.resnet8( stem_stride=2, width = 4 )"))
    assert found.card.model == "models.resnet.resnet8(width=4,stem_stride=2)"


def test_a_layer_of_convnext_starts_as_the_original():
    variables = convnext.Layer(48, jnp.float32).init(jax.random.key(0), jnp.zeros((1, 8, 8, 24)), False, None)
    for path, leaf in trees.paths(variables["params"]).items():
        if path.endswith("/kernel"):
            assert float(leaf.std()) == pytest.approx(0.02, rel=6 / math.sqrt(leaf.size)), path


@pytest.mark.parametrize("per_group", [False, True])  # MobileNetV2 of torchvision, EfficientNet-Lite of timm
def test_an_inverted_residual_starts_as_the_original(per_group):
    block = mobilenet.InvertedResidual(64, 3, 1, 6, None, 1e-5, per_group, jnp.float32)
    variables = block.init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)), False, None)
    for path, leaf in trees.paths(variables["params"]).items():
        if path.endswith("/kernel"):
            i, o = _fans(leaf.shape)
            wanted = math.sqrt(2 / i) if per_group and "depthwise" in path else math.sqrt(2 / o)
            assert float(leaf.std()) == pytest.approx(wanted, rel=6 / math.sqrt(leaf.size)), path


@functools.cache
def _fresh(name: str):
    short = name.rpartition(".")[2]
    options = {"vit_ti": "(patch=16,depth=1)", "vit_s": "(patch=16,depth=3)", "clip_vit_b": "(depth=2)"}.get(short, "")
    size = 224 if "clip" in name or "alexnet" in name or "vgg" in name else 64
    if name == "densenet of two layers a block":  # DenseNet-121 takes half a minute to compile
        model = densenet._build((2, 2, 2, 2), 32, 10, 0, "float32")
    elif name == "models.vgg.alexnet":  # without the 58 million parameters of its hidden layers
        model = build(name + "(top=False)", 10)
    else:
        model = build(name + options, 10)
    shape = (size, size, 3)
    return model, jax.jit(model.init, static_argnums=1)(jax.random.key(0, impl="rbg"), shape), shape


FRESH = [
    "models.resnet.resnet18",
    "densenet of two layers a block",
    "models.squeezenet.squeezenet11",
    "models.vgg.alexnet",
    "models.vit.vit_ti",
]


@pytest.mark.parametrize("name", ["models.resnet.resnet18", "densenet of two layers a block"])
def test_a_fresh_network_says_little_and_its_first_loss_is_about_that_of_a_guess(name):
    model, variables, shape = _fresh(name)
    images = jax.random.normal(jax.random.key(1), (8, *shape))
    logits = jax.jit(lambda v, x: model.apply(v, x)[0]["logits"])(variables, images)
    loss = float(-jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), jnp.arange(8)]))
    assert abs(loss - math.log(10)) < 1.5, (name, loss, float(jnp.abs(logits).max()))


@pytest.mark.parametrize("dim", [16, 64, 512, 2048])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_fresh_classifier_of_features_of_order_one_loses_about_what_a_guess_does(dim, classes):
    head = sequential.new_classifier(jax.random.key(0), dim, classes)
    features = jax.random.normal(jax.random.key(1), (400, dim))
    logits = sequential.classify({"head": head}, features, classes)
    loss = float(-jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(400), jnp.arange(400) % classes]))
    assert abs(loss - math.log(classes)) < 0.8


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """(fan in, fan out) of a kernel [..., I, O], as torch counts them for a weight [O, I, ...]."""
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


# Of kernels in the originals' code: torchvision's for all but EfficientNet-Lite and ViT, which are timm's.
ORIGINALS = {
    "models.resnet": lambda path, i, o, depthwise: math.sqrt(2 / o),
    "densenet": lambda path, i, o, depthwise: math.sqrt(2 / i),
    "models.squeezenet": lambda path, i, o, depthwise: math.sqrt(2 / i),
    "models.vgg.vgg": lambda path, i, o, depthwise: 0.01 if "hidden" in path else math.sqrt(2 / o),
    "models.vgg.alexnet": lambda path, i, o, depthwise: 1 / math.sqrt(3 * i),
    "models.vit": lambda path, i, o, depthwise: 1 / math.sqrt(i) if "patches" in path else 0.02,
}


@pytest.mark.parametrize("name", FRESH)
def test_kernels_start_as_spread_as_those_of_the_original(name):
    wanted = next(rule for known, rule in ORIGINALS.items() if name.startswith(known))
    _, variables, _ = _fresh(name)
    checked = 0
    for path, leaf in trees.paths(variables["params"]).items():
        if not path.endswith("/kernel") or path.startswith(("head/", "projection/")) or leaf.size < 200:
            continue
        shape = leaf.shape if leaf.ndim != 3 else trees.matrix_shape(path.split("/")[-2], leaf.shape)
        fans = _fans(shape)
        expected = wanted(path, *fans, "depthwise" in path)
        assert float(leaf.std()) == pytest.approx(expected, rel=6 / math.sqrt(leaf.size)), path
        checked += 1
    assert checked > 2

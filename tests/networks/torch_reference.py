"""Networks in PyTorch to compare with: torchvision's and timm's where they import, CLIP's towers written plainly.

`cases()` is empty where PyTorch is not installed. A case is a network with random weights and, for each of our blocks, how
to get its feature out of the network's modules.
"""

import contextlib
import importlib.util
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

TORCH = importlib.util.find_spec("torch") is not None
if TORCH:
    import torch
    from torch import nn


class Case(NamedTuple):
    """One network."""

    make: Callable[[int], Any]  # image side -> module
    sides: tuple[int, int]
    module: Callable[[str], str]  # our block -> name of the module whose output it is
    state: Callable[[Any], dict[str, np.ndarray]] = lambda net: {k: v.numpy() for k, v in net.state_dict().items()}


def library(name: str) -> Any:
    """torchvision or timm, or None. A torchvision built for GPUs imports beside a PyTorch that was not."""
    if not TORCH or importlib.util.find_spec(name) is None or importlib.util.find_spec("torchvision") is None:
        return None
    with contextlib.suppress(Exception):
        return importlib.import_module(name)
    source = pathlib.Path(importlib.util.find_spec("torchvision").origin).with_name("_meta_registrations.py").read_text()
    found = set(re.findall(r'torchvision::(\w+)"', source)) | set(re.findall(r'register_meta\("(\w+)"', source))
    library.operators = torch.library.Library("torchvision", "DEF")  # kept alive: it unregisters when it goes
    for operator in found:
        library.operators.define(f"{operator}(Tensor x) -> Tensor")
    with contextlib.suppress(Exception):
        return importlib.import_module(name)
    return None


def randomised(net: Any) -> Any:
    """Evaluation mode, with norms, positions and classifiers that are not what initialisation makes them."""
    torch.manual_seed(0)
    for name, x in net.named_buffers():
        if name.endswith("running_mean"):
            x.normal_(0, 0.1)
        if name.endswith("running_var"):
            x.uniform_(0.5, 1.5)
    for name, x in net.named_parameters():
        if x.ndim == 1 or "layer_scale" in name:
            x.data.normal_(0.5 if "weight" in name or "gamma" in name or "scale" in name else 0.0, 0.1)
        if re.search("pos|cls|class_", name):
            x.data.normal_(0, 0.5)
        if name.startswith(("head", "heads", "fc", "classifier")) and x.ndim == 2:
            x.data.normal_(0, 0.05)
    return net.eval()


def features(net: Any, images: np.ndarray, modules: dict[str, str]) -> dict[str, np.ndarray]:
    """{block: pooled feature} and the network's output under "logits".

    Args:
      net: in evaluation mode.
      images: [N, H, W, C].
      modules: {block: name of a module}.
    """
    seen, by_name = {}, dict(net.named_modules())

    def hook(block: str) -> Callable[..., None]:
        def keep(module: Any, given: Any, out: Any) -> None:
            if "Dense" in type(module).__name__:  # a dense layer gives only what is new
                before = given[0] if isinstance(given[0], list) else [given[0]]
                out = torch.cat([*before, out], 1)
            out = torch.relu(out) if modules[block].endswith("norm5") else out
            out = out[:, 0] if out.ndim == 3 else out.flatten(2).mean(2) if out.ndim == 4 else out
            seen[block] = out.detach().clone().numpy()

        return keep

    handles = [by_name[name].register_forward_hook(hook(block)) for block, name in modules.items()]
    with torch.no_grad():
        out = net(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
    for handle in handles:
        handle.remove()
    return {**seen, "logits": out.numpy()}


def _staged(block: str, template: str, **special: str) -> str:
    """A module's name for "stageS.B": {s} counts from 0, {t} = 2 s + 1."""
    if block in special:
        return special[block]
    stage, index = (int(x) for x in block.removeprefix("stage").split("."))
    return template.format(s=stage - 1, t=2 * stage - 1, b=index)


def _numbered(net: Any) -> Callable[[str], str]:
    """Blocks of a plain stack -> its ReLUs and max-pools, in order."""
    layers = [(f"features.{i}", type(x).__name__) for i, x in enumerate(net.features)]
    stages, stage, index = {}, 1, 0
    for name, kind in layers:
        if kind == "ReLU":
            stages[f"stage{stage}.{index}"] = name
            index += 1
        elif kind == "MaxPool2d":
            stages["pool"] = name
            stage, index = stage + 1, 0
    hidden = [f"classifier.{i}" for i, x in enumerate(net.classifier) if type(x).__name__ == "ReLU"]
    return (stages | dict(zip(("hidden1", "hidden2"), hidden, strict=True))).__getitem__


def _mobile(block: str) -> str:
    order = ["stem", *(f"stage{s}.{b}" for s, n in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for b in range(n)), "last"]
    return f"features.{order.index(block)}"


def _fire(block: str) -> str:
    return "features.1" if block == "stem" else f"features.{(3, 4, 6, 7, 9, 10, 11, 12)[int(block[4:]) - 2]}"


def _dense(block: str) -> str:
    if block in ("stem", "norm"):
        return {"stem": "features.pool0", "norm": "features.norm5"}[block]
    return "features." + re.sub(r"(denseblock\d)\.(\d+)", r"\1.denselayer\2", block)


def _timm_vit(block: str) -> str:
    return "norm_pre" if block == "embed" else block


def _torchvision_vit(block: str) -> str:
    return {"embed": "encoder.dropout", "norm": "encoder.ln"}.get(
        block, block.replace("blocks.", "encoder.layers.encoder_layer_")
    )


def _keras_names(net: Any) -> dict[str, np.ndarray]:
    """A ResNet's state under the names and orders of Keras in 2015."""
    out = {}
    for name, x in net.state_dict().items():
        module, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        x, norm = x.numpy(), "bn" in module or "downsample.1" in module
        kind = {
            "weight": "gamma" if norm else "kernel",
            "bias": "beta" if norm else "bias",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        }[kind]
        if match := re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", module):
            stage = f"{int(match[1]) + 1}{chr(97 + int(match[2]))}"
            branch = "1" if "downsample" in match[3] else "2" + "abc"[int(match[3][-1]) - 1]
            module = f"{'bn' if norm else 'res'}{stage}_branch{branch}"
        else:
            module = {"conv1": "conv1", "bn1": "bn_conv1", "fc": "fc1000"}[module]
        out[f"{module}/{kind}"] = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
    out["conv1/kernel"] = out["conv1/kernel"][:, :, ::-1]  # blue first
    return out


def _later_keras_names(net: Any) -> dict[str, np.ndarray]:
    """The same under Keras's own later names: "res3b_branch2a" is "conv3_block2_1_conv"."""

    def renamed(name: str) -> str:
        module, _, kind = name.partition("/")
        if match := re.fullmatch(r"(res|bn)(\d)(\w)_branch(1|2[abc])", module):
            part = {"1": 0, "2a": 1, "2b": 2, "2c": 3}[match[4]]
            module = f"conv{match[2]}_block{ord(match[3]) - 96}_{part}_{'conv' if match[1] == 'res' else 'bn'}"
        return {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "fc1000": "predictions"}.get(module, module) + "/" + kind

    return {renamed(name): x for name, x in _keras_names(net).items()}


def _keras_resnet(torchvision: Any, epsilon: float) -> Any:
    """torchvision's ResNet-50 made the original: strides in the first 1x1, biases, another epsilon."""
    net = torchvision.models.resnet50(num_classes=10)
    for module in list(net.modules()):
        if type(module).__name__ == "Bottleneck":
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
        if isinstance(module, nn.BatchNorm2d):
            module.eps = epsilon
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    return net


def cases() -> dict[str, Case]:
    """Everything that can be compared on this machine."""
    out = {}
    if vision := library("torchvision"):

        def plain(name: str) -> Callable[[int], Any]:
            return lambda side: getattr(vision.models, name)(num_classes=10)

        def stack(name: str, sides: tuple[int, int]) -> Case:
            return Case(plain(name), sides, _numbered(plain(name)(0)))

        def residual(block: str) -> str:
            return "maxpool" if block == "stem" else block

        for name in ("resnet18", "resnet50"):
            out[f"torchvision {name}"] = Case(plain(name), (64, 75), residual)
        out["keras resnet50 of 2015"] = Case(lambda side: _keras_resnet(vision, 1e-3), (64, 75), residual, _keras_names)
        out["keras resnet50"] = Case(lambda side: _keras_resnet(vision, 1.001e-5), (64, 75), residual, _later_keras_names)
        out["torchvision mobilenet_v2"] = Case(plain("mobilenet_v2"), (64, 75), _mobile)
        out["torchvision squeezenet1_1"] = Case(plain("squeezenet1_1"), (64, 75), _fire)
        out |= {
            f"torchvision {name}": stack(name, sides)
            for name, sides in (("alexnet", (96, 107)), ("vgg16", (64, 75)), ("vgg16_bn", (64, 75)))
        }
        out |= {f"torchvision {name}": Case(plain(name), (64, 75), _dense) for name in ("densenet121", "densenet161")}
        out["torchvision convnext_tiny"] = Case(
            plain("convnext_tiny"),
            (64, 75),
            lambda b: _staged(b, "features.{t}.{b}", stem="features.0", norm="classifier.0"),
        )
        out["torchvision vit_b_32"] = Case(
            lambda side: vision.models.vit_b_32(image_size=side, num_classes=10), (64, 96), _torchvision_vit
        )
    if timm := library("timm"):

        def create(name: str, **more: Any) -> Callable[[int], Any]:
            return lambda side: timm.create_model(name, num_classes=10, **more)

        for name in ("tf_efficientnet_lite0", "tf_efficientnet_lite2", "tf_efficientnet_lite4", "mobilenetv2_100"):
            out[f"timm {name}"] = Case(
                create(name), (64, 75), lambda b: _staged(b, "blocks.{s}.{b}", stem="bn1", last="bn2")
            )
        out["timm convnext_tiny"] = Case(
            create("convnext_tiny"), (64, 75), lambda b: _staged(b, "stages.{s}.blocks.{b}", stem="stem", norm="head.norm")
        )
        for name in ("vit_tiny_patch16_224", "vit_small_patch32_224"):
            out[f"timm {name}"] = Case(
                lambda side, name=name: timm.create_model(name, num_classes=10, img_size=side), (64, 96), _timm_vit
            )
    if TORCH:
        from clip_reference import Resnet, Transformer

        out["clip vit_b"] = Case(
            Transformer,
            (64, 96),
            lambda b: {"embed": "visual.ln_pre", "norm": "visual.ln_post", "project": "visual"}.get(
                b, b.replace("blocks.", "visual.transformer.resblocks.")
            ),
        )
        out["clip resnet50"] = Case(
            Resnet,
            (64, 96),
            lambda b: {"stem": "visual.avgpool", "attention_pool": "visual.attnpool"}.get(b, f"visual.{b}"),
        )
    return out

"""Vision transformers and CLIP's visual towers: who writes which one how.

Sources: the state dicts of timm and torchvision, and the AugReg and CLIP releases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ncjax.networks.weights.convolutional import RESNET_RULES
from ncjax.networks.weights.layouts import FLAX_KINDS, IMAGENET_MEAN, IMAGENET_STD, Layout, Preprocess, Shapes
from ncjax.networks.weights.recognise import Recogniser, count, only

_HALF = (0.5, 0.5, 0.5)


def _vit(embedding: str, positions: str, hwio: bool = False) -> Recogniser:
    sizes = {192: "vit_ti", 384: "vit_s", 768: "vit_b"}

    def recognise(shapes: Shapes) -> str | None:
        if embedding not in shapes or positions not in shapes or "norm_pre.weight" in shapes:
            return None
        width, patch = (
            (shapes[embedding][-1], shapes[embedding][0]) if hwio else (shapes[embedding][0], shapes[embedding][-1])
        )
        found = sizes.get(width)
        return found and f"models.vit.{found}" + (f"(patch={patch})" if patch != 16 else "")

    return recognise


def _grid_images(
    embedding: str,
    positions: str,
    resize: float,
    interpolation: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    hwio: bool = False,
) -> Callable[[str, Shapes], Preprocess]:
    """The image size from the number of positions."""

    def images(model: str, shapes: Shapes) -> Preprocess:
        patch = shapes[embedding][0 if hwio else -1]
        size = math.isqrt(shapes[positions][-2] - 1) * patch
        return Preprocess(size, math.floor(size * resize + 1e-6), interpolation, mean, std)

    return images


def _attention(fused: str, out: str) -> list[tuple[str, str]]:
    """Query, key and value stacked in one tensor; `fused` ends in "." or "_"."""
    return [
        *((rf"/attention/{part}\.(\w+)", rf"/{fused}\1[{i}|3]") for i, part in enumerate(("query", "key", "value"))),
        (r"/attention/out", f"/{out}"),
    ]


_TIMM_VIT = [
    *_attention("attn.qkv.", "attn.proj"),
    (r"^embed/patches", "patch_embed.proj"),
    (r"^embed\.class_token", "cls_token"),
    (r"^embed\.positions", "pos_embed"),
    (r"/mlp(\d)", r"/mlp.fc\1"),
    (r"^norm/norm", "norm"),
    (r"^head/linear", "head"),
]
_TORCHVISION_VIT = [
    *_attention("self_attention.in_proj_", "self_attention.out_proj"),
    (r"^embed/patches", "conv_proj"),
    (r"^embed\.class_token", "class_token"),
    (r"^embed\.positions", "encoder.pos_embedding"),
    (r"^blocks\.", "encoder.layers.encoder_layer_"),
    (r"/norm(\d)", r"/ln_\1"),
    (r"/mlp1", "/mlp.0"),
    (r"/mlp2", "/mlp.3"),
    (r"^norm/norm", "encoder.ln"),
    (r"^head/linear", "heads.head"),
]
_AUGREG = [
    (r"^embed/patches", "embedding"),
    (r"^embed\.class_token", "cls"),
    (r"^embed\.positions", "Transformer.posembed_input.pos_embedding"),
    (r"^blocks\.", "Transformer.encoderblock_"),
    (r"/norm1", "/LayerNorm_0"),
    (r"/norm2", "/LayerNorm_2"),
    (r"/attention/", "/MultiHeadDotProductAttention_1/"),
    (r"/mlp1", "/MlpBlock_3.Dense_0"),
    (r"/mlp2", "/MlpBlock_3.Dense_1"),
    (r"^norm/norm", "Transformer.encoder_norm"),
    (r"^head/linear", "head"),
]
_CLIP_VIT = [
    *_attention("attn.in_proj_", "attn.out_proj"),
    (r"^embed/patches", "conv1"),
    (r"^embed\.class_token", "class_embedding:1"),
    (r"^embed\.positions", "positional_embedding:2"),
    (r"^embed/norm", "ln_pre"),
    (r"^blocks\.", "transformer.resblocks."),
    (r"/norm(\d)", r"/ln_\1"),
    (r"/mlp1", "/mlp.c_fc"),
    (r"/mlp2", "/mlp.c_proj"),
    (r"^norm/norm", "ln_post"),
    (r"^project/dense.weight", "proj:T"),
]
_CLIP_RESNET = [
    *RESNET_RULES,
    (r"^attention_pool\.positions", "attnpool.positional_embedding"),
    *(
        (rf"^attention_pool/attention/{ours}", f"attnpool.{theirs}_proj")
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "c"))
    ),
]
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _clip_images(model: str, shapes: Shapes) -> Preprocess:
    patch = 32 if "attnpool.positional_embedding" in shapes else shapes["conv1.weight"][-1]
    positions = shapes.get("attnpool.positional_embedding") or shapes["positional_embedding"]
    size = math.isqrt(positions[0] - 1) * patch
    return Preprocess(size, size, "bicubic", _CLIP_MEAN, _CLIP_STD)


def _clip(shapes: Shapes) -> str | None:
    if {"ln_pre.weight", "proj"} <= shapes.keys() and shapes["conv1.weight"][0] == 768:
        patch = shapes["conv1.weight"][-1]
        return "models.clip.clip_vit_b" + (f"(patch={patch})" if patch != 32 else "")
    depths = tuple(count(shapes, rf"layer{s}\.(\d+)\.") for s in range(1, 5))
    if "attnpool.q_proj.weight" in shapes and depths == (3, 4, 6, 3):
        width = shapes["conv3.weight"][0]
        return "models.clip.clip_resnet50" + (f"(width={width})" if width != 64 else "")
    return None


_CLIP: dict[str, Any] = dict(
    classifier=False,
    prefix="visual.",
    preprocess=_clip_images,
    normalise=[(r"^(?!visual\.)", "text."), (r"^visual\.", "")],
    ignored=r"text\..*|.*num_batches_tracked",
)

LAYOUTS = (
    Layout(
        "timm ViT",
        _vit("patch_embed.proj.weight", "pos_embed"),
        _TIMM_VIT,
        preprocess=_grid_images("patch_embed.proj.weight", "pos_embed", 1 / 0.9, "bicubic", _HALF, _HALF),
    ),
    Layout(
        "torchvision ViT",
        _vit("conv_proj.weight", "encoder.pos_embedding"),
        _TORCHVISION_VIT,
        normalise=[(r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3.")],
        preprocess=_grid_images(
            "conv_proj.weight", "encoder.pos_embedding", 256 / 224, "bilinear", IMAGENET_MEAN, IMAGENET_STD
        ),
    ),
    Layout(
        "AugReg ViT",
        _vit("embedding.kernel", "Transformer.posembed_input.pos_embedding", hwio=True),
        _AUGREG,
        kinds=FLAX_KINDS,
        hwio=True,
        separator="/",
        preprocess=_grid_images(
            "embedding.kernel", "Transformer.posembed_input.pos_embedding", 1.0, "bilinear", _HALF, _HALF, hwio=True
        ),
    ),
    Layout("CLIP ViT", only("vit", _clip), _CLIP_VIT, **_CLIP),
    Layout("CLIP ResNet", only("resnet", _clip), _CLIP_RESNET, **_CLIP),
)

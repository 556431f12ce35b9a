"""The rivals' networks, written plainly in PyTorch: torchvision's ResNets and MobileNetV2, and a pre-norm ViT.

Each is a list of named blocks, so that a frozen prefix can run under no_grad.
"""

from __future__ import annotations

import torch
from torch import nn


class Residual(nn.Module):
    """Basic block or bottleneck (v1.5), as in torchvision."""

    def __init__(self, inside: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        outside = 4 * width if bottleneck else width
        plan = [(width, 1, 1), (width, 3, stride), (outside, 1, 1)] if bottleneck else [(width, 3, stride), (width, 3, 1)]
        layers, before = [], inside
        for i, (w, kernel, s) in enumerate(plan):
            layers += [nn.Conv2d(before, w, kernel, s, kernel // 2, bias=False), nn.BatchNorm2d(w)]
            layers += [nn.ReLU(inplace=True)] if i < len(plan) - 1 else []
            before = w
        self.body = nn.Sequential(*layers)
        self.short = (
            nn.Sequential()
            if (inside, stride) == (outside, 1)
            else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.short(x))


class Padded(nn.Module):
    """The CIFAR family's shortcut: every other pixel, zeros for the new channels."""

    def __init__(self, extra: int):
        super().__init__()
        self.pad = (0, 0, 0, 0, extra // 2, extra - extra // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], self.pad)


class Embed(nn.Module):
    """Patches, class token, positions."""

    def __init__(self, width: int, patch: int, side: int):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions


class Net(nn.Module):
    """Named blocks and a classifier of the pooled last one, plus (with `skip`) of the padded pooled output of one."""

    def __init__(self, blocks: dict[str, nn.Module], dim: int, classes: int, skip: str | None):
        super().__init__()
        self.names, self.skip = list(blocks), skip
        self.blocks, self.head = nn.ModuleList(blocks.values()), nn.Linear(dim, classes)

    @staticmethod
    def pool(x: torch.Tensor) -> torch.Tensor:
        """Spatial mean of maps, class token of sequences."""
        return x.mean((2, 3)) if x.ndim == 4 else x[:, 0]

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """Blocks below `start` are frozen."""
        kept = None
        for i, (name, block) in enumerate(zip(self.names, self.blocks, strict=True)):
            with torch.set_grad_enabled(i >= start):
                x = block(x)
            kept = self.pool(x) if name == self.skip else kept
        x = self.pool(x)
        return self.head(x if kept is None else x + nn.functional.pad(kept, (0, x.shape[1] - kept.shape[1])))


class Inverted(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, inside: int, width: int, stride: int, expand: int):
        super().__init__()
        inner, layers = expand * inside, []
        if expand > 1:
            layers = [nn.Conv2d(inside, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(inplace=True)]
        layers += [
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        ]
        self.body, self.sums = nn.Sequential(*layers), stride == 1 and inside == width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.sums else self.body(x)


class Pooled(nn.Module):
    """A classifier of the spatial mean."""

    def __init__(self, body: nn.Module, dim: int, classes: int):
        super().__init__()
        self.body, self.head = body, nn.Linear(dim, classes)

    def forward(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def mobilenet_v2() -> nn.Sequential:
    """Width 1.0, up to the last map."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(inplace=True)]
    inside = 32
    for expand, width, depth, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(depth):
            layers.append(Inverted(inside, width, stride if i == 0 else 1, expand))
            inside = width
    return nn.Sequential(*layers, nn.Conv2d(inside, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6(inplace=True))


def imagenet_resnet(depths: tuple[int, ...], bottleneck: bool) -> nn.Sequential:
    """ImageNet stem, width 64, up to the last map."""
    net = resnet(depths, bottleneck, 1, None)
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    )
    return nn.Sequential(stem, *list(net.blocks)[1:])


def resnet(
    depths: tuple[int, ...], bottleneck: bool, classes: int, skip: str | None, first: int = 64, padded: bool = False
) -> Net:
    """CIFAR stem."""
    blocks: dict[str, nn.Module] = {
        "stem": nn.Sequential(nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True))
    }
    inside = first
    for stage, depth in enumerate(depths):
        for i in range(depth):
            width = first * 2**stage
            block = Residual(inside, width, 2 if stage and not i else 1, bottleneck)
            if padded and inside != width:
                block.short = Padded(width - inside)
            blocks[f"layer{stage + 1}.{i}"] = block
            inside = 4 * width if bottleneck else width
    return Net(blocks, inside, classes, skip)


def vit(width: int, heads: int, depth: int, patch: int, side: int, classes: int, skip: str | None) -> Net:
    """torch's own encoder layer, which picks the fused attention where it can."""
    blocks: dict[str, nn.Module] = {"embed": Embed(width, patch, side)}
    for i in range(depth):
        blocks[f"blocks.{i}"] = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", 1e-6, True, True)
    blocks["norm"] = nn.LayerNorm(width, 1e-6)
    return Net(blocks, width, classes, skip)

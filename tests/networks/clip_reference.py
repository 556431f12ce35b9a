"""CLIP's visual towers written plainly in PyTorch, from the paper, under the names of its release. Needs torch."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm attention and a QuickGELU perceptron."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class VisualTransformer(nn.Module):
    """ViT-B/32."""

    def __init__(self, side: int, width: int = 768, patch: int = 32, embedding: int = 512):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*(Block(width, 12) for _ in range(12)))})
        self.proj = nn.Parameter(torch.randn(width, embedding) / width**0.5)

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.transformer["resblocks"](self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class Bottleneck(nn.Module):
    """Strides are means."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.stride, self.downsample = stride, None
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.ModuleDict(
                {"0": nn.Conv2d(inputs, 4 * width, 1, bias=False), "1": nn.BatchNorm2d(4 * width)}
            )

    def forward(self, x):
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(F.avg_pool2d(y, self.stride)))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](F.avg_pool2d(x, self.stride)))
        return F.relu(x + y)


class AttentionPool(nn.Module):
    """The mean attends to every position."""

    def __init__(self, positions: int, width: int, heads: int, out: int):
        super().__init__()
        self.positional_embedding, self.heads = nn.Parameter(torch.randn(positions + 1, width)), heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, out)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding
        q, k, v = (
            p(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for p, y in ((self.q_proj, x[:, :1]), (self.k_proj, x), (self.v_proj, x))
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.c_proj(y)[:, 0]


class VisualResnet(nn.Module):
    """ResNet-50."""

    def __init__(self, side: int, width: int = 64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = nn.Conv2d(width // 2, width // 2, 3, 1, 1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv3, self.bn3 = nn.Conv2d(width // 2, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.avgpool, inputs = nn.AvgPool2d(2), width
        for s, depth in enumerate((3, 4, 6, 3)):
            blocks = []
            for b in range(depth):
                blocks.append(Bottleneck(inputs, width << s, 2 if s and not b else 1))
                inputs = 4 * (width << s)
            setattr(self, f"layer{s + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool((side // 32) ** 2, inputs, width // 2, 16 * width)

    def forward(self, x):
        for i in (1, 2, 3):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return self.attnpool(self.layer4(self.layer3(self.layer2(self.layer1(self.avgpool(x))))))


class Clip(nn.Module):
    """A tower, and a tensor of the text side that loading has to put aside."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual, self.logit_scale = visual, nn.Parameter(torch.tensor(4.6))
        self.ln_final = nn.LayerNorm(512)

    def forward(self, x):
        return self.visual(x)


def Transformer(side: int) -> Clip:
    """ViT-B/32 for images of a side."""
    return Clip(VisualTransformer(side))


def Resnet(side: int) -> Clip:
    """ResNet-50 for images of a side."""
    return Clip(VisualResnet(side))

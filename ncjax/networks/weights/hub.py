"""Weights by name: downloaded once into the cache that everybody's tools share, checked by sha256.

`hf:OWNER/NAME` and `hf:OWNER/NAME:FILE` come from the Hugging Face Hub (its own cache); `torchvision:NAME` and
`torchvision:NAME.IMAGENET1K_V2` from PyTorch's server (`$TORCH_HOME/hub/checkpoints`). Anything else is a path.
"""

from __future__ import annotations

import http.client
import math
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ncjax.core.errors import UserError, nearest
from ncjax.core.files import read_json
from ncjax.networks.weights.files import sha256
from ncjax.networks.weights.layouts import Preprocess

TORCHVISION_URL = "https://download.pytorch.org/models/"
CHUNK = 1 << 20
# File names end in the first eight digits of their sha256.
TORCHVISION = {
    "resnet18": "resnet18-f37072fd",
    "resnet34": "resnet34-b627a593",
    "resnet50": "resnet50-0676ba61",
    "resnet50.IMAGENET1K_V2": "resnet50-11ad3fa6",
    "resnet101": "resnet101-63fe2227",
    "resnet101.IMAGENET1K_V2": "resnet101-cd907fc2",
    "resnet152": "resnet152-394f9c45",
    "resnet152.IMAGENET1K_V2": "resnet152-f82ba261",
    "mobilenet_v2": "mobilenet_v2-b0353104",
    "mobilenet_v2.IMAGENET1K_V2": "mobilenet_v2-7ebf99e0",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0",
    "alexnet": "alexnet-owt-7be5be79",
    "vgg11": "vgg11-8a719046",
    "vgg13": "vgg13-19584684",
    "vgg16": "vgg16-397923af",
    "vgg16_bn": "vgg16_bn-6c64b313",
    "vgg19": "vgg19-dcbb9e9d",
    "densenet121": "densenet121-a639ec97",
    "densenet161": "densenet161-8d451a50",
    "densenet169": "densenet169-b2777c0a",
    "convnext_tiny": "convnext_tiny-983f1562",
    "vit_b_16": "vit_b_16-c867db91",
    "vit_b_32": "vit_b_32-d86f8d99",
}
_RESIZE = {"IMAGENET1K_V2": 232}  # torchvision's second recipe; its first is the layout's own
# Networks of timm whose tensors look like another's: parameter-free anti-aliasing, other padding or activation.
LOOK_ALIKES = ("efficientnet_lite", "resnetblur", "resnetaa", "vit_base_patch32_clip", "vit_base_patch16_clip")
HF_FILES = ("model.safetensors", "pytorch_model.bin")


class Local(NamedTuple):
    """A file on this machine, and what its publisher says it is to be fed."""

    path: Path
    preprocess: dict[str, Any]  # fields of `Preprocess`; empty where the layout's own hold


def local(spec: str) -> Local:
    """The file behind a specification, downloaded if it has to be.

    Raises:
      UserError: an unknown name, no way to the server, or a file that is not the one it should be.
    """
    if spec.startswith("hf:"):
        return _hugging_face(spec.removeprefix("hf:"))
    if spec.startswith("torchvision:"):
        return _torchvision(spec.removeprefix("torchvision:"))
    return Local(Path(spec), _timm_images(Path(spec).with_name("config.json")) if Path(spec).is_file() else {})


def held() -> list[str]:
    """Specifications of the weights that the caches of torchvision and Hugging Face hold on this machine."""
    folder = _checkpoints()
    found = [f"torchvision:{name}" for name, stem in TORCHVISION.items() if (folder / f"{stem}.pth").is_file()]
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return found
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return found
    for repository in sorted(repositories, key=lambda r: r.repo_id):
        names = {file.file_name for revision in repository.revisions for file in revision.files}
        if repository.repo_type == "model" and names & set(HF_FILES):
            found.append(f"hf:{repository.repo_id}")
    return found


def is_remote(spec: str) -> bool:
    """Whether a specification names something to download."""
    return spec.startswith(("hf:", "torchvision:"))


def _checkpoints() -> Path:
    """Where PyTorch keeps what torchvision downloads."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home, "hub", "checkpoints").expanduser()


def _torchvision(name: str) -> Local:
    name = name.removesuffix(".IMAGENET1K_V1")
    if name not in TORCHVISION:
        raise UserError(f"torchvision:{name}: {nearest(name, TORCHVISION)}")
    path = _checkpoints() / f"{TORCHVISION[name]}.pth"
    if not path.is_file():
        download(TORCHVISION_URL + path.name, path, TORCHVISION[name].rpartition("-")[2])
    resize = _RESIZE.get(name.partition(".")[2])
    return Local(path, {"resize": resize} if resize else {})


def download(url: str, path: Path, digest: str) -> None:
    """Fetches a file; goes on where an earlier try stopped.

    Args:
      url: where it is.
      path: where it is to be; a partial one is beside it.
      digest: how its sha256 starts.

    Raises:
      UserError: no way to the server, or another file than the one wanted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = total = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(
        url, headers={"Range": f"bytes={have}-", "User-Agent": "ncjax"} if have else {"User-Agent": "ncjax"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer, open(part, "ab" if have else "wb") as out:
            if have and answer.status != 206:  # the server starts over
                out.truncate(0)
                have = 0
            total = have + int(answer.headers.get("Content-Length") or 0)
            with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
                task = bar.add_task(path.name, total=total or None, completed=have)
                while chunk := answer.read(CHUNK):
                    out.write(chunk)
                    bar.advance(task, len(chunk))
    except urllib.error.HTTPError as e:
        if e.code != 416:  # all of it was there already
            raise UserError(f"{url}: the server says {e.code} {e.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as e:
        reason = getattr(e, "reason", e)
        raise UserError(
            f"cannot download {url} ({reason}); run the same command again to go on, or fetch the file on "
            f"another machine and put it at {path}, or name it with weights=PATH"
        ) from None
    if part.stat().st_size < total:
        raise UserError(
            f"{url} was cut short at {part.stat().st_size} of {total} bytes; run the same command again to go on"
        )
    found = sha256(part)
    if not found.startswith(digest):
        part.unlink()
        raise UserError(f"{url} is not the file it should be: sha256 {found[:16]}... instead of {digest}...; removed")
    part.replace(path)


def _hugging_face(name: str) -> Local:
    from huggingface_hub import hf_hub_download  # takes half a second to import
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    repo, _, wanted = name.partition(":")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError(f"hf:{name}: expected hf:OWNER/NAME, such as hf:timm/resnet50.a1_in1k")

    offline = False

    def fetch(file: str) -> Path | None:
        nonlocal offline
        try:
            return Path(hf_hub_download(repo, file))
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            offline = True  # and not in the cache; another file may be
        except HFValidationError as e:
            raise UserError(f"hf:{name}: {str(e).splitlines()[0]}") from None
        except EntryNotFoundError:
            pass
        except HfHubHTTPError as e:
            status = e.response.status_code if e.response is not None else 0
            raise UserError(
                f"hf:{name}: the Hub says {status}; no such repository, or one that needs a token (hf auth login)"
            ) from None
        except OSError:
            offline = True
        return None

    path = next((p for file in ((wanted,) if wanted else HF_FILES) if (p := fetch(file))), None)
    described = None if path is None else fetch("config.json")
    if path is None and offline:
        raise UserError(
            f"cannot reach the Hugging Face Hub for {repo}, and it is not in the cache; go online once, or "
            f"fetch {wanted or HF_FILES[0]} (and config.json, to lie beside it) on another machine and name it "
            "with weights=PATH"
        )
    if path is None:
        raise UserError(f"hf:{repo} holds no {wanted or ' and no '.join(HF_FILES)}")
    return Local(path, _timm_images(described))


def _timm_images(path: Path | None) -> dict[str, Any]:
    """Preprocessing that a timm repository's config.json prescribes; {} where it is none.

    Raises:
      UserError: one that cannot be followed, or a network whose names and shapes are those of another.
    """
    try:
        described = read_json(path) if path is not None and path.is_file() else {}
        found = described.get("pretrained_cfg") if isinstance(described, dict) else None
        if not found:
            return {}
        architecture = str(described.get("architecture", ""))
        if architecture.startswith(LOOK_ALIKES):
            raise UserError(
                f"{path}: {architecture} has the names and shapes of another network but not its layers; it is "
                "not among those that ncjax knows"
            )
        if found.get("crop_mode", "center") != "center":
            raise UserError(f"{path}: crop_mode={found['crop_mode']} is not known, only center")
        size = int(found["input_size"][-1])
        return Preprocess(
            size,
            math.floor(size / found.get("crop_pct", 0.875)),
            found.get("interpolation", "bicubic"),
            tuple(found["mean"]),
            tuple(found["std"]),
        )._asdict()
    except (KeyError, ValueError, TypeError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"{path}: its pretrained_cfg cannot be read ({e!r})") from None

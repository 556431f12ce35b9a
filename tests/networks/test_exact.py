"""Every block of every family against PyTorch with the same random weights, at two sizes.

Needs torch, torchvision and timm.
"""

import jax
import numpy as np
import pytest
import torch_reference

from ncjax.core.roles import MODEL, resolve
from ncjax.networks import weights

CASES = torch_reference.cases()
FAMILIES = {"torchvision", "timm", "keras", "clip"}
if not CASES:
    pytest.skip("PyTorch is not installed: pip install torch torchvision timm", allow_module_level=True)


def test_what_could_not_be_compared_is_known():
    absent = FAMILIES - {name.partition(" ")[0] for name in CASES}
    if absent:
        pytest.skip(f"torchvision or timm does not import: nothing compared for {', '.join(sorted(absent))}")


@pytest.mark.parametrize("name", CASES)
def test_features_of_every_block_agree(name):
    case, done = CASES[name], None
    for side in case.sides:
        net = torch_reference.randomised(case.make(side)) if done is None or "vit" in name or "clip" in name else done
        done, arrays = net, case.state(net)
        match, variables, _ = weights.load(arrays, name)
        images = np.random.default_rng(1).normal(size=(2, side, side, 3)).astype(np.float32)
        modules = {block: case.module(block) for block in match.network.backbone}
        expected = torch_reference.features(net, images, modules)
        found, _ = jax.jit(match.network.apply)(variables, images)
        compared = [*match.network.backbone, *(["logits"] if match.layout.classifier else [])]
        for block in compared:
            gap = np.abs(np.asarray(found[block]) - expected[block]).max() / np.abs(expected[block]).max()
            assert gap < 1e-4, (name, side, block, gap)


@pytest.mark.parametrize("name", CASES)
def test_export_gives_every_tensor_back_bit_for_bit(name):
    case = CASES[name]
    arrays = case.state(case.make(case.sides[0]))
    match, variables, _ = weights.load(arrays, name)
    back = weights.export(variables, match.network, match.layout.title)
    prefix = "visual." if name.startswith("clip") else ""
    wanted = {k: v for k, v in arrays.items() if k.startswith(prefix) and not k.endswith("num_batches_tracked")}
    assert set(back) == set(wanted)
    for key, x in back.items():
        np.testing.assert_array_equal(x, wanted[key])


def test_augreg_files_are_what_timm_reads(tmp_path):
    timm = torch_reference.library("timm")
    if timm is None:
        pytest.skip("timm does not import")
    network = resolve("models.vit.vit_s(patch=32)", MODEL)(num_classes=10)
    template = jax.eval_shape(lambda: network.init(jax.random.key(0), (96, 96, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 10, template)
    np.savez(tmp_path / "augreg.npz", **weights.export(variables, network, "AugReg ViT"))
    net = timm.create_model("vit_small_patch32_224", num_classes=10, img_size=96).eval()
    net.load_pretrained(str(tmp_path / "augreg.npz"))
    images = rng.normal(size=(2, 96, 96, 3)).astype(np.float32)
    modules = {block: CASES["timm vit_small_patch32_224"].module(block) for block in network.backbone}
    expected = torch_reference.features(net, images, modules)
    found, _ = jax.jit(network.apply)(variables, images)
    for block in (*network.backbone, "logits"):
        gap = np.abs(np.asarray(found[block]) - expected[block]).max() / np.abs(expected[block]).max()
        assert gap < 1e-4, (block, gap)

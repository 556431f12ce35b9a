"""What users hand over: layers, maps, tables; hooks, captured features, logs, tables and figures of reports."""

import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from ncjax import nc
from ncjax.core.errors import UserError

K, D = 4, 6
RNG = np.random.default_rng(0)
LABELS = np.arange(80) % K
FEATURES = (RNG.normal(size=(80, D)) + 2 * np.eye(K, D)[LABELS]).astype(np.float32)
WEIGHT, BIAS = RNG.normal(size=(K, D)).astype(np.float32), RNG.normal(size=K).astype(np.float32)


def test_a_classifier_may_be_what_frameworks_hold_it_in():
    wanted = nc.measure(FEATURES, LABELS, classifier=(WEIGHT, BIAS)).scalars()
    held = {"kernel": WEIGHT.T, "bias": BIAS}
    assert nc.measure(FEATURES, LABELS, classifier=held).scalars() == wanted
    assert nc.measure(FEATURES, LABELS, classifier={"weight": WEIGHT, "bias": BIAS}).scalars() == wanted
    free = nc.measure(FEATURES, LABELS, classifier=(WEIGHT, 0 * BIAS)).scalars()
    for without in ((WEIGHT, None), {"kernel": WEIGHT.T}):
        assert nc.measure(FEATURES, LABELS, classifier=without).scalars() == free
    variables = {"params": held}
    assert nn.Dense(K).apply(variables, FEATURES).shape == (80, K)
    with pytest.raises(UserError, match="classifier: got int, expected"):
        nc.measure(FEATURES, LABELS, classifier=3)
    with pytest.raises(UserError, match="classifier: got dict"):
        nc.measure(FEATURES, LABELS, classifier={"params": held})


def test_an_nnx_layer_is_a_classifier():
    from flax import nnx

    layer = nnx.Linear(D, K, rngs=nnx.Rngs(0))
    kernel = np.asarray(layer.kernel[...])
    wanted = nc.measure(FEATURES, LABELS, classifier=(kernel.T, np.zeros(K, np.float32))).scalars()
    assert nc.measure(FEATURES, LABELS, classifier=layer).scalars() == wanted


def test_a_torch_layer_is_a_classifier():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layer = torch.nn.Linear(D, K)
    wanted = nc.measure(FEATURES, LABELS, classifier=(layer.weight.detach(), layer.bias.detach())).scalars()
    assert nc.measure(FEATURES, LABELS, classifier=layer).scalars() == wanted
    bare = torch.nn.Linear(D, K, bias=False)
    assert "nc3" in nc.measure(FEATURES, LABELS, classifier=bare).scalars()


@pytest.mark.parametrize(("shape", "axes"), [((80, 5, 5, D), "1 and 2"), ((80, D, 5, 5), "2 and 3")])
def test_feature_maps_are_averaged_and_it_is_said(shape, axes):
    maps = RNG.normal(size=shape).astype(np.float32)
    at = (1, 2) if axes.startswith("1") else (2, 3)
    maps += np.expand_dims(FEATURES, at)
    found, wanted = nc.measure(maps, LABELS), nc.measure(maps.mean(axis=at), LABELS)
    assert found.nc1 == pytest.approx(wanted.nc1, rel=1e-5)
    assert f"note: feature maps {list(shape)} were averaged over axes {axes}" in str(found)
    assert "note" not in str(wanted)
    stats = nc.collect(maps, LABELS)
    assert float(nc.nc1(stats)) == pytest.approx(wanted.nc1, rel=1e-4)


@pytest.mark.parametrize("shape", [(80, 5, 5, 5), (80, 3, 4, 5)])
def test_maps_whose_positions_cannot_be_told_are_refused(shape):
    with pytest.raises(UserError, match="which axes are positions cannot be told"):
        nc.measure(np.ones(shape, np.float32), LABELS)


def test_tables_and_lists_are_features():
    pd = pytest.importorskip("pandas")
    wanted = nc.measure(FEATURES, LABELS).scalars()
    assert nc.measure(pd.DataFrame(FEATURES), pd.Series(LABELS)).scalars() == wanted
    assert nc.measure(FEATURES.tolist(), LABELS.tolist()).nc1 == pytest.approx(wanted["nc1"], rel=1e-6)


def test_a_report_is_a_table_html_and_a_figure():
    pd = pytest.importorskip("pandas")
    report = nc.measure(FEATURES, LABELS, classifier=(WEIGHT, BIAS))
    table = report.to_frame()
    assert isinstance(table, pd.DataFrame)
    assert table.loc["nc1", "value"] == report.nc1
    assert table.loc["nc1", "low"] == report.interval["nc1"][0]
    assert table.loc["cdnv", "over_floor"] == report.over_floor["cdnv"]
    assert set(table.index) == {name for name, x in report.values.items() if not math.isnan(x)}
    page = report._repr_html_()
    assert page.count("<tr>") == len(table) + 1
    assert "flags: " in page
    figure = report.plot()
    assert [a.get_title() for a in figure.axes] == ["", "NC1 by class"]
    assert [bar.get_height() for bar in figure.axes[1].patches] == pytest.approx(report.nc1_classes.tolist())


@pytest.fixture
def network():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layers = [
        torch.nn.Conv2d(1, 5, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(5, D, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(D * 9, K),
    ]
    return torch, torch.nn.Sequential(*layers)


def test_hooks_measure_what_goes_through(network):
    torch, net = network
    images = torch.randn(60, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % K
    with nc.torch_hooks(net, ["0", "2"]) as seen:
        for at in range(0, 60, 25):
            net(images[at : at + 25])
            seen.labels(labels[at : at + 25])
    net(images)  # the hooks are off
    assert seen.layers == ("0", "2")
    first = net[0](images).detach().mean((2, 3)).numpy()
    np.testing.assert_allclose(seen.features["0"], first, atol=1e-5)
    reports = seen.measure()
    assert reports["0"].nc1 == pytest.approx(nc.measure(first, labels).nc1, rel=1e-3)
    assert reports["2"].dim == D
    seen.clear()
    with pytest.raises(UserError, match="nothing went through"):
        seen.measure()
    with pytest.raises(UserError, match="no module 'layer3'"):
        nc.torch_hooks(net, "layer3")
    with pytest.raises(UserError, match=r"expected a torch\.nn\.Module"):
        nc.torch_hooks(3, "x")


def test_hooks_take_labels_at_the_end_and_a_pooling_of_ones_own(network):
    torch, net = network
    images = torch.randn(40, 1, 7, 7)
    with nc.torch_hooks(net, "?", pool=lambda x: x.flatten(1)[:, :3]) as seen:
        net(images)
    with pytest.raises(UserError, match="no labels"):
        seen.measure()
    assert {r.dim for r in seen.measure(np.arange(40) % K).values()} == {3}


class Small(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3), name="conv")(x))
        return nn.Dense(K, name="head")(x.mean((1, 2)))


def test_captured_features_of_flax():
    images = RNG.normal(size=(40, 6, 6, 1)).astype(np.float32)
    model = Small()
    variables = model.init(jax.random.key(0), images)
    out, state = model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
    found = nc.flax_features(state["intermediates"])
    assert set(found) == {"conv", "head", "output"}
    np.testing.assert_array_equal(found["output"], out)
    assert found["conv"].shape == (40, 5)
    assert nc.measure(found["conv"], np.arange(40) % K).dim == 5
    with pytest.raises(UserError, match="capture_intermediates=True"):
        nc.flax_features({})


def test_watch_logs_to_a_function_and_to_objects_of_every_kind():
    said = []
    report = nc.watch(lambda values, step: said.append((values, step)))(FEATURES, LABELS, step=3)
    assert said[0][1] == 3
    assert said[0][0]["nc/nc1"] == report.nc1
    assert "nc/nc3" not in said[0][0]

    class Run:
        def log(self, values, step=None):
            said.append((values, step))

    nc.watch(Run(), prefix="train/", metrics=["nc1"])(FEATURES, LABELS, step=4, classifier=(WEIGHT, BIAS))
    assert said[1] == ({"train/nc1": report.nc1}, 4)
    with pytest.raises(UserError, match="writer: got int"):
        nc.watch(3)


def test_watch_writes_event_files(tmp_path):
    tensorboard = pytest.importorskip("tensorboardX")
    writer = tensorboard.SummaryWriter(str(tmp_path))
    nc.watch(writer)(FEATURES, LABELS, step=0)
    writer.close()
    (file,) = tmp_path.iterdir()
    assert b"nc/nc1" in file.read_bytes()


def test_hooks_average_over_positions_wherever_they_are():
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Last(torch.nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    class Own(dict):
        def __getitem__(self, key):
            return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)

    class Wrapped(torch.nn.Module):
        def forward(self, x):
            return Own(hidden=x, other=None)

    x = torch.randn(12, 5, 4, 4)
    for module, given in ((Last(), x), (torch.nn.Conv2d(5, 5, 1), x[..., :3]), (Wrapped(), x)):
        net = torch.nn.Sequential(module)
        with nc.torch_hooks(net, "0") as seen:
            net(given)
        assert seen.features["0"].shape == (12, 5)
    net = torch.nn.Sequential(torch.nn.Conv1d(5, 6, 1))
    with nc.torch_hooks(net, "0"), pytest.raises(UserError, match="pool="):
        net(x[..., 0])

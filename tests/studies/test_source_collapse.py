"""Variants of pre-training side by side: cells, what is read of them, rules, and what a report says."""

import csv
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from ncjax import main
from ncjax.core.mesh import make
from ncjax.core.types import Network
from ncjax.data import Data
from ncjax.data import load as load_data
from ncjax.evidence.variants import Resampled, judged, partial, resampled, spearman
from ncjax.models.named import build
from ncjax.networks import checkpoint
from ncjax.networks.load import Init, load
from ncjax.optim import Optim
from ncjax.runs.run import Run
from ncjax.training.pretraining import Pretraining, Recipe, Regime
from ncjax.transfer import source_claims as claims
from ncjax.transfer.reading import Reader, Reading, target_of

PAPER = Path(__file__).parents[2] / "configs" / "paper"
MLP = "models.mlp.mlp(depth=2,width=24)"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """One run read along the way, stopped within its first seed, in the second epoch, and gone on with."""
    workdir = tmp_path_factory.mktemp("sweep") / "e7"
    argv = [f"--config={PAPER}/e7_range.py:smoke", f"--workdir={workdir}"]
    with pytest.MonkeyPatch.context() as patch:
        asked = []
        patch.setattr(Run, "interrupted", lambda self: asked.append(1) or (2 if len(asked) == 7 else 0))
        assert main.main(argv) == 130
    stopped = workdir / "networks" / "cross_entropy-0" / "under_way"
    assert checkpoint.Store(stopped).latest("last") == 5  # 120 images in batches of 32: an epoch has 4 steps
    restored = []
    with pytest.MonkeyPatch.context() as patch:
        real = checkpoint.Store.restore
        patch.setattr(checkpoint.Store, "restore", lambda *args: restored.append(args[1]) or real(*args))
        assert main.main(argv) == 0
    assert restored == ["last"]
    return workdir


def results(workdir):
    return json.loads((workdir / "results.json").read_text())["results"]


def test_a_sweep_that_was_stopped_goes_on_and_equals_one_that_was_not(sweep, tmp_path):
    whole = tmp_path / "whole"
    assert main.main([f"--config={PAPER}/e7_range.py:smoke", f"--workdir={whole}"]) == 0
    one, other = results(sweep), results(whole)
    assert one["points"] == other["points"]
    assert list(one["points"]) == [f"cross_entropy, epoch {e}" for e in (0, 1, 2)]
    assert not list(sweep.glob("networks/*/under_way"))
    page = (sweep / "report.html").read_text()
    assert "Does less collapse in pre-training transfer better?" in page
    assert "C4 (cross_entropy)" in page
    with open(next((sweep / "tables").glob("outside_*.csv"))) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2  # a target, two scores
    auroc = one["points"]["cross_entropy, epoch 2"]["targets"]["embedded.digits"]["auroc"]
    assert float(rows[-1]["readout"]) == pytest.approx(auroc["readout"]["nci"][0], rel=1e-4)
    assert set(rows[0]) - {"target, variant, score"} == auroc.keys() - {"penultimate"}


def test_the_network_of_epoch_0_is_the_initialisation_bit_for_bit(sweep):
    network = load(Init(str(sweep / "networks" / "cross_entropy-1" / "epoch_0")))
    model = build(MLP, 10)
    fresh = jax.jit(model.init, static_argnums=1)(jax.random.key(1), (28, 28, 1))
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), network.variables, jax.device_get(fresh))
    assert all(jax.tree.leaves(same))
    assert not (sweep / "networks" / "cross_entropy-0" / "epoch_2" / "best").exists()


def test_a_projection_head_is_discarded_exactly(tmp_path):
    source = load_data(Data(n_per_class=8, max_test=50))
    recipe = Recipe(MLP, 5, Regime(epochs=1, batch_size=32), Optim(lr=0.05))
    trainer = Pretraining(recipe, source, make())
    kept = trainer.train(0, tmp_path / "n", read=[1], run=Run(tmp_path), tell=lambda said: None)
    network = load(Init(str(kept[1])))
    options = Reading(target_per_class=8, target_val_per_class=4, target_test=50)
    target = target_of(trainer.card, "embedded.digits", options)
    headless = build(MLP, 10)
    own = {k: {b: t for b, t in many.items() if b in headless.blocks} for k, many in network.variables.items()}
    own["params"]["head"] = {"linear": {"kernel": np.zeros((24, 10), np.float32), "bias": np.zeros(10, np.float32)}}
    found = []
    for model, variables in ((trainer.model, network.variables), (headless, own)):
        reader = Reader(model, variables, source.image_shape, make(), options)
        found.append(reader.read(Network(network.card, model, variables), source, {"digits": target}))
    one, other = (f["targets"]["digits"] for f in found)
    assert one["train"] == other["train"]
    assert one["probe"] == other["probe"]
    assert one["few_shot"] == other["few_shot"]
    layers = [f["source"]["layers"] for f in found]
    assert layers[0]["penultimate"]["test"]["nc1"] == layers[1]["penultimate"]["test"]["nc1"]
    assert layers[0]["readout"]["train"]["nc1"] != layers[0]["penultimate"]["train"]["nc1"]
    # What lies outside is told after every block; the readout of a head is a layer more, without one it is the penultimate.
    blocks = headless.backbone
    assert [list(x["auroc"]) for x in (one, other)] == [[*blocks, "readout", "penultimate"]] * 2
    assert one["auroc"]["penultimate"] == one["auroc"][blocks[-1]] == other["auroc"][blocks[-1]]
    assert one["auroc"]["readout"]["neco"] != one["auroc"]["penultimate"]["neco"]
    assert other["auroc"]["readout"]["neco"] == other["auroc"]["penultimate"]["neco"]
    inside, outside = (reader._seen(own, d, list(blocks), ("train", "test")) for d in (source, target))
    for block in blocks:
        x, labels = np.asarray(inside["train"].features[block], np.float64), inside["train"].labels
        means = np.stack([x[labels == c].mean(0) for c in range(10)])
        basis = np.linalg.svd(means - means.mean(0), full_matrices=False)[2][:9]
        centred = [np.asarray(d["test"].features[block], np.float64) - means.mean(0) for d in (inside, outside)]
        a, b = (np.linalg.norm(h @ basis.T, axis=1) / np.linalg.norm(h, axis=1) for h in centred)
        wanted = np.mean((a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :]))
        assert other["auroc"][block]["neco"] == pytest.approx(wanted, abs=2e-3)


def test_seeds_of_a_variant_differ_and_a_seed_is_a_seed(tmp_path):
    source = load_data(Data(n_per_class=4, max_test=50))
    recipe = Recipe(MLP, 0, Regime(epochs=1, batch_size=16), Optim(lr=0.05))
    heads = []
    for seed, folder in ((0, "a"), (1, "b"), (0, "c")):
        trainer = Pretraining(recipe, source, make())
        kept = trainer.train(seed, tmp_path / folder, read=[1], run=Run(tmp_path), tell=lambda said: None)
        heads.append(load(Init(str(kept[1]))).variables["params"]["head"]["linear"]["kernel"])
    assert np.array_equal(heads[0], heads[2])
    assert not np.array_equal(heads[0], heads[1])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("recipes.nothing.lr=1", "nothing"),
        ("recipes.cross_entropy.seeds=1", "seeds"),
        ("recipes.cross_entropy.lr=-1", "recipes.cross_entropy.lr=-1"),
        ("recipes.cross_entropy.loss=losses.nothing", "recipes.cross_entropy.loss"),
        ("recipes.cross_entropy=1", "cross_entropy"),
        ("recipes.cross_entropy.loss=losses.sup_con", "augmented views"),
        ("read=0,9", "after the last"),
        ("contrasts=C9: a - b", "leave read empty"),
        ("claim=C8", "C4 is judged along a run"),
        ("read=1", "C4 is judged along a run"),
        ("shots=1,50", "training images of"),
        ("recipes.cross_entropy.metrics=[]", "metrics"),
        ("superclasses=0-4/4-9", "class 4 is in two groups"),
        ("superclasses=0-4", "in no group"),
        ("superclasses=x/1", "expected numbers"),
        ("claim=C99", "one of C3"),
    ],
)
def test_what_cannot_be_meant_is_one_line(override, words, tmp_path, capsys):
    code = main.main([f"--config={PAPER}/e7_range.py:smoke", f"--config.{override}", f"--workdir={tmp_path / 'w'}"])
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("\n") == 1, said
    assert words in said


def cell(seed, nc1, probe, accuracy=0.9, target_nc1=1.0, val=None):
    layer = {"nc1": nc1, "cdnv": nc1, "directional_cdnv": nc1, "numerical_rank": 3.0, "nc1_over_floor": 0.1}
    target = {
        "train": {**layer, "nc1": target_nc1},
        "probe": probe,
        "probe_val": probe if val is None else val,
        "knn": probe,
    }
    layers = {name: {"train": layer, "test": layer} for name in ("penultimate", "readout")}
    return {
        "seed": seed,
        "source": {"accuracy": dict.fromkeys(("train", "val", "test"), accuracy), "layers": layers},
        "targets": {"t": {**target, "few_shot": {}}},
    }


def points(slope, noise=0.002, count=8, seeds=5, **more):
    rng = np.random.default_rng(0)
    return {
        f"v{v}": [cell(s, math.exp(v / 2), 0.5 + slope * v + noise * rng.normal(), **more) for s in range(seeds)]
        for v in range(count)
    }


def test_c3_is_judged_by_the_interval_over_variants_and_seeds():
    for slope, word in ((0.02, "supported"), (-0.02, "contradicted")):
        found = claims.summary(points(slope), ["t"], claim="C8", within=0.02, weakest=0.3)
        assert found["verdicts"]["C3"] == found["verdicts"]["C8"] == word
        assert abs(found["correlations"]["nc1"]["mean"].value) == pytest.approx(1)
    few = claims.summary(points(0.02, count=4), ["t"], claim="C8", within=0.02, weakest=0.3)
    assert few["verdicts"]["C3"] == "undecided"


def test_c3_counts_only_variants_of_comparable_source_accuracy():
    many = points(0.02)
    for name in list(many)[:4]:
        many[name] = [{**c, "source": {**c["source"], "accuracy": dict.fromkeys(("test",), 0.85)}} for c in many[name]]
    found = claims.summary(many, ["t"], claim="C8", within=0.02, weakest=0.3)
    assert found["comparable"] == ["v4", "v5", "v6", "v7"]
    assert found["verdicts"]["C3"] == "undecided"
    assert found["correlations"]["nc1"]["mean"].low > 0


def test_c17_is_the_difference_of_strengths_in_their_claimed_directions():
    rng = np.random.default_rng(1)
    many = {
        f"v{v}": [
            cell(s, math.exp(rng.normal()), 0.5 + 0.02 * v, target_nc1=10.0 - v + 0.01 * rng.normal()) for s in range(4)
        ]
        for v in range(9)
    }
    found = claims.target_over_source(many, ["t"])
    source = claims.over_points(many, ["t"], "nc1")["mean"]
    assert found.value == pytest.approx(1 - source.value)


@pytest.mark.parametrize(
    ("nc1", "gain", "word"),
    [(0.5, 0.05, "supported"), (-0.5, -0.05, "supported"), (0.5, -0.05, "contradicted"), (0.001, 0.05, "undecided")],
)
def test_a_contrast_is_supported_where_the_less_collapsed_transfers_better(nc1, gain, word):
    rng = np.random.default_rng(2)
    base = [cell(s, 1 + 0.1 * rng.random(), 0.7 + 0.01 * rng.normal()) for s in range(5)]
    other = [
        cell(
            s,
            claims.source_nc1(b) * math.exp(nc1 + 0.01 * rng.normal()),
            claims.mean_accuracy(b) + gain + 0.002 * rng.normal(),
        )
        for s, b in enumerate(base)
    ]
    if word == "undecided":  # NC1 differs by no more than by chance
        nc1, signs = 0.0, (1, -1, 1, -1, 0)
        other = [
            cell(s, claims.source_nc1(b) * math.exp(0.1 * sign), claims.mean_accuracy(b) + gain)
            for s, (b, sign) in enumerate(zip(base, signs, strict=True))
        ]
    found = claims.contrast({"a": other, "b": base}, "C9: a - b")
    assert found["word"] == word
    assert found["log_nc1"][0] == pytest.approx(nc1, abs=0.02)
    assert found["accuracy"][0] == pytest.approx(gain, abs=0.01)


def test_what_cannot_be_contrasted_is_undecided_and_dead_networks_are_left_out():
    many = points(0.02)
    assert claims.contrast({"a": many["v0"][:1], "b": many["v1"]}, "C9: a - b")["word"] == "undecided"
    assert claims.contrast({"b": many["v1"]}, "C9: a - b")["word"] == "undecided"
    assert (
        claims.contrast({"a": [cell(s, 0.0, 0.5) for s in range(5)], "b": many["v1"]}, "C9: a - b")["word"] == "undecided"
    )
    many["v3"] = [cell(0, None, 0.5), *many["v3"][1:]]
    many["v4"] = [cell(s, None, 0.5) for s in range(5)]
    kept, lost = claims.defined(many)
    assert lost == {"v3": 1, "v4": 5}
    assert (len(kept["v3"]), "v4" in kept) == (4, False)
    assert claims.summary(kept, ["t"], claim="C8", within=0.02, weakest=0.3)["verdicts"]["C3"] == "supported"


def test_one_seed_has_no_intervals_and_a_page_all_the_same(tmp_path):
    argv = [f"--config={PAPER}/e5_heads.py:smoke", "--config.seeds=1", "--config.epochs=1", f"--workdir={tmp_path / 'w'}"]
    assert main.main(argv) == 0
    assert "[–, –]" in (tmp_path / "w" / "report.html").read_text()
    wrong = main.main([f"--config={PAPER}/e5_heads.py:smoke", "--config.contrasts=better", f"--workdir={tmp_path / 'x'}"])
    assert wrong == 2


def test_a_loss_that_cannot_be_computed_is_refused_before_any_training(tmp_path, capsys):
    argv = [
        f"--config={PAPER}/e5_heads.py:smoke",
        "--config.recipes.2_layers.loss=losses.fixed_etf",
        f"--workdir={tmp_path / 'w'}",
    ]
    assert main.main([*argv, "--config.model=models.mlp.mlp(depth=1,width=8)"]) == 2
    assert "a simplex of 10 classes needs 9 features" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_run_turns_over_where_its_best_epoch_beats_both_ends():
    rng = np.random.default_rng(3)

    def at(nc1, probe):
        return [cell(s, nc1, probe + 0.003 * rng.normal(), val=probe) for s in range(5)]

    found = claims.over_a_run({0: at(5.0, 0.6), 4: at(1.0, 0.8), 32: at(0.1, 0.7)})
    assert (found["best"], found["first"], found["last"]) == (4, 0, 32)
    assert found["verdicts"] == {"C4": "supported", "C3 within the run": "supported"}
    found = claims.over_a_run({0: at(5.0, 0.6), 4: at(1.0, 0.7), 32: at(0.1, 0.8)})
    assert found["verdicts"] == {"C4": "supported", "C3 within the run": "not supported"}
    found = claims.over_a_run({0: at(5.0, 0.9), 4: at(1.0, 0.7), 32: at(0.1, 0.8)})
    assert found["verdicts"]["C4"] == "contradicted"
    found = claims.over_a_run({0: at(5.0, 0.6), 4: at(1.0, 0.8), 32: at(0.1, 0.5)})  # an inverted U
    assert found["verdicts"] == {"C4": "supported", "C3 within the run": "supported"}
    assert "C4" not in claims.over_a_run({8: at(5.0, 0.6), 32: at(0.1, 0.5)})["verdicts"]


def test_intervals_cover_variants_and_seeds():
    """Of variants and seeds drawn without any correlation, at most a few in a hundred intervals leave out 0."""
    rng, wrong = np.random.default_rng(4), 0
    for _ in range(200):
        x, y = (rng.normal(size=(10, 1)) + 0.3 * rng.normal(size=(10, 3)) for _ in range(2))
        found = resampled([x, y], spearman)
        wrong += not found.low <= 0 <= found.high
    assert wrong <= 20  # nominally 10
    assert resampled([np.ones((10, 3)), y], spearman) is None
    assert resampled([x[:4], y[:4]], spearman) is None


def test_partial_correlation_is_the_residuals():
    rng = np.random.default_rng(5)
    z = rng.normal(size=4000)
    x, y = z + rng.normal(size=4000), z + rng.normal(size=4000)
    assert spearman(x, y) > 0.4
    assert abs(partial(x, y, z)) < 0.05
    assert math.isnan(partial(z, y, z))


def test_words_of_a_correlation():
    for low, high, word in ((0.1, 0.9, "supported"), (-0.9, -0.1, "contradicted"), (-0.5, 0.2, "not supported")):
        assert judged(Resampled(0.0, low, high, 8, 40), weakest=0.3) == word
    assert judged(Resampled(0.0, -0.5, 0.5, 8, 40), weakest=0.3) == "undecided"
    assert judged(None, weakest=0.3) == "undecided"


def test_a_merged_set_holds_the_same_images():
    whole, merged = (load_data(Data(n_per_class=20, superclasses=s)) for s in (None, "0,2,4,6/1,3/5,7,9/8"))
    assert len(merged.class_names) == 4
    lookup = np.array([0, 1, 0, 1, 0, 2, 0, 2, 3, 2])
    for split in ("train", "val", "test"):
        assert np.array_equal(whole.splits[split].images, merged.splits[split].images)
        assert np.array_equal(lookup[whole.splits[split].labels], merged.splits[split].labels)

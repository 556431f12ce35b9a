"""One file for every thing: what a user writes outside ncjax is found in rows, printed tables, pages and CSV."""

import csv
import functools
import json
import re
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ncjax import main, nc, report
from ncjax.core.errors import UserError
from ncjax.core.roles import METRIC, resolve
from ncjax.runs.rows import read_rows

OWN = '''
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ncjax.core.types import Loss, Objective
from ncjax.data.readers import Raw
from ncjax.models.layers import identity
from ncjax.models.sequential import Block, assemble
from ncjax.scores.score import score
from ncjax.tuning import plans


def spread_share(g):
    """Largest class spread as a share of the mean one."""
    return jnp.max(g.spread) / jnp.mean(g.spread)


@score(label="mean norm", higher_is_better=True)
def mean_norm(features):
    return float(np.linalg.norm(features, axis=1).mean())


@score(label="never", higher_is_better=True)
def never(source_accuracy):
    return 1.0


class Flat(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train, mask):
        return nn.relu(nn.Dense(self.width, name="dense")(x.reshape(len(x), -1)))


class Deep(Flat):
    pass


def net(num_classes, projection_layers=0, width=6):
    blocks = [Block("flat", Flat(width), identity), Block("deep.0", Deep(width), identity)]
    return assemble(blocks, num_classes=num_classes, projection_layers=projection_layers)


def doubled():
    """A plain loss."""
    def value(features, labels, mask):
        chosen = jnp.take_along_axis(jax.nn.log_softmax(features["logits"]), labels[:, None], axis=1)[:, 0]
        return -2 * jnp.sum(chosen * mask) / jnp.maximum(jnp.sum(mask), 1)
    return Loss(value)


def shifted(size=0.01):
    """An objective that runs the network on images moved against it, one step of the sign of the gradient."""
    plain = doubled().value
    def value(apply, variables, batch, key):
        def at(images):
            return plain(apply(variables, images, train=False), batch.label, batch.mask)
        worse = batch.image + size * jnp.sign(jax.grad(at)(batch.image))
        features = apply(variables, worse)
        return plain(features, batch.label, batch.mask), features
    return Objective(value, plain)


def blobs(count=12):
    rng = np.random.default_rng(0)
    def split(n):
        labels = np.repeat(np.arange(3), n)
        place = labels[:, None, None, None] + np.eye(6, dtype=int)[None, :, :, None]
        images = rng.integers(0, 60, (3 * n, 6, 6, 1)) + 60 * place
        return images.astype(np.uint8), labels
    return Raw({"train": split(count), "test": split(4)}, ("a", "b", "c"))


def dim(key, images, *, by=2):
    return images // by


def last_block(network, target):
    return plans.make(network, target, tuned=network.model.backbone[-1:])
'''

STUDY = '''
from ncjax.report.sections import Section
from ncjax.report.tables import Table, number, text


def run(*, run, sides: int = 6, scale: float = 1.0):
    """No data set at all."""
    run.rows(0, "theory", "none", "none", {"answer": 7.0 * sides * scale})
    run.table("answers", ["what", "value"], [["seven times six", str(7 * sides)]])
    return {"answer": 7 * sides * scale}


def section(runs):
    rows = [[text(r.name), number(r.results["answer"], "results.json: answer")] for r in runs]
    return [Section("The answer to everything", "", [], [Table("answers", "It is what it is.", ["run", "answer"], rows)])]
'''

CONFIG = '''
"""A study of one's own."""
from ncjax import config


def get_config(arg=""):
    return config.make("STUDY", arg, sides=6, smoke={"sides": 1})
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the user's files and a run of them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(textwrap.dedent(OWN))
    (folder / "theory.py").write_text(STUDY)
    (folder / "cfg.py").write_text(CONFIG.replace("STUDY", str(folder / "theory.py")))
    configs = folder / "pretrain.py"
    configs.write_text(
        "from ncjax import config\n\n\ndef get_config(arg=''):\n"
        "    return config.make('pretrain', arg, smoke={}, epochs=2, batch_size=8)\n"
    )
    o = folder / "own.py"
    argv = [
        f"--config={configs}",
        f"--config.data={o}:blobs(count=8)",
        f"--config.model={o}:net(width=5)",
        f"--config.loss={o}:shifted(size=0.02)",
        f"--config.augment={o}:dim",
        f"--config.metrics={o}:spread_share",
        f"--workdir={folder / 'run'}",
    ]
    assert main.main(argv) == 0
    return folder


def test_a_metric_is_found_in_rows_table_page_and_csv(own, capsys):
    rows = [r for r in read_rows(own / "run") if r["metric"] == "spread_share"]
    assert {r["layer"] for r in rows} == {"flat", "deep.0"}
    assert all(r["value"] >= 1 for r in rows)
    assert "spread_share</th>" in (own / "run" / "report.html").read_text()
    with open(own / "run" / "tables" / "pretraining.csv") as file:
        found = next(csv.DictReader(file))["spread_share"]
    last = next(r for r in rows if (r["epoch"], r["split"], r["layer"]) == (2, "train", "deep.0"))
    assert float(found) == last["value"]
    measure = own / "measure.py"
    measure.write_text(
        "from ncjax import config\n\n\ndef get_config(arg=''):\n    return config.make('measure', arg, smoke={})\n"
    )
    capsys.readouterr()
    argv = [f"--config={measure}", f"--config.init={own / 'run'}", f"--config.data={own / 'own.py'}:blobs"]
    assert main.main([*argv, f"--config.metrics={own / 'own.py'}:spread_share", f"--workdir={own / 'measured'}"]) == 0
    assert "spread_share" in capsys.readouterr().out
    assert "spread_share train</th>" in (own / "measured" / "report.html").read_text()


def test_a_metric_prints_its_meaning_and_refuses_unknown_inputs(own, rng):
    features, labels = rng.normal(size=(40, 5)), [0, 1] * 20
    metric = resolve(f"{own / 'own.py'}:spread_share", METRIC)
    report = nc.measure(features, labels, metrics=[metric])
    assert "Largest class spread as a share of the mean one" in str(report)
    assert report.spread_share >= 1

    def odd(g, colour):
        return g.k

    def nc1(g):
        return g.k

    def torn(g, features):
        return g.k

    def aligned(weight, look, *, power=1):
        return jnp.sum(weight**power) * look.rho.sum()

    with pytest.raises(UserError, match="asks for 'colour'"):
        nc.measure(features, labels, metrics=[odd])
    with pytest.raises(UserError, match="asks for features, which is on the host, and g"):
        nc.measure(features, labels, metrics=[torn])
    squared, weight = functools.partial(aligned, power=2), rng.normal(size=(2, 5)).astype(np.float32)
    report = nc.measure(features, labels, classifier=(weight, np.zeros(2)), metrics=[squared])
    within = sum(((features[k::2] - features[k::2].mean(axis=0)) ** 2).sum() for k in (0, 1))
    assert report.aligned == pytest.approx((weight.astype(float) ** 2).sum() * within, rel=1e-5)
    with pytest.raises(UserError, match="there is one of that name"):
        nc.measure(features, labels, metrics=[nc1])


def test_model_loss_augmentation_and_method_are_remembered_and_run(own):
    config = own / "finetune.py"
    config.write_text(
        "from ncjax import config\n\n\ndef get_config(arg=''):\n"
        "    return config.make('finetune', arg, smoke={}, epochs=1, batch_size=8)\n"
    )
    argv = [f"--config={config}", f"--config.init={own / 'run'}", f"--config.data={own / 'own.py'}:blobs"]
    argv += [f"--config.method={own / 'own.py'}:last_block", f"--config.loss={own / 'own.py'}:doubled"]
    assert main.main([*argv, f"--workdir={own / 'tuned'}"]) == 0
    record = json.loads((own / "tuned" / "results.json").read_text())["results"]
    assert record["tuned_blocks"] == ["deep.0", "head"]
    assert "last_block" in (own / "tuned" / "report.html").read_text()
    again = own / "measure_tuned.py"
    again.write_text(
        "from ncjax import config\n\n\ndef get_config(arg=''):\n    return config.make('measure', arg, smoke={})\n"
    )
    argv = [f"--config={again}", f"--config.init={own / 'tuned'}", f"--config.data={own / 'own.py'}:blobs"]
    assert main.main([*argv, f"--workdir={own / 'measured_tuned'}"]) == 0


def test_an_objective_tunes_without_kept_activations_and_metrics_are_shown(own, capsys):
    argv = [f"--config={own / 'finetune.py'}", f"--config.init={own / 'run'}", f"--config.data={own / 'own.py'}:blobs"]
    argv += [f"--config.method={own / 'own.py'}:last_block", f"--config.loss={own / 'own.py'}:shifted"]
    argv += [f"--config.metrics={own / 'own.py'}:spread_share"]
    assert main.main([*argv, "--config.cache=device", f"--workdir={own / 'refused'}"]) == 2
    assert "runs the whole network as it likes; set cache=auto" in capsys.readouterr().err
    assert main.main([*argv, f"--workdir={own / 'moved'}"]) == 0
    assert "spread_share test" in capsys.readouterr().out
    record = json.loads((own / "moved" / "results.json").read_text())["results"]
    assert record["cache"] is None
    chosen = [r["value"] for r in read_rows(own / "moved") if r["metric"] == "spread_share" and r["phase"] == "chosen"]
    assert record["chosen"]["test"]["deep.0"]["spread_share"] in chosen
    assert "spread_share train</th>" in (own / "moved" / "report.html").read_text()


def test_an_objective_that_returns_other_rows_is_refused(own, capsys):
    broken = own / "halved.py"
    broken.write_text(
        "from ncjax.core.types import Objective\nfrom ncjax.losses import cross_entropy\n\n\ndef halved():\n"
        "    plain = cross_entropy().value\n"
        "    def value(apply, variables, batch, key):\n"
        "        features = apply(variables, batch.image)\n"
        "        return plain(features, batch.label, batch.mask), {'logits': features['logits']}\n"
        "    return Objective(value, plain)\n"
    )
    argv = [f"--config={own / 'pretrain.py'}", f"--config.data={own / 'own.py'}:blobs", f"--config.loss={broken}:halved"]
    assert main.main([*argv, f"--config.model={own / 'own.py'}:net", f"--workdir={own / 'halved'}"]) == 2
    assert "logits and batch_stats for 8 images, got ['logits']" in capsys.readouterr().err


def test_a_score_ranks_blocks_and_says_why_it_cannot(own, capsys):
    config = own / "choose.py"
    config.write_text(
        "from ncjax import config\n\n\ndef get_config(arg=''):\n    return config.make('choose_layer', arg, smoke={},"
        f" shots=3, batch_size=4, steps=2, rounds=1, method='{own / 'own.py'}:last_block')\n"
    )
    scores = f"[{own / 'own.py'}:mean_norm,{own / 'own.py'}:never,scores.nc1,scores.probe_accuracy]"
    argv = [f"--config={config}", f"--config.init={own / 'run'}", f"--config.data={own / 'own.py'}:blobs"]
    argv += [f"--config.scores={scores}", f"--workdir={own / 'chosen'}"]
    assert main.main([*argv, "--config.rule=mean_norm"]) == 0
    said = capsys.readouterr().out
    assert "mean norm" in said
    record = json.loads((own / "chosen" / "results.json").read_text())["results"]
    assert record["scores"][0]["deep.0"]["mean_norm"] > 0
    assert record["scores"][0]["deep.0"]["never"] is None
    page = (own / "chosen" / "report.html").read_text()
    assert "<th>mean norm</th>" in page
    with open(own / "chosen" / "tables" / "blocks_on_chosen.csv") as file:
        assert float(next(csv.DictReader(file))["mean norm"]) > 0
    assert "no never: deep.0: needs source_accuracy" in said
    assert main.main([*argv[:-1], "--config.rule=never", f"--workdir={own / 'never'}"]) == 2
    assert "rule=never: no block has that score" in capsys.readouterr().err
    assert main.main([*argv[:-1], "--config.rule=mean_nrm", f"--workdir={own / 'typo'}"]) == 2
    assert "did you mean 'mean_norm'" in capsys.readouterr().err


def test_a_study_of_its_own_without_a_data_set_has_its_section(own, capsys):
    argv = [f"--config={own / 'cfg.py'}", "--config.scale=0.5", f"--workdir={own / 'theory'}"]
    assert main.main(argv) == 0
    assert "seven times six" in capsys.readouterr().out
    assert read_rows(own / "theory")[0]["value"] == 21
    page = (own / "theory" / "report.html").read_text()
    assert "The answer to everything" in page
    with open(own / "theory" / "tables" / "answers.csv") as file:
        assert float(next(csv.DictReader(file))["answer"]) == 21
    assert main.main([f"--config={own / 'cfg.py'}:smoke", f"--workdir={own / 'smoke'}"]) == 0
    (own / "theory.py").rename(own / "moved.py")
    page = report.write([own / "theory"], own / "gone", title="x").read_text()
    assert "What it says of them is not here: no file" in page
    (own / "moved.py").rename(own / "theory.py")
    assert main.main([f"--config={own / 'cfg.py'}", "--config.side=2"]) == 2
    assert "did you mean 'sides'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{o}:nothing", "has no 'nothing'"),
        ("nowhere.py:net", "no file nowhere.py"),
        ("{o}:net(wdth=3)", "no setting 'wdth'; did you mean 'width'"),
        ("{o}:net(num_classes=3)", "no setting 'num_classes'"),
        ("{b}:net", "line 3: ZeroDivisionError"),
        ("json.loads(", "cannot read"),
    ],
)
def test_names_that_lead_nowhere_are_one_line(own, capsys, name, words):
    broken = own / "broken.py"
    broken.write_text("import math\n\nx = 1 / 0\n")
    model = name.format(o=own / "own.py", b=broken)
    assert main.main([f"--config={own / 'pretrain.py'}", f"--config.model={model}", f"--workdir={own / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_the_examples_of_the_documentation_run(own, capsys, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
    *pieces, study = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(pieces) == 8
    made = re.search(r"`(def get_config.*?)`\.", text)
    assert made
    folder = own / "documented"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("own.py").write_text("\n".join(pieces))
    Path("answer.py").write_text(study)
    Path("answer_config.py").write_text(f"from ncjax import config\n\n\n{made[1]}\n")
    argv = ["--config=pretrain", "--config.data=own.py:blobs(count=8)", "--config.epochs=1", "--config.batch_size=8"]
    for name, more in {
        "linen": ["--config.model=own.py:small_net", "--config.loss=own.py:doubled(scale=3.0)"],
        "nnx": ["--config.model=own.py:nnx_net(width=6)", "--config.loss=own.py:fast_gradient"],
    }.items():
        more += ["--config.augment=own.py:dimmed(by=3)", "--config.metrics=own.py:largest_spread", f"--workdir={name}"]
        assert main.main([*argv, *more]) == 0
    assert "largest_spread" in capsys.readouterr().out
    found = {(r["epoch"], r["split"], r["layer"], r["metric"]) for r in read_rows("nnx")}
    assert {(0, "train", "output", "accuracy"), (1, "test", "second", "largest_spread")} <= found
    argv = ["--config=finetune", "--config.init=nnx", "--config.data=own.py:blobs", "--config.epochs=1"]
    assert main.main([*argv, "--config.method=own.py:last_block", "--workdir=tuned"]) == 0
    assert "tunes" not in capsys.readouterr().err
    choose = (
        "from ncjax import config\n\n\ndef get_config(arg=''):\n    return config.make('choose_layer', arg, smoke={})\n"
    )
    Path("by_norm.py").write_text(choose)
    argv = ["--config=by_norm.py", "--config.init=linen", "--config.data=own.py:blobs", "--config.shots=3"]
    argv += ["--config.scores=[own.py:mean_norm,scores.logme]", "--config.rule=mean_norm", "--config.batch_size=8"]
    argv += ["--config.method=own.py:last_block", "--config.blocks=dense"]
    assert main.main([*argv, "--workdir=by_norm"]) == 0
    assert "largest mean norm" in capsys.readouterr().out
    assert "mean norm" in Path("by_norm/report.html").read_text()
    argv = ["--config=answer_config.py", "--config.sides=7", "--workdir=answer"]
    assert main.main(argv) == 0
    assert "7 sides" in capsys.readouterr().out
    monkeypatch.chdir(own.parent)  # files are found from anywhere
    assert "Seven times the sides" in report.write([folder / "answer"], own / "answered", title="x").read_text()


def test_the_adapter_for_nnx_is_short_and_right(tmp_path):
    """Batch statistics move in training alone, and the numbers are the module's own."""
    import jax
    from flax import nnx

    text = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
    pieces = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    adapter = pieces[1][pieces[1].index("class FromNNX") : pieces[1].index("class Layer")]
    assert len(adapter.strip().splitlines()) <= 15
    made = {}
    exec(compile("\n".join(pieces[:2]), "extend.md", "exec"), made)
    model = made["nnx_net"](num_classes=3, width=5)
    images = np.random.default_rng(0).normal(size=(7, 6, 6, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), (6, 6, 1))
    features, kept = model.apply(variables, images)
    jax.tree.map(np.testing.assert_array_equal, kept, variables)
    trained, moved = model.apply(variables, images, live=frozenset({"first"}))
    assert not np.allclose(moved["batch_stats"]["first"]["nnx"]["norm"]["mean"], 0)
    np.testing.assert_array_equal(moved["batch_stats"]["second"]["nnx"]["norm"]["mean"], 0)
    layer = made["Layer"](36, 5, nnx.Rngs(0))
    own = variables["params"]["first"]["nnx"]
    layer.linear.kernel[...] = own["linear"]["kernel"]
    layer.linear.bias[...] = own["linear"]["bias"]
    np.testing.assert_allclose(features["first"], layer(images, False), atol=1e-5)
    np.testing.assert_allclose(trained["first"], layer(images, True), atol=1e-5)


def test_a_config_may_name_functions_by_themselves(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(OWN) + "\nimport functools\n\nfrom ncjax import config, losses\n\n\ndef get_config(arg=''):\n"
        "    return config.make('pretrain', arg, data=functools.partial(blobs, count=8),"
        " model=functools.partial(net, width=5), loss=losses.mse, metrics=[spread_share],"
        " epochs=1, batch_size=8, smoke={})\n"
    )
    assert main.main(["--config=mine.py", "--workdir=run"]) == 0
    made = json.loads((tmp_path / "run" / "config.json").read_text())
    assert made["model"] == f"{tmp_path / 'mine.py'}:net(width=5)"
    assert made["loss"] == "losses.mse"
    assert made["metrics"] == [f"{tmp_path / 'mine.py'}:spread_share"]
    (tmp_path / "bad.py").write_text(
        "from ncjax import config\n\n\ndef get_config(arg=''):\n"
        "    return config.make('pretrain', arg, loss=lambda: 3, smoke={})\n"
    )
    assert main.main(["--config=bad.py", "--workdir=other"]) == 2

"""One file for every thing: what a user writes outside ncjax is found in rows, printed tables, pages and CSV."""

import csv
import json
import textwrap

import pytest

from ncjax import main, nc
from ncjax.core.errors import UserError
from ncjax.core.resolve import resolve
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
def never(source_logits):
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
    metric = resolve(f"{own / 'own.py'}:spread_share")
    report = nc.measure(features, labels, metrics=[metric])
    assert "Largest class spread as a share of the mean one" in str(report)
    assert report.spread_share >= 1

    def odd(g, colour):
        return g.k

    def nc1(g):
        return g.k

    with pytest.raises(UserError, match="asks for 'colour'"):
        nc.measure(features, labels, metrics=[odd])
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
    assert "mean norm" in capsys.readouterr().out
    record = json.loads((own / "chosen" / "results.json").read_text())["results"]
    assert record["scores"][0]["deep.0"]["mean_norm"] > 0
    assert record["scores"][0]["deep.0"]["never"] is None
    page = (own / "chosen" / "report.html").read_text()
    assert "<th>mean norm</th>" in page
    with open(own / "chosen" / "tables" / "blocks_on_chosen.csv") as file:
        assert float(next(csv.DictReader(file))["mean norm"]) > 0
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
    assert main.main([f"--config={own / 'cfg.py'}", "--config.side=2"]) == 2
    assert "did you mean 'sides'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{o}:nothing", "has no 'nothing'"),
        ("nowhere.py:net", "cannot read nowhere.py"),
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

"""The page of claims: from records alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from ncjax import claims
from ncjax.core.files import to_json
from ncjax.evidence import correlation, regret
from ncjax.evidence.claims import verdict
from ncjax.evidence.paper import CLAIMS, overall

ROOT = Path(__file__).parent.parent
E1 = ROOT / "docs" / "results" / "e1_backbones"


def test_a_verdict_can_be_recomputed_from_the_rows_of_its_record():
    """C1 of E1, from every network's NC1 and accuracy."""
    record = json.loads((E1 / "results.json").read_text())[0]
    cells, owner = record["results"]["cells"], list(record["results"]["families"].values())

    def nc1(cell):
        train = cell["layers"][cell["penultimate"]]["train"]
        return float("nan") if "narrow" in train["flags"] else train["nc1"]

    pairs = [([nc1(c) for c in many.values()], [c["test_accuracy"] for c in many.values()]) for many in cells.values()]
    found = correlation.over_networks(pairs, correlation.spearman, families=owner)
    shown = [
        x for x in claims.evidence(claims.read([str(E1)])) if x.evidence.claim == "C1" and x.run.name == record["name"]
    ]
    assert [x.evidence.word for x in shown] == [verdict(found, weakest=record["config"]["weakest"])] == ["supported"]
    assert f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]" in shown[0].evidence.found


def test_the_documented_page_is_what_its_command_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "claims.md").read_text()
    command = next(line.strip() for line in page.splitlines() if line.startswith("    python -m ncjax.claims"))
    records = command.removeprefix("python -m ncjax.claims ").partition(" --")[0].split()
    assert claims.markdown(claims.evidence(claims.read(records)), command, "claims.png") == page


def test_a_claim_without_a_record_is_not_tested(tmp_path, capsys):
    out = tmp_path / "page"
    assert claims.main([str(E1), "--out", str(out), "--markdown", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| C")]
    words = {row[0].strip(): row[2].strip() for row in rows[: len(CLAIMS)]}
    assert list(words) == list(CLAIMS)
    assert words["C1"] == "supported"
    assert words["C16"] == "not tested"
    assert (tmp_path / "claims.png").is_file()
    assert "C16: not tested" in (out / "report.html").read_text()
    assert claims.main([str(E1), "--out", str(out)]) == 0  # over its own page


@pytest.mark.parametrize(
    ("words", "together"),
    [
        ([], "not tested"),
        (["not tested"], "not tested"),
        (["supported", "undecided"], "supported"),
        (["supported", "undecided", "undecided"], "undecided"),
        (["supported", "contradicted"], "undecided"),
        (["contradicted", "undecided"], "not supported"),
        (["half supported"], "undecided"),
        (["supported", "not tested"], "supported"),
    ],
)
def test_words_of_settings_come_to_one(words, together):
    assert overall(words) == together


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no record"),
        ("[{}]", "is no record of runs"),
        ("{", "results.json"),
        (to_json([{"study": "backbones", "config": {}, "results": {}, "seconds": 1, "environment": {}}]), "does not hold"),
    ],
)
def test_what_is_no_record_is_one_line(tmp_path, capsys, content, said):
    path = tmp_path / "record" / "results.json"
    if content is not None:
        path.parent.mkdir()
        path.write_text(content)
    assert claims.main([str(path), "--out", str(tmp_path / "page")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "page").exists()


def test_blocks_that_are_all_one_do_not_matter():
    """C15: the best block in hindsight beats a random one by noise alone, and is no evidence that blocks differ."""
    rng, fired = np.random.default_rng(0), 0
    for _ in range(60):
        tuned = {f"b{i}": rng.normal(0.7, 0.01, 3).tolist() for i in range(8)}
        fired += regret.blocks_differ(tuned) < 0.05
    assert fired <= 8  # 5 % of 60 is 3
    better = {**tuned, "b0": [x + 0.2 for x in tuned["b0"]]}
    assert regret.blocks_differ(better) < 0.05

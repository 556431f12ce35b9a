"""`python -m ncjax.claims RECORDS... [--out DIR] [--markdown FILE]`: the paper's claims, one by one, from records alone.

A record is a folder of a finished run, a folder that `ncjax report --archive` wrote, or a JSON file of one. Each study says
what its records show of a claim (`claims` in its module); a claim without a record is "not tested".
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ncjax.core import files
from ncjax.core.cli import Parser, quiet, tell
from ncjax.core.errors import UserError
from ncjax.core.resolve import study_module
from ncjax.evidence.paper import CLAIMS, WORDS, Evidence, overall
from ncjax.report import figures, page
from ncjax.report.collect import Finished, archived, collect
from ncjax.report.sections import Section
from ncjax.report.tables import Table, save, text

ARCHIVE = "results.json"
RULE = (
    "The verdict over records: supported where at least half of those that tested it support it and none is against it; "
    "not supported where at least half are against it and none supports it; else undecided."
)
COLOURS = dict(zip(WORDS, ("#009E73", "#8FD4BF", "#BBBBBB", "#E69F00", "#D55E00", "#FFFFFF"), strict=True))


class Shown(NamedTuple):
    """A piece of evidence, and the run it is of."""

    evidence: Evidence
    run: Finished

    @property
    def made_by(self) -> str:
        """The config that made the run, as its command named it."""
        arguments = self.run.environment.get("arguments", [])
        named = [a.partition("=")[2] for a in arguments if isinstance(a, str) and a.startswith("--config=")]
        return named[0] if named else self.run.study

    @property
    def commit(self) -> str:
        """Seven digits of the commit, or –."""
        return (self.run.environment.get("commit") or "–")[:7]


def read(paths: Sequence[str]) -> list[Finished]:
    """The runs of some records.

    Raises:
      UserError: a path is none, or damaged.
    """
    runs: list[Finished] = []
    for path in map(Path, paths):
        whole = path if path.is_file() else path / ARCHIVE
        if path.is_dir() and not whole.is_file():
            raise UserError(f"{path}: no {ARCHIVE} there, so neither a finished run nor a record")
        if not path.exists():
            raise UserError(f"no record {path}")
        is_archive = path.is_file() or isinstance(files.read_json(whole), list)
        runs += archived(path) if is_archive else collect([path])
    return runs


def evidence(runs: Sequence[Finished]) -> list[Shown]:
    """What every run says of a claim, by claim.

    Raises:
      UserError: a record does not hold what its study writes.
    """
    found = []
    for run in runs:
        speak = getattr(study_module(run.study), "claims", None)
        if speak is None:
            continue
        try:
            found += [Shown(each, run) for each in speak([run])]
        except (KeyError, TypeError, ValueError, IndexError) as e:
            if isinstance(e, UserError):
                raise
            raise UserError(
                f"{run.name}: its record does not hold what study {run.study} writes ({type(e).__name__}: {e})"
            ) from e
    unknown = {x.evidence.claim for x in found} - CLAIMS.keys()
    assert not unknown, unknown
    order = list(CLAIMS)
    return sorted(found, key=lambda x: order.index(x.evidence.claim))


def words_of(found: Sequence[Shown]) -> dict[str, list[str]]:
    """{claim: the words of its records}."""
    return {claim: [x.evidence.word for x in found if x.evidence.claim == claim] for claim in CLAIMS}


def _counted(words: Sequence[str]) -> str:
    count = Counter(words)
    return ", ".join(f"{count[w]} {w}" for w in WORDS if count[w]) or "no record"


def section(found: Sequence[Shown]) -> Section:
    """The page's one section."""
    by_claim = words_of(found)
    claims = Table(
        "claims",
        RULE,
        ["claim", "says", "verdict", "records", "rule of a record", "strongest objection"],
        [
            [
                text(c),
                *map(text, (CLAIMS[c].says, overall(words), _counted(words), CLAIMS[c].rule, CLAIMS[c].objection)),
            ]
            for c, words in by_claim.items()
        ],
    )
    rows = [
        [text(x.evidence.claim), *map(text, (x.evidence.word, x.evidence.found, x.evidence.setting, x.made_by, x.commit))]
        for x in found
    ]
    each = Table(
        "evidence",
        "Every record: brackets are 95 % intervals, over seeds, episodes or families of networks as its study says.",
        ["claim", "word", "found", "where", "config", "commit"],
        rows,
    )
    intro = (
        "Li et al. (TMLR 2024). Words are those of rules that stood in a config before the run; nothing on this page is "
        "entered by hand. Records that contradict one another both stand here."
    )
    drawn = [("How the records of each claim fall.", _bars(by_claim))]
    verdicts = tuple(f"{c}: {overall(words)} ({_counted(words)}). {CLAIMS[c].says}" for c, words in by_claim.items())
    return Section("What has been seen of the paper's claims", intro, drawn, [claims, each], verdicts)


def _bars(by_claim: dict[str, list[str]]) -> figures.Drawn:
    """A bar a claim, in the colours of its records' words."""
    with figures.panel(7.0, 4.6) as (figure, axis):
        for i, words in enumerate(by_claim.values()):
            left = 0
            for word in WORDS:
                n = words.count(word)
                if n:
                    axis.barh(i, n, left=left, color=COLOURS[word], edgecolor="#666666", lw=0.5)
                    left += n
            axis.text(left + 0.2, i, overall(words), va="center", fontsize=7)
        for word, colour in COLOURS.items():
            axis.barh(-5, 0, color=colour, edgecolor="#666666", lw=0.5, label=word)
        axis.set_yticks(range(len(by_claim)), list(by_claim))
        axis.set(xlabel="records", ylim=(len(by_claim) - 0.4, -0.6))
        axis.margins(x=0.2)
        figures.legend_below(figure, axis, 3)
        return figures.Drawn("claims", figure)


def markdown(found: Sequence[Shown], command: str, figure: str = "") -> str:
    """The page as Markdown.

    Args:
      found: the evidence.
      command: that makes it, for its head.
      figure: name of the figure's file beside it; "" for none.
    """
    by_claim = words_of(found)
    lines = [
        "# The paper's claims, and what has been seen here",
        "",
        "Made from the records in `docs/results` by",
        "",
        f"    {command}",
        "",
        "The paper: Li et al., [arXiv 2212.12206](https://arxiv.org/abs/2212.12206). Words are those of rules that stood "
        "in a "
        f"config before the run; brackets are 95 % intervals. {RULE} What the numbers are held against: "
        "[results](results.md), [records](results/README.md).",
        "",
        *([f"![How the records of each claim fall]({figure})", ""] if figure else []),
        "| claim | says | verdict | records | strongest objection |",
        "|---|---|---|---|---|",
    ]
    for c, words in by_claim.items():
        lines.append(f"| {c} | {CLAIMS[c].says} | {overall(words)} | {_counted(words)} | {CLAIMS[c].objection} |")
    lines += ["", "## Every record", "", "| claim | word | found | where | config (commit) |", "|---|---|---|---|---|"]
    lines += [
        f"| {e.claim} | {e.word} | {e.found} | {e.setting} | `{x.made_by}` ({x.commit}) |"
        for x in found
        for e in [x.evidence]
    ]
    rules = [f"- {c}: {CLAIMS[c].rule}." for c in CLAIMS]
    return "\n".join([*lines, "", "## Rules of a record", "", *rules, ""])


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `core.cli.tell`: 2 for what is no record."""
    parser = Parser("python -m ncjax.claims", "What records say of the paper's claims.")
    parser.add_argument("records", nargs="+", help="folders of finished runs, archives of `report --archive`, JSON files")
    parser.add_argument("--out", default="runs/claims", help="folder to write report.html and tables/ into")
    parser.add_argument("--markdown", help="also write the page as Markdown here, its figure beside it")

    def write(args: Namespace) -> object:
        out = Path(args.out)
        page.free(out, force=False)
        runs = read(args.records)
        found = evidence(runs)
        said = section(found)
        out.mkdir(parents=True, exist_ok=True)
        for table in said.tables:
            save(table, out / "tables")
        if args.markdown:
            target = Path(args.markdown)
            figures.png(said.figures[0][1], target.parent)
            command = " ".join(["python -m ncjax.claims", *args.records, "--markdown", args.markdown])
            files.write_text(target, markdown(found, command, "claims.png"))
        html = page.render("The paper's claims", [said], count=len(runs), seconds=sum(run.seconds for run in runs))
        files.write_text(out / "report.html", html)
        return out / "report.html"

    return tell("ncjax.claims", parser, argv, write)


if __name__ == "__main__":
    quiet()
    sys.exit(main())

"""A prediction beside what came out: by what rule it holds, and how a page shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ncjax.report.collect import Finished
from ncjax.report.figures import Drawn
from ncjax.report.sections import Section, file_stem
from ncjax.report.tables import Table, number, text
from ncjax.runs.run import Run

Check = dict[str, Any]


def near(what: str, predicted: float, measured: float, within: float, *, relative: bool = True) -> Check:
    """Whether what was measured lies within so much of the prediction, as a share of it or as it is."""
    apart = abs(measured - predicted) / (abs(predicted) if relative else 1.0)
    return _check(
        what, f"{predicted:.6g}", measured, apart, f"within {within:g}{' of it' if relative else ''}", apart <= within
    )


def below(what: str, measured: float, limit: float) -> Check:
    """Whether what was measured is below a limit."""
    return _check(what, f"below {limit:g}", measured, measured - limit, "", measured < limit)


def above(what: str, measured: float, limit: float) -> Check:
    """Whether what was measured is above a limit, or at it."""
    return _check(what, f"at least {limit:g}", measured, measured - limit, "", measured >= limit)


def exceeds(what: str, interval: Sequence[float], unit: float = 1.0) -> Check:
    """Whether a difference is above 0 beyond its interval; "undecided" where that holds 0.

    Args:
      what: the difference.
      interval: (mean, low, high).
      unit: that it is shown in, 100 for points.
    """
    mean, low, high = (unit * x for x in interval)
    found = _check(what, "above 0", mean, low, f"[{low:.3g}, {high:.3g}]", low > 0)
    return found if low > 0 or high < 0 else {**found, "word": "undecided"}


def _check(what: str, predicted: str, measured: float, deviation: float, rule: str, holds: bool) -> Check:
    measured, deviation = float(measured), float(deviation)
    return {
        "what": what,
        "predicted": predicted,
        "measured": measured,
        "deviation": deviation,
        "rule": rule,
        "word": "supported" if holds else "contradicted",
    }


def judged(checks: Sequence[Check]) -> str:
    """The word of all checks where they have one, else how many hold."""
    words = [c["word"] for c in checks]
    holding = words.count("supported")
    return words[0] if len(set(words)) == 1 else f"{holding} of {len(words)} hold"


def finish(run: Run, checks: Sequence[Check], curves: dict[str, Any]) -> dict[str, Any]:
    """Prints the checks; what a study of a toy model returns."""
    run.table(
        "prediction and measurement",
        ["what", "predicted", "measured", "deviation", "rule", "verdict"],
        [
            [c["what"], c["predicted"], f"{c['measured']:.6g}", f"{c['deviation']:.3g}", c["rule"], c["word"]]
            for c in checks
        ],
    )
    run.say(judged(checks))
    return {"checks": list(checks), "verdict": judged(checks), "curves": curves}


def sections(
    runs: Sequence[Finished], title: str, intro: str, figure: tuple[str, Callable[[Finished, str], Drawn]]
) -> list[Section]:
    """A section for every run of a toy model.

    Args:
      runs: finished.
      title, intro: of the section.
      figure: its caption, and what draws it of a run and a name.
    """
    out = []
    for run in runs:
        stem = file_stem("theory", run.name)
        rows = [
            [
                text(c["what"]),
                text(c["predicted"]),
                number(c["measured"], f"{run.name}/results.json: checks.{i}", digits=6),
                number(c["deviation"]),
                text(c["rule"] or "–"),
                text(c["word"]),
            ]
            for i, c in enumerate(run.results["checks"])
        ]
        columns = ["what", "predicted", "measured", "deviation", "rule", "verdict"]
        table = Table(f"checks_{stem}", "Predictions beside measurements.", columns, rows)
        caption, draw = figure
        verdict = f"{title}: {run.results['verdict']}."
        out.append(Section(title, intro, [(caption, draw(run, stem))], [table], (verdict,)))
    return out

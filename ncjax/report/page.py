"""The page: sections of text, figures and tables, rendered into one file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from ncjax.core.errors import UserError
from ncjax.core.files import replacing
from ncjax.core.resolve import study_module
from ncjax.report import figures, sections
from ncjax.report.collect import Finished, collect
from ncjax.report.tables import save, to_latex


def write(workdirs: Sequence[str | Path], out: str | Path, *, title: str, archive: bool = False) -> Path:
    """Writes `out/report.html`, and every table as `out/tables/NAME.csv` and `.tex`.

    Args:
      workdirs: folders of finished runs, or of chains.
      out: where to write.
      title: heading of the page.
      archive: also write every run's record into `out/results.json` and every figure as `out/figures/NAME.png`.

    Raises:
      UserError: a folder holds no finished run.
    """
    runs = collect(workdirs)
    said: list[sections.Section] = []
    for study in dict.fromkeys(run.study for run in runs):
        said += _sections(study, [run for run in runs if run.study == study])
    said.append(sections.provenance(runs))
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for section in said:
        for table in section.tables:
            save(table, out / "tables")
        for _, drawn in section.figures:
            if archive:
                figures.png(drawn, out / "figures")
    if archive:
        records = [{k: v for k, v in run._asdict().items() if k != "rows"} for run in runs]
        (out / "results.json").write_text(json.dumps(records, indent=1))
    template = resources.files("ncjax.report").joinpath("template.html").read_text()
    html = (
        jinja2.Environment(autoescape=True)
        .from_string(template)
        .render(
            title=title,
            sections=said,
            to_latex=to_latex,
            svg=figures.svg,
            count=len(runs),
            seconds=sum(run.seconds for run in runs),
        )
    )
    with replacing(out / "report.html") as file:
        file.write(html.encode())
    return out / "report.html"


def _sections(study: str, runs: list[Finished]) -> list[sections.Section]:
    """What a study says of its runs; nothing where it has no function `section`, and why where it is no longer there."""
    try:
        speak = getattr(study_module(study), "section", None)
    except UserError as e:
        return [sections.Section(f"Runs of {study}", f"What it says of them is not here: {e}.", [], [])]
    return [] if speak is None else speak(runs)

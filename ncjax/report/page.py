"""The page: sections of text, figures and tables, rendered into one file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from ncjax.core.cli import one_line
from ncjax.core.errors import UserError
from ncjax.core.files import read_bytes, to_json, write_text
from ncjax.core.resolve import study_module
from ncjax.report import figures, sections
from ncjax.report.collect import Finished, collect
from ncjax.report.tables import save, to_csv, to_latex

MARKER = '<meta name="generator" content="ncjax">'  # in every page that `write` wrote


def free(out: Path, force: bool) -> None:
    """Refuses a folder that holds anything but an earlier report: a run, or somebody's files.

    Raises:
      UserError: it does, and `force` is not said.
    """
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    strange = sorted(names - {"report.html", "tables", "figures", "results.json"})
    if "report.html" not in names:
        strange = sorted(names)
    if strange and not force:
        raise UserError(f"{out} holds {strange[0]!r}, which no report wrote; choose another --out, or add --force")


def write(
    workdirs: Sequence[str | Path], out: str | Path, *, title: str, archive: bool = False, force: bool = False
) -> Path:
    """Writes `out/report.html`, and every table as `out/tables/NAME.csv` and `.tex`.

    Args:
      workdirs: folders of finished runs, or of chains.
      out: where to write.
      title: heading of the page.
      archive: also write every run's record into `out/results.json` and every figure as `out/figures/NAME.png`.
      force: replace a `report.html` that ncjax did not write.

    Raises:
      UserError: a folder holds no finished run, a file of a run is damaged, or somebody's `report.html` is in the way.
    """
    out = Path(out)
    if not force and (out / "report.html").exists() and MARKER.encode() not in read_bytes(out / "report.html")[:1000]:
        raise UserError(f"{out / 'report.html'} is none that ncjax wrote; move it away, or choose another place")
    runs = collect(workdirs)
    said: list[sections.Section] = []
    for study in dict.fromkeys(run.study for run in runs):
        said += _sections(study, [run for run in runs if run.study == study])
    said.append(_spoken(sections.provenance, runs)[0])
    out.mkdir(parents=True, exist_ok=True)
    for section in said:
        for table in section.tables:
            save(table, out / "tables")
        for _, drawn in section.figures:
            if archive:
                figures.png(drawn, out / "figures")
    if archive:
        records = [{k: v for k, v in run._asdict().items() if k not in ("rows", "folder")} for run in runs]
        write_text(out / "results.json", to_json(records, indent=1))
    html = render(title, said, count=len(runs), seconds=sum(run.seconds for run in runs))
    write_text(out / "report.html", html)
    return out / "report.html"


def render(title: str, said: Sequence[sections.Section], *, count: int, seconds: float) -> str:
    """The page of some sections, an HTML file that needs nothing else.

    Args:
      title: its heading.
      said: the sections.
      count, seconds: of the runs that it is of.
    """
    template = resources.files("ncjax.report").joinpath("template.html").read_text(encoding="utf-8")
    return (
        jinja2.Environment(autoescape=True)
        .from_string(template)
        .render(
            title=title,
            marker=MARKER,
            sections=said,
            verdict=[line for section in said for line in section.verdict],
            terms=sections.TERMS,
            to_csv=to_csv,
            to_latex=to_latex,
            embedded=_embedded,
            svg=figures.svg,
            count=count,
            seconds=seconds,
        )
    )


def _embedded(text: str, kind: str) -> str:
    """A file inside the page, so that one that was mailed has it."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode(errors='backslashreplace')).decode()}"


def _sections(study: str, runs: list[Finished]) -> list[sections.Section]:
    """What a study says of its runs; nothing where it has no function `section`, and why where it is no longer there."""
    try:
        speak = getattr(study_module(study), "section", None)
    except UserError as e:
        return [sections.Section(f"Runs of {study}", f"What it says of them is not here: {e}.", [], [])]
    return [] if speak is None else _spoken(speak, runs)


def _spoken(speak: Callable[[list[Finished]], Any], runs: list[Finished]) -> list[sections.Section]:
    """What a function says of runs.

    Raises:
      UserError: it finds what it looks for missing, or of another kind, in a run's files; the run is named.
    """
    try:
        said = speak(runs)
        return said if isinstance(said, list) else [said]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as e:
        if isinstance(e, UserError):
            raise
        for run in runs if len(runs) > 1 else ():
            _spoken(speak, [run])
        raise UserError(
            f"{' and '.join(run.name for run in runs)}: results.json or metrics.jsonl does not hold what study "
            f"{runs[0].study} writes there ({type(e).__name__}: {one_line(e)}); it may be damaged"
        ) from e

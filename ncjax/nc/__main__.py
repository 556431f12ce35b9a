"""`python -m ncjax.nc features.npz`: the collapse of features in a file, as a table or as JSON."""

from __future__ import annotations

import sys
import zipfile
from argparse import Namespace
from typing import Any

import numpy as np

from ncjax.core.cli import Parser, quiet, tell
from ncjax.core.errors import UserError
from ncjax.core.files import to_json
from ncjax.nc import metrics
from ncjax.nc.measure import collect, measure
from ncjax.nc.metric import meaning
from ncjax.nc.report import Report
from ncjax.nc.stats import ClassStats
from ncjax.nc.vectors import class_vectors

KEYS = ("X", "y", "W", "b", "X_test", "y_test", "X_out")


def _read(path: str) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as e:
        raise UserError(f"{path} is no readable .npz file of number arrays ({str(e).splitlines()[0]})") from None
    if not {"X", "y"} <= arrays.keys() and set(arrays) & set(KEYS) != {"W"}:
        raise UserError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected X [N, D] and y [N] (and maybe W [K, D], "
            "b [K], X_test, y_test, X_out), or W alone"
        )
    if ("X_test" in arrays) != ("y_test" in arrays):
        raise UserError(f"{path} holds one of X_test and y_test; expected both or neither")
    if "b" in arrays and "W" not in arrays:
        raise UserError(f"{path} holds b without W")
    if ignored := sorted(arrays.keys() - set(KEYS)):
        print(f"ncjax.nc: ignored: {', '.join(ignored)}", file=sys.stderr)
    return arrays


def _measured(arrays: dict[str, np.ndarray], **options: Any) -> dict[str, Report]:
    classifier = None
    if "W" in arrays:
        classifier = (arrays["W"], arrays.get("b", np.zeros(arrays["W"].shape[:1], np.float32)))
    options |= {"classifier": classifier, "outside": arrays.get("X_out")}
    reports = {"train": measure(arrays["X"], arrays["y"], **options)}
    if "X_test" in arrays:
        centres = collect(arrays["X"], arrays["y"], scatter=False)
        reports["test"] = _test(arrays["X_test"], arrays["y_test"], centres, options)
    return reports


def _test(features: np.ndarray, labels: np.ndarray, centres: ClassStats, options: dict[str, Any]) -> Report:
    try:
        return measure(features, labels, **options, centres=centres)
    except UserError as e:
        raise UserError(f"X_test, y_test: {e}") from None


def _vectors(found: dict[str, float], matrix: np.ndarray) -> str:
    lines = [f"{len(matrix)} class vectors of {matrix.shape[1]} numbers"]
    return "\n".join(
        lines + [f"{name:<22}{value:>10.4g}  {meaning(getattr(metrics, name))}" for name, value in found.items()]
    )


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `core.cli.tell`: 2 for input that cannot be measured."""
    parser = Parser("python -m ncjax.nc", "Measure the collapse of features in a file.")
    parser.add_argument(
        "file", help=".npz with X [N, D], y [N]; optional W [K, D], b [K], X_test, y_test, X_out [M, D]; or with W alone"
    )
    parser.add_argument("--weighting", choices=("class", "sample"), default="class", help="of classes in Sigma_B")
    parser.add_argument("--spectrum", action="store_true", help="also ranks, RankMe and VCI")
    parser.add_argument("--json", action="store_true", help="print JSON, with per-class and per-pair values")

    def show(args: Namespace) -> str:
        arrays = _read(args.file)
        if "X" not in arrays:
            if args.spectrum or args.weighting != "class":
                raise UserError("--spectrum and --weighting are of features, and the file holds W alone")
            found = class_vectors(arrays["W"])
            return to_json(found) if args.json else _vectors(found, arrays["W"])
        reports = _measured(arrays, weighting=args.weighting, spectrum=args.spectrum)
        if args.json:
            return to_json({name: report.to_dict(arrays=True) for name, report in reports.items()})
        return "\n\n".join(f"{name}: {report}" if len(reports) > 1 else str(report) for name, report in reports.items())

    return tell("ncjax.nc", parser, argv, show)


if __name__ == "__main__":
    quiet()
    sys.exit(main())

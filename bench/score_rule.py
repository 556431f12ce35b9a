"""Which score ranks by default? Of all runs of the benchmark of scores, the one that lost least by its first choice.

    python bench/score_rule.py docs/results/scores --out ncjax/studies/score_rule.json

The argument is what `python -m ncjax.report RUNS... --archive` wrote of runs of `configs/paper/scores.py`. A score takes
part that has a value for every network of all runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ncjax.core.files import to_json, write_text
from ncjax.evidence import intervals
from ncjax.evidence.regret import least_regret, mean_regrets
from ncjax.report.collect import archived

# Of a network and images that are new, nobody knows the first two; VCI is a constant with as few images, and refused since.
UNKNOWN = ("elsewhere", "source_accuracy", "vci")


def main() -> None:
    """Prints the order; writes the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record")
    parser.add_argument("--out")
    args = parser.parse_args()
    runs = archived(args.record)
    truths = [truth for run in runs for truth in run.results["truths"].values()]
    regrets = {n: [t["summary"].get(n, {}).get("regret") for t in truths] for n in runs[0].results["labels"]}
    names = [n for n, lost in regrets.items() if all(x and not x["missing"] for x in lost)]
    names = [n for n in names if n not in UNKNOWN]
    lost = {
        n: [x for run in runs for x in mean_regrets([t["summary"][n]["regret"] for t in run.results["truths"].values()])]
        for n in names
    }
    rule, labels = least_regret(lost), runs[0].results["labels"]
    for n in rule.order:
        more = intervals.paired(lost[n], lost[rule.name])
        print(f"{labels[n]:<32} {intervals.points(intervals.mean(lost[n]))}  more: {intervals.points(more)}")
    print(f"chosen on the other targets, it loses {intervals.points(rule.nested)}")
    record = {
        "rule": rule.name,
        "label": labels[rule.name],
        "regret": list(rule.regret),
        "nested": list(rule.nested),
        "level": [labels[n] for n in rule.level],
        "over": len(lost[rule.name]),
        "scores": len(names),
        "networks": sum(len(run.results["families"]) for run in runs),
        "commits": [run.environment["commit"] for run in runs],
    }
    if args.out:
        write_text(Path(args.out), to_json(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

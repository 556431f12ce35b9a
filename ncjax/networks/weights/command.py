"""`python -m ncjax.weights FILE`: what is in a file of weights."""

from __future__ import annotations

from argparse import Namespace

from ncjax.core.cli import Parser, tell
from ncjax.networks.weights import hub, read, table


def main(argv: list[str] | None = None) -> int:
    """The exit code, as of `core.cli.tell`."""
    parser = Parser(
        "python -m ncjax.weights",
        "Show the layout of a file of weights and which of its tensors fit: matched, missing, unexpected, misshaped.",
    )
    parser.add_argument("weights", help="a file, hf:OWNER/NAME or torchvision:NAME")
    parser.add_argument("--model", help="the network, if not what names and shapes say")

    def show(args: Namespace) -> str:
        file = hub.local(args.weights)
        return table(read(file.path)[0], args.model, file.preprocess)

    return tell("ncjax.weights", parser, argv, show)

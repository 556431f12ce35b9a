"""Reports: one self-contained page over any number of runs, with every table as CSV and LaTeX beside it."""

from ncjax.report.page import write

__all__ = ["write"]

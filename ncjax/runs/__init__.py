"""A run's folder: rows, records, resuming. `read` makes a table of any number of them."""

from ncjax.runs.table import read

__all__ = ["read"]

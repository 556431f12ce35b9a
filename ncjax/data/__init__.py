"""Labelled images: `load` a data set by name, then ask `source` for batches."""

from ncjax.data.load import Dataset, Split, load
from ncjax.data.pipeline import Source, repeated, source

__all__ = ["Dataset", "Source", "Split", "load", "repeated", "source"]

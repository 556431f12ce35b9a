"""Labelled images: `load` a data set by name, then ask `source` for batches."""

from ncjax.data.batches import Source, repeated, source
from ncjax.data.load import Dataset, Split, load

__all__ = ["Dataset", "Source", "Split", "load", "repeated", "source"]

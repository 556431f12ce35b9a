"""Labelled images: `load` a data set, then ask `batches_of` a split for batches."""

from ncjax.data.batches import Batches, batches_of, repeated
from ncjax.data.load import Data, Dataset, load
from ncjax.data.splits import Split

__all__ = ["Batches", "Data", "Dataset", "Split", "batches_of", "load", "repeated"]

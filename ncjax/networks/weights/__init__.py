"""Weights from anywhere: files of every kind, networks under the names that others gave them, downloads."""

from ncjax.networks.weights.files import SUFFIXES, is_own, read, sha256, write
from ncjax.networks.weights.foreign import (
    NO_CLASSES,
    Loaded,
    Match,
    classifier_of,
    export,
    has_classifier,
    load,
    match,
    module_of,
    table,
)
from ncjax.networks.weights.layouts import IMAGENET_MEAN, IMAGENET_STD, Layout, Preprocess

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NO_CLASSES",
    "SUFFIXES",
    "Layout",
    "Loaded",
    "Match",
    "Preprocess",
    "classifier_of",
    "export",
    "has_classifier",
    "is_own",
    "load",
    "match",
    "module_of",
    "read",
    "sha256",
    "table",
    "write",
]

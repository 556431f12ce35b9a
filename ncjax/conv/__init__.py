"""Convolutions by oneDNN on CPUs: an optional extra, see README.md beside this file."""

from ncjax.conv.onednn import as_xla, bfloat16, build, convolve, convolves, header, implementation, why_not

__all__ = ["as_xla", "bfloat16", "build", "convolve", "convolves", "header", "implementation", "why_not"]

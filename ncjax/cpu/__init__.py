"""Convolutions by oneDNN on CPUs: an optional extra, see README.md beside this file."""

from ncjax.cpu.onednn import build, convolve, implementation, why_not

__all__ = ["build", "convolve", "implementation", "why_not"]

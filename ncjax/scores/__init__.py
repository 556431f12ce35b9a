"""Transferability scores: one file each. `scores.logme` in a config is the function `logme` of `logme.py`."""

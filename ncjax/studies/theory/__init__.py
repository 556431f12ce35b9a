"""Toy models of the papers around ours: their predictions beside what a solver finds, a file each.

Arrays only, in float64. Each study's `run` returns "checks", what was predicted and what came out, and "curves", what its
figure draws; `checks` judges and shows them.
"""

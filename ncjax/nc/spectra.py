"""Ranks and spectra: how many directions features use.

From `ClassStats` that keep their scatter, or from the features themselves. Spectra are float64 throughout: singular values
are roots of a Gram matrix's eigenvalues, and float32 loses those below 3e-4 of the largest.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ncjax.core.errors import UserError
from ncjax.core.types import Array
from ncjax.nc.geometry import Geometry, double, geometry, undefined_unless
from ncjax.nc.metric import metric
from ncjax.nc.stats import ClassStats, matmul

SHARE = 0.95  # of the sum of singular values, for `numerical_rank_share`


class Spectrum(NamedTuple):
    """Singular values of a feature matrix H [N, D], largest first; one-example classes included. D^3 operations."""

    raw: Array  # [D] of H as it is
    centred: Array  # [D] of H less its mean row


class Ranks(NamedTuple):
    """Every measure of this file that class statistics give."""

    rankme: Array
    effective_rank: Array
    effective_rank_centred: Array
    stable_rank: Array
    stable_rank_centred: Array
    numerical_rank_share: Array
    vci: Array


def spectrum_of(stats: ClassStats) -> Spectrum:
    """The spectrum of all features seen; call it inside `double`.

    Raises:
      UserError: the statistics keep no scatter.
    """
    if stats.scatter is None:
        raise UserError("these statistics keep no scatter, so they have no spectrum: use empty(..., scatter=True)")
    count = jnp.maximum(jnp.sum(stats.count), 1)
    mean = stats.anchor + stats.shift
    middle = jnp.sum(stats.count[:, None] * mean, axis=0, keepdims=True) / count
    centred = jnp.sqrt(stats.count)[:, None] * (mean - middle)
    gram = stats.scatter + matmul(centred.T, centred)
    return Spectrum(centred=_singular(gram), raw=_singular(gram + count * matmul(middle.T, middle)))


@metric
def vci(g: Geometry, stats: ClassStats, spectrum: Spectrum) -> Array:
    """Variability collapse index, 1 - tr(S_T^+ S_B) / rank(S_B), S_T = S_W + S_B (Xu & Liu, 2023)."""
    between = matmul(g.basis * jnp.where(g.used, g.values, 0)[None, :], g.basis.T) / jnp.maximum(g.k, 1)
    assert stats.scatter is not None, "there is a spectrum only where there is a scatter"
    total = stats.scatter / jnp.maximum(g.total, 1) + between
    values, vectors = jnp.linalg.eigh(total)
    keep = values > values[-1] * values.shape[0] * float(jnp.finfo(jnp.float32).eps)  # the scatter is float32
    image = matmul(vectors.T, matmul(between, vectors))
    trace = jnp.sum(jnp.where(keep, jnp.diagonal(image) / jnp.where(keep, values, 1), 0))
    rank = jnp.sum(g.used.astype(g.k.dtype))
    return undefined_unless(rank > 0, 1 - trace / jnp.maximum(rank, 1))


@metric
def rankme(spectrum: Spectrum) -> Array:
    """RankMe, exp of the entropy of s_i / sum s + 1e-7 (Garrido et al., 2023): the effective rank, but for the constant."""
    share = spectrum.raw / jnp.sum(spectrum.raw) + 1e-7
    return jnp.exp(-jnp.sum(share * jnp.log(share)))


@metric
def effective_rank(spectrum: Spectrum) -> Array:
    """Effective rank, exp of the entropy of s_i / sum s of the features as they are (Roy & Vetterli, 2007)."""
    return _entropy_rank(spectrum.raw)


@metric
def effective_rank_centred(spectrum: Spectrum) -> Array:
    """Effective rank of the features less their mean."""
    return _entropy_rank(spectrum.centred)


@metric
def stable_rank(spectrum: Spectrum) -> Array:
    """Stable rank, ||H||_F^2 / ||H||_2^2 = sum s_i^2 / s_1^2 of the features as they are (Rudelson & Vershynin, 2007)."""
    return jnp.sum(jnp.square(spectrum.raw)) / jnp.square(spectrum.raw[0])


@metric
def stable_rank_centred(spectrum: Spectrum) -> Array:
    """Stable rank of the features less their mean."""
    return jnp.sum(jnp.square(spectrum.centred)) / jnp.square(spectrum.centred[0])


def numerical_rank(features: Array, labels: Array) -> float:
    """Numerical rank, (1/K) sum_k ||H_k||_*^2 / ||H_k||_F^2, over classes with two examples or more.

    H_k [n_k, D] are the features of class k as they are; ||.||_* is the sum of singular values. Between 1 and
    min(n_k, D). Float64 on the host, one class at a time.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    found = []
    for label in np.unique(labels):
        own = features[labels == label].astype(np.float64)
        if len(own) < 2:
            continue
        values = np.linalg.eigvalsh(own @ own.T if len(own) < own.shape[1] else own.T @ own)
        total = np.sum(np.square(own))
        found.append(np.square(np.sum(np.sqrt(np.maximum(values, 0)))) / total if total > 0 else np.nan)
    return float(np.mean(found)) if found else float("nan")


@metric
def numerical_rank_share(spectrum: Spectrum) -> Array:
    """Directions that hold 95 % of the spectrum: smallest r whose top r singular values reach that share of their sum."""
    short = jnp.cumsum(spectrum.raw) < SHARE * jnp.sum(spectrum.raw) * (1 - 1e-12)
    return (jnp.sum(short) + 1).astype(spectrum.raw.dtype)


@double
def ranks(stats: ClassStats) -> Ranks:
    """Spectral measures of all features seen, one-example classes included (but for VCI). D^3 operations.

    Raises:
      UserError: the statistics keep no scatter.
    """
    spectrum = spectrum_of(stats)
    return Ranks(
        rankme=rankme.of(spectrum),
        effective_rank=effective_rank.of(spectrum),
        effective_rank_centred=effective_rank_centred.of(spectrum),
        stable_rank=stable_rank.of(spectrum),
        stable_rank_centred=stable_rank_centred.of(spectrum),
        numerical_rank_share=numerical_rank_share.of(spectrum),
        vci=vci.of(geometry(stats), stats, spectrum),
    )


def _entropy_rank(singular: Array) -> Array:
    share = singular / jnp.sum(singular)
    return jnp.exp(-jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0)))


def _singular(gram: Array) -> Array:
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[::-1], 0))

"""What a collapse metric is where labels carry no signal: its floor, and where a value stands among such draws.

Labels without signal do not give NC1 = infinity. Class means of n examples from features of covariance Sigma_T scatter
like N(0, Sigma_T / n), and NC1, which sees them as signal, is then about n (K - 1) / r with r = (tr Sigma_T)^2 / tr
Sigma_T^2, the participation ratio of the spectrum: real features, whose spectra are steep, have floors many times those of
isotropic ones. So a floor is drawn from the features at hand, on the host, the same bits every time, in one of two ways:

- Where there are features, by permuting the labels of all examples up to 1024, or 20 per class. Beyond that a draw takes so
  many of a sample twice that size (5120 at most where classes are more than 256, or 5 per class): class means of n'
  examples scatter as those of n times (n / n')^1/2, which is put right class by class.
- Where there is only the scatter, by rotating examples (Langsrud, 2005). Centred labels span K - 1 orthonormal directions
  in the space R^(N-1) of examples; permuting them turns these directions, and of uniformly random ones the products of
  class means depend on the eigenvalues of Sigma_T alone. That is exact for Gaussian features; directional CDNV has no such
  floor.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg, special
from threadpoolctl import ThreadpoolController

from ncjax.core.errors import UserError
from ncjax.core.machine import cores
from ncjax.nc.geometry import PAIRS_UP_TO, check_weighting
from ncjax.nc.stats import ClassStats

FLOORED = ("nc1", "cdnv", "trace_ratio", "directional_cdnv")
FEWEST, FEWEST_OF_MANY, MOST = 8, 3, 64  # draws; the second where classes are so many that each draw is precise
PRECISE = 0.02  # standard error of a floor, as a share, at which there are draws enough
ROWS, ROWS_A_CLASS, MOST_ROWS = 1024, 20, 5120  # of a draw; 5 a class where that is more than the last
FRESH = 512  # rows of the sample beyond those of the draw, in which its class means had no part
LOOKED_AT = 1024  # rows that the within-class covariance comes from where classes are more than `SMALL`
SMALL = 256  # classes up to which an eigendecomposition is cheap
ROUNDING = 1e-7  # eigenvalue of a float32 scatter, over the largest, that says nothing
CUT = 1e-12  # eigenvalue, over the largest, from which a direction of the class means counts

Draws = dict[str, np.ndarray]


class Draw(NamedTuple):
    """Class means about the mean of all examples, and the within-class covariance in their directions."""

    gram: Float[np.ndarray, "K K"]  # M M^T
    within: Float[np.ndarray, "K K"]  # M Sigma_W M^T
    toward: Float[np.ndarray, "K K"]  # (mu_k - mu_k')^T Sigma_k (mu_k - mu_k')
    variance: Float[np.ndarray, " K"]  # sigma_k^2


class Standing(NamedTuple):
    """Where a value stands among draws without signal."""

    floor: float  # median of the draws
    over: float  # the value over it
    p: float  # probability of as small a value where labels carry no signal


def _until_precise(draw: Callable[[], dict[str, float]], num_classes: int) -> Draws:
    """Draws until every floor is known to 2 %, or 64: wide layers and many classes take few, narrow layers many."""
    found: list[dict[str, float]] = []
    while len(found) < MOST:
        found.append(draw())
        if len(found) >= (FEWEST if num_classes <= SMALL else FEWEST_OF_MANY):
            values = np.array([list(f.values()) for f in found])
            defined = (values > 0) & np.isfinite(values)
            logs = np.log(np.where(defined, values, 1))[:, defined.all(axis=0)]
            if not (logs.std(axis=0, ddof=1) > PRECISE * np.sqrt(len(found))).any():
                break
    return {name: np.array([f[name] for f in found]) for name in FLOORED}


@functools.cache
def blas() -> ThreadpoolController:
    """Of the BLAS of NumPy, and of SciPy, which jaxlib calls: a controller knows what is loaded, and both are."""
    return ThreadpoolController()


def rows_of_a_draw(num_classes: int) -> int:
    """How many examples are permuted at most."""
    return max(ROWS, min(ROWS_A_CLASS * num_classes, MOST_ROWS), 5 * num_classes)


def choose_rows(size: int, num_classes: int) -> Int[np.ndarray, " M"]:
    """Which of so many examples to draw from, in order: all, or twice as many as a draw; random, and always the same."""
    draw = rows_of_a_draw(num_classes)
    return np.arange(size) if 2 * draw >= size else np.sort(np.random.default_rng(0).choice(size, 2 * draw, replace=False))


def of_usable_classes(labels: Int[np.ndarray, " M"], counts: np.ndarray) -> np.ndarray:
    """[M] booleans: rows whose class has two examples or more among all (`counts` [K])."""
    inside = (labels >= 0) & (labels < len(counts))
    return inside & (np.asarray(counts)[np.where(inside, labels, 0)] >= 2)


def _sizes(counts: np.ndarray, rows: int) -> np.ndarray:
    """Class sizes in proportion to `counts`, two at least, `rows` in all."""
    if rows == counts.sum():
        return counts.astype(int)
    exact = counts * rows / counts.sum()
    sizes = np.maximum(np.floor(exact).astype(int), 2)
    short = rows - sizes.sum()
    if short > 0:
        sizes[np.argsort(-(exact - sizes), kind="stable")[:short]] += 1
    while sizes.sum() > rows:  # small classes were given two
        sizes[np.argmax(sizes)] -= 1
    return sizes


def permuted(
    sample: Float[np.ndarray, "M D"], counts: Int[np.ndarray, " K"], *, weighting: str = "class", seed: int = 0
) -> Draws:
    """Metrics of features under permuted labels.

    Args:
      sample: features of the usable classes: all of them, or those of the rows that `choose_rows` chooses.
      counts: examples of each usable class, two or more each, of which the floor is wanted.
      weighting: as for `ncjax.nc.nc1`.
      seed: of the permutations.

    Raises:
      UserError: fewer rows than two a class, or more than there are examples.
    """
    rng, num_classes, counts = np.random.default_rng(seed), len(counts), np.asarray(counts)
    total, size = int(counts.sum()), len(sample)
    if not 2 * num_classes <= size <= total:
        raise UserError(
            f"sample has {size} rows: expected those of all {total} examples, or of those that ncjax.nc.null.choose_rows "
            "chooses"
        )
    rows = min(size, rows_of_a_draw(num_classes))
    sizes = _sizes(counts, rows)
    features = np.asarray(sample, np.float32)
    features = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    features = features / max(np.abs(features).max(), np.finfo(np.float32).tiny)  # no metric sees the scale
    squares = np.einsum("nd,nd->n", features, features, dtype=np.float64)
    starts, owner = np.cumsum(sizes) - sizes, np.repeat(np.arange(num_classes), sizes)
    # What a mean or a covariance of n' examples lacks or has too much, beside those of n; 1 where all take part.
    stretch = np.sqrt(sizes / counts)  # of class means
    shrink = sizes / (sizes - 1) * (counts - 1) / counts  # of class covariances
    pooled = rows / (rows - num_classes) * (total - num_classes) / total
    share = rows / total

    def draw() -> dict[str, float]:
        order = rng.permutation(size)
        mine, fresh = features[order[:rows]], features[order[rows : rows + FRESH]]
        average = np.zeros((num_classes, rows), np.float32)
        average[owner, np.arange(rows)] = stretch[owner] / sizes[owner]
        means = average @ mine
        seen = np.arange(rows) if num_classes <= SMALL else np.sort(rng.choice(rows, min(rows, LOOKED_AT), replace=False))
        along = (mine[seen] @ means.T).astype(np.float64)  # h . mu_k
        means = means.astype(np.float64)
        gram, own = means @ means.T, owner[seen]
        along -= (gram / stretch[:, None])[own]  # r . mu_k
        within, other = pooled * along.T @ along / len(seen), None
        if len(fresh):  # examples vary along a mean that they are part of more than others do, the more the fewer they are
            apart = (fresh @ means.T.astype(np.float32)).astype(np.float64)
            other = apart.T @ apart / len(fresh)
            within = share * within + (1 - share) * (total - num_classes) / total * other
        toward = np.full_like(gram, np.nan)
        if num_classes <= SMALL:
            away = np.square(np.take_along_axis(along, own[:, None], axis=1) - along)
            toward = shrink[:, None] * np.add.reduceat(away, starts, axis=0) / sizes[:, None]
            if other is not None:
                toward = share * toward + (1 - share) * ((counts - 1) / counts)[:, None] * _of_differences(other)
        spread = np.add.reduceat(squares[order[:rows]], starts) / sizes - np.diag(gram) / np.square(stretch)
        return _metrics(Draw(gram=gram, within=within, toward=toward, variance=shrink * spread), counts, weighting)

    return _until_precise(draw, num_classes)


def rotated(
    eigenvalues: Float[np.ndarray, " D"], counts: Int[np.ndarray, " K"], *, weighting: str = "class", seed: int = 0
) -> Draws:
    """Metrics of class means that point into uniformly random directions of the space of examples.

    Args:
      eigenvalues: of Sigma_T = (1/N) sum_i (h_i - mu)(h_i - mu)^T, over the examples of the usable classes.
      counts, weighting, seed: as for `permuted`.

    Returns:
      As `permuted`, but no directional CDNV (NaN).
    """
    rng, counts = np.random.default_rng(seed), np.asarray(counts, np.float64)
    total, directions = counts.sum(), len(counts) - 1
    spectrum = np.sort(eigenvalues)[::-1][: int(total) - 1]
    spectrum = spectrum[spectrum > ROUNDING * spectrum[0]]
    rank = len(spectrum)
    # M = diag(n)^-1/2 C Z diag(N spectrum)^1/2: C [K, K - 1] spans what is orthogonal to (n / N)^1/2, Z is Haar.
    contrasts = linalg.null_space(np.sqrt(counts / total)[None, :]) / np.sqrt(counts)[:, None]

    def draw() -> dict[str, float]:
        inside = rng.normal(size=(directions, rank))
        outside = _wishart_root(rng, directions, int(total) - 1 - rank)
        root = np.linalg.cholesky(inside @ inside.T + outside @ outside.T)
        frame = linalg.solve_triangular(root, inside, lower=True)  # [K - 1, rank] of an orthonormal [K - 1, N - 1]
        means = contrasts @ (frame * np.sqrt(total * spectrum))
        gram = means @ means.T
        within = (means * spectrum) @ means.T - gram @ ((counts / total)[:, None] * gram)
        toward = np.full_like(within, np.nan)  # what it is depends on more than the spectrum
        variance = spectrum.sum() - np.diag(gram)
        return _metrics(Draw(gram=gram, within=within, toward=toward, variance=variance), counts, weighting)

    return _until_precise(draw, len(counts))


def _of_differences(products: np.ndarray) -> np.ndarray:
    """[K, K] (x_k - x_k')^T S (x_k - x_k') from x_k^T S x_k'."""
    own = np.diag(products)
    return own[:, None] + own[None, :] - 2 * products


def _wishart_root(rng: np.random.Generator, size: int, freedom: int) -> np.ndarray:
    """L [size, .] with L L^T the sum of `freedom` squares g g^T of standard Gaussians (Bartlett's decomposition)."""
    columns = min(size, freedom)
    root = np.tril(rng.normal(size=(size, columns)), -1)
    np.fill_diagonal(root, np.sqrt(rng.chisquare(freedom - np.arange(columns))) if columns else 0.0)
    return root


def _metrics(draw: Draw, sizes: np.ndarray, weighting: str) -> dict[str, float]:
    """The metrics of `ncjax.nc.metrics`, from products of class means."""
    num_classes = len(sizes)
    share = np.full(num_classes, 1 / num_classes) if weighting == "class" else sizes / sizes.sum()
    scale = np.sqrt(num_classes * share)

    def centred(products: np.ndarray) -> np.ndarray:  # those of scale (mu_k - mu_G)
        products = products - share @ products
        products = products - (products @ share)[:, None]
        return scale[:, None] * products * scale[None, :]

    gram = centred(draw.gram)
    pair = ~np.eye(num_classes, dtype=bool)
    apart = _of_differences(draw.gram)[pair]
    both = (draw.variance[:, None] + draw.variance[None, :])[pair]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "nc1": _trace_of_inverse_square(gram, centred(draw.within), scale),
            "cdnv": float(np.mean(both / (2 * apart))),
            "trace_ratio": float(sizes @ draw.variance / sizes.sum() / (np.trace(gram) / num_classes)),
            "directional_cdnv": float(np.mean(draw.toward[pair] / np.square(apart))),
        }


def _trace_of_inverse_square(gram: np.ndarray, within: np.ndarray, null: np.ndarray) -> float:
    """tr (G^+)^2 W: NC1 of centred class means M with G = M M^T and W = M Sigma_W M^T; `null` [K] is in the kernel of G."""
    if len(gram) > SMALL:  # a factorisation is an order cheaper than eigenvectors, where the rank is full
        unit = null / np.linalg.norm(null)
        try:
            factor = linalg.cho_factor(gram + np.trace(gram) / len(gram) * np.outer(unit, unit), lower=True)
            if np.square(np.diag(factor[0]).min() / np.diag(factor[0]).max()) > np.sqrt(CUT):
                return float(np.trace(linalg.cho_solve(factor, linalg.cho_solve(factor, within).T)))
        except linalg.LinAlgError:
            pass
    values, vectors = np.linalg.eigh(gram)
    used = values > CUT * values[-1]
    values, vectors = values[used], vectors[:, used]
    return float(np.sum(np.einsum("ki,ki->i", vectors, within @ vectors) / np.square(values)))


def total_spectrum(seen: ClassStats) -> Float[np.ndarray, " D"]:
    """Eigenvalues of Sigma_T over usable classes, from the scatter, to which the others, of one example, add nothing."""
    assert seen.scatter is not None, "the spectrum is in the scatter"
    counts = np.asarray(seen.count, np.float64)
    counts = np.where(counts >= 2, counts, 0)
    means = np.asarray(seen.anchor, np.float64) + np.asarray(seen.shift, np.float64)
    total = max(counts.sum(), 1)
    means = means - counts @ means / total
    return np.linalg.eigvalsh((np.asarray(seen.scatter, np.float64) + (means.T * counts) @ means) / total)


def null_draws(seen: ClassStats, sample: np.ndarray | None = None, *, weighting: str = "class") -> Draws:
    """Draws of each metric without signal, from a sample of the features or else from the scatter.

    {} with neither, or beyond 4096 classes, whose products with one another would fill the memory.

    Args:
      seen: statistics of all features.
      sample: rows of the features that `choose_rows` chooses, or all of them; of usable classes.
      weighting: as for `ncjax.nc.nc1`.

    Raises:
      UserError: as for `permuted`, or the sample is of another width.
    """
    with _blas_for(len(seen.count)):
        return _draws((seen, sample), weighting)


def null_draws_of(several: Sequence[tuple[ClassStats, np.ndarray | None]], *, weighting: str = "class") -> list[Draws]:
    """`null_draws` of several layers, side by side on the processors there are: the same numbers.

    Args:
      several: statistics and sample of each, as for `null_draws`; of one number of classes.
      weighting: as for `null_draws`.
    """
    classes = max((len(seen.count) for seen, _ in several), default=0)
    aside = min(len(several), cores())
    with _blas_for(classes):
        if aside < 2 or classes > SMALL:
            return [_draws(one, weighting) for one in several]
        with ThreadPoolExecutor(aside, thread_name_prefix="floors") as pool:
            return list(pool.map(functools.partial(_draws, weighting=weighting), several))


def _blas_for(num_classes: int) -> contextlib.AbstractContextManager[Any]:
    """Products of few classes are small, and faster with one thread."""
    return blas().limit(limits=1, user_api="blas") if num_classes <= SMALL else contextlib.nullcontext()


def _draws(of: tuple[ClassStats, np.ndarray | None], weighting: str) -> Draws:
    check_weighting(weighting)
    seen, sample = of
    counts = np.asarray(seen.count, np.int64)
    counts = counts[counts >= 2]
    if len(counts) < 2 or len(seen.count) > PAIRS_UP_TO:
        return {}
    if sample is None:
        return rotated(total_spectrum(seen), counts, weighting=weighting) if seen.scatter is not None else {}
    if np.ndim(sample) != 2 or np.shape(sample)[1] != seen.anchor.shape[1]:
        raise UserError(f"sample is {list(np.shape(sample))}, expected rows of {seen.anchor.shape[1]} features")
    return permuted(sample, counts, weighting=weighting)


def standing(value: float, draws: np.ndarray) -> Standing:
    """Where a value stands among draws, of which those that are not defined are left out if they are fewer than half.

    The logarithms of d draws are taken as Gaussian with mean m and deviation s, so that of a further one (log x - m) / (s
    sqrt(1 + 1/d)) is Student's t with d - 1 degrees of freedom.
    """
    defined = np.isfinite(draws) & (draws > 0)
    if 2 * defined.sum() <= len(draws) or defined.sum() < 2:
        return Standing(np.nan, np.nan, np.nan)
    logs = np.log(draws[defined])
    floor = float(np.exp(np.median(logs)))
    if not value >= 0:
        return Standing(floor, np.nan, np.nan)
    deviation = logs.std(ddof=1) * np.sqrt(1 + 1 / len(logs))
    score = (np.log(value) - logs.mean()) / max(deviation, 1e-12) if value > 0 else -np.inf
    return Standing(floor, value / floor, float(special.stdtr(len(logs) - 1, score)))


class Floors(NamedTuple):
    """What each metric is expected to be for features that do not know their labels; NaN where it cannot be had."""

    nc1: float
    cdnv: float
    trace_ratio: float
    directional_cdnv: float


def floors(seen: ClassStats, sample: np.ndarray | None = None, *, weighting: str = "class") -> Floors:
    """The floor of each metric for these features: the median of `null_draws`.

    Args:
      seen: statistics of the features, with their scatter where there is no sample.
      sample: all features [N, D], or the rows that `choose_rows` chooses.
      weighting: as for `ncjax.nc.nc1`.
    """
    draws = null_draws(seen, sample, weighting=weighting)
    return Floors(**{name: standing(np.nan, draws[name]).floor if draws else np.nan for name in FLOORED})

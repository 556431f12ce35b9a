"""Every score against a plain float64 transcription of its equation, on random, steep, collapsed and wide features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import spearmanr
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.mixture import GaussianMixture

from ncjax import nc
from ncjax.core.errors import UserError
from ncjax.scores import score
from ncjax.scores.moments import Moments

K = 4


def random(rng, n=160, d=12):
    y = rng.permutation(np.arange(n) % K)
    return (rng.normal(size=(K, d))[y] + rng.normal(size=(n, d))).astype(np.float32), y


def steep(rng):
    x, y = random(rng)
    return (x * np.arange(1, 13) ** -2.5).astype(np.float32), y


def collapsed(rng):
    y = np.arange(160) % K
    return (10 * rng.normal(size=(K, 12))[y] + 0.01 * rng.normal(size=(160, 12))).astype(np.float32), y


def uneven(rng):
    x, y = random(rng)
    kept = (y > 0) | (np.arange(len(y)) < 30)
    return x[kept], y[kept]


def degenerate(rng):
    """Features of a subspace, and every row twice."""
    x, y = random(rng, n=80)
    x[:, 6:] = x[:, :6] @ rng.normal(size=(6, 6)).astype(np.float32)
    return np.concatenate([x, x]), np.concatenate([y, y])


def wide(rng):
    return random(rng, n=40, d=60)


FEATURES = {f.__name__: f for f in (random, steep, collapsed, uneven, degenerate, wide)}


def eigen(gram, size):
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * size * np.finfo(float).eps
    return values[kept], vectors[:, kept]


def pinv(gram, size):
    values, vectors = eigen(gram, size)
    return vectors / values @ vectors.T


def between(x, y):
    return np.stack([x[y == k].mean(0) for k in y]) - x.mean(0)


def h_score(x, y):
    centred, g = x - x.mean(0), between(x, y)
    return np.trace(pinv(centred.T @ centred, max(x.shape)) @ g.T @ g)


def h_score_regularised(x, y):
    shrunk = LedoitWolf().fit(x)
    g = between(x, y)
    return np.trace(np.linalg.inv(shrunk.covariance_) @ ((1 - shrunk.shrinkage_) * g.T @ g / (len(x) - 1)))


def logme(x, y):
    """The evidence by N x N determinants, at the fixed point of a plain iteration."""
    n, d = x.shape
    found = []
    for k in np.unique(y):
        t, a, b = (y == k).astype(float), 1.0, 1.0
        for _ in range(3000):
            precision = a * np.eye(d) + b * x.T @ x
            m = b * np.linalg.solve(precision, x.T @ t)
            gamma = d - a * np.trace(np.linalg.inv(precision))
            a, b = gamma / (m @ m), (n - gamma) / np.square(t - x @ m).sum()
        c = x @ x.T / a + np.eye(n) / b
        found.append(-0.5 * (np.linalg.slogdet(c)[1] + t @ np.linalg.solve(c, t) + n * np.log(2 * np.pi)) / n)
    return np.mean(found)


def transrate(x, y, e=1e-4):
    def rate(z):
        return 0.5 * np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * e))[1]

    z = x - x.mean(0)
    return rate(z) - np.mean([rate(z[y == k]) for k in np.unique(y)])


def projected(x, components):
    x = x - x.mean(0)
    values, vectors = eigen(x.T @ x, max(x.shape))
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(values))])
    return x @ vectors[:, ::-1][:, :components]


def coefficients(x, y, spherical=True):
    x, out = projected(x, 64), []
    ks = np.unique(y)
    for a in ks:
        for b in ks:
            va, vb = (np.maximum(x[y == k].var(0), 1e-4) for k in (a, b))
            if spherical:
                va, vb = (np.full(x.shape[1], v.mean()) for v in (va, vb))
            s = (va + vb) / 2
            far = np.sum((x[y == a].mean(0) - x[y == b].mean(0)) ** 2 / s) / 8
            out.append(np.exp(-far - 0.5 * (np.log(s) - (np.log(va) + np.log(vb)) / 2).sum()))
    return np.reshape(out, (len(ks), len(ks)))


def gbc(x, y):
    b = coefficients(x, y)
    return -(b.sum() - np.trace(b))


def face_fairness(x, y):
    b = coefficients(x, y)
    each = []
    for k, row in enumerate(b):
        p = softmax(np.delete(row, k) / 0.05)
        each.append(-np.sum(p[p > 0] * np.log(p[p > 0])) / np.log(len(p)))
    return np.mean(each)


def vci(x, y):
    means = np.stack([x[y == k].mean(0) for k in np.unique(y)])
    b = np.cov(means.T, bias=True)
    w = np.cov((x - np.stack([means[np.searchsorted(np.unique(y), k)] for k in y])).T, bias=True)
    return 1 - np.trace(pinv(w + b, max(x.shape)) @ b) / (len(means) - 1)


def lidar(x, y, d=1e-4):
    means = np.stack([x[y == k].mean(0) for k in np.unique(y)])
    w = np.cov((x - np.stack([means[np.searchsorted(np.unique(y), k)] for k in y])).T, bias=True)
    values, vectors = np.linalg.eigh(w + d * np.eye(len(w)))
    root = vectors / np.sqrt(values) @ vectors.T
    found = np.maximum(np.linalg.eigvalsh(root @ np.cov(means.T, bias=True) @ root), 0)
    p = found / found.sum() + 1e-7
    return np.exp(-(p * np.log(p)).sum())


def rankme(x, y):
    s = np.linalg.svd(x, compute_uv=False)
    p = s / s.sum() + 1e-7
    return np.exp(-(p * np.log(p)).sum())


def parc(x, y):
    x = projected(x, 32)
    x = (x - x.mean(0)) / x.std(0)
    upper = np.triu_indices(len(x), 1)
    one_hot = np.eye(K)[y]
    return spearmanr((1 - np.corrcoef(x))[upper], (1 - np.corrcoef(one_hot))[upper]).statistic


def ncti(x, y):
    x = projected(x, 64)
    shrinkage = max(np.exp(-x.var(0, ddof=1)[:32].sum()), 1e-10)
    kind = {"solver": "svd"} if shrinkage == 1e-10 else {"solver": "eigen", "shrinkage": shrinkage}
    lda = LinearDiscriminantAnalysis(**kind)
    low = lda.fit_transform(x, y)
    p = lda.predict_proba(x)
    compact = np.log(sum(np.linalg.norm(p[y == k], ord="nuc") for k in np.unique(y)))
    columns = np.searchsorted(np.unique(y), y)
    return np.linalg.norm(low - low.mean(0), ord="nuc"), p[np.arange(len(y)), columns].mean(), compact


def sfda(x, y):
    def discriminant(x, s):
        ks, n = np.unique(y, return_counts=True)
        means = np.stack([x[y == k].mean(0) for k in ks])
        w = sum(c / len(y) * np.cov(x[y == k].T, bias=True) for k, c in zip(ks, n, strict=True))
        if s is None:
            s = max(np.exp(-5 * np.linalg.eigvalsh(w)[-1]), 1e-10)
        w = (1 - s) * w + s * np.trace(w) / len(w) * np.eye(len(w))
        weight = np.linalg.solve(w, means.T).T
        return softmax(x @ weight.T - 0.5 * np.diag(means @ weight.T) + np.log(n / len(y)), axis=1), means, s

    own = np.arange(len(y)), np.searchsorted(np.unique(y), y)
    p, means, s = discriminant(x, None)
    right = softmax(p, axis=1)[own][:, None]
    others = (means.sum(0) - means) / (len(means) - 1)
    harder = right * x + (1 - right) * others[own[1]]
    return discriminant(harder, s)[0][own].mean()


REFERENCES = {
    f.__name__: f for f in (h_score, h_score_regularised, transrate, gbc, face_fairness, vci, lidar, rankme, parc, sfda)
}
REFUSED = {("h_score", "wide"), ("sfda", "wide"), ("vci", "wide")}


def of(name, x, y, **more):
    """(value, reason) of a score of features."""
    wanted = {name: score.named(f"scores.{name}")}
    inputs = {"features": x, "labels": y, "num_classes": K, "report": nc.measure(x, y), **more}
    values, reasons = score.applied(wanted, inputs)
    return values[name], reasons.get(name, "")


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("name", REFERENCES)
def test_against_its_equation(rng, name, kind):
    x, y = FEATURES[kind](rng)
    value, reason = of(name, x, y)
    if (name, kind) in REFUSED:
        assert value is None
        assert "whatever" in reason
        return
    assert value == pytest.approx(REFERENCES[name](x.astype(np.float64), y), rel=2e-5, abs=1e-9), reason


@pytest.mark.parametrize("kind", ["random", "uneven"])
def test_logme_is_the_evidence_at_its_fixed_point(rng, kind):
    x, y = FEATURES[kind](rng)
    assert of("logme", x, y)[0] == pytest.approx(logme(x.astype(np.float64), y), rel=1e-6)


def test_logme_of_wide_features_is_that_of_the_same_in_fewer_directions(rng):
    x, y = wide(rng)
    narrow = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    assert of("logme", x, y)[0] == pytest.approx(of("logme", narrow[0] * narrow[1], y)[0], rel=1e-6)
    assert of("logme", np.concatenate([x] * 2, 1), y)[0] == pytest.approx(of("logme", np.sqrt(2) * x, y)[0], rel=1e-5)


@pytest.mark.parametrize("kind", ["random", "collapsed", "uneven", "wide"])
def test_ncti_is_its_three_terms(rng, kind):
    x, y = FEATURES[kind](rng)
    wanted = ncti(x.astype(np.float64), y)
    found = [of(f"ncti_{t}", x, y)[0] for t in ("features", "confidence", "compactness")]
    assert found == pytest.approx(wanted, rel=1e-5)


def test_gbc_of_diagonal_gaussians_and_of_its_equation_in_closed_form(rng):
    x, y = random(rng)
    m = Moments(x, y)
    gbc_of = score.named("scores.gbc(covariance='diagonal')").function
    b = coefficients(x.astype(np.float64), y, spherical=False)
    assert gbc_of(features=x, moments=m) == pytest.approx(-(b.sum() - np.trace(b)))


def test_scores_of_source_predictions(rng):
    _, y = random(rng)
    logits = 3 * rng.normal(size=(len(y), 7))
    logits[:, 6] = -1e4  # a source class that is never seen
    p = softmax(logits, axis=1)
    joint = np.stack([p[y == k].sum(0) for k in range(K)]) / len(y)
    given = joint[:, :6] / joint[:, :6].sum(0)
    wanted = np.mean([np.log(p[i, :6] @ given[:, :][y[i]]) for i in range(len(y))])
    assert score.named("scores.leep").function(source_logits=logits, labels=y) == pytest.approx(wanted)
    decided = logits.argmax(1)
    counts = np.array([[np.mean((decided == z) & (y == k)) for z in range(7)] for k in range(K)])
    conditional = counts / np.where(counts.sum(0) > 0, counts.sum(0), 1)
    entropy = -np.sum(counts[counts > 0] * np.log(conditional[counts > 0]))
    assert score.named("scores.nce").function(source_logits=logits, labels=y) == pytest.approx(-entropy)
    assert score.named("scores.energy").function(source_logits=logits) == pytest.approx(logsumexp(logits, axis=1).mean())


def test_leep_and_nce_know_what_they_are_worth():
    y = np.arange(40) % 4
    told = 50.0 * np.eye(4)[y]
    for name in ("leep", "nce"):
        function = score.named(f"scores.{name}").function
        assert function(source_logits=told, labels=y) == pytest.approx(0, abs=1e-12)
        assert function(source_logits=np.zeros((40, 4)), labels=y) == pytest.approx(-np.log(4))


@score.score(label="moody", higher_is_better=True, seeds=2)
def moody(features, seed=0):
    if seed:
        raise UserError("not with this seed")
    return 1.0


@score.score(label="rigid", higher_is_better=True, seeds=2)
def rigid(features):
    return 1.0


def test_nleep_is_leep_of_a_mixture_and_says_what_it_depends_on(rng):
    x, y = random(rng)
    kept = PCA(n_components=0.8).fit_transform(x.astype(np.float64))
    found = [of("nleep", x, y)[0], *(score.named(f"scores.nleep(seed={s})") for s in (1, 2))]
    p = GaussianMixture(20, random_state=0).fit(kept).predict_proba(kept)
    joint = np.stack([p[y == k].sum(0) for k in range(K)]) / len(y)
    wanted = np.mean(np.log(np.einsum("nz,nz->n", p, (joint / joint.sum(0))[y])))
    assert found[0] == pytest.approx(wanted, rel=1e-4)
    others = [f.function(features=x, labels=y, moments=Moments(x, y)) for f in found[1:]]
    assert len({found[0], *others}) == 3
    spreads: dict[str, float] = {}
    inputs = {"features": x, "labels": y}
    both = score.all_named(["scores.nleep", "scores.h_score"])
    values, _ = score.applied(both, inputs, spreads=spreads)
    further = [score.named(f"scores.nleep(seed={score.FURTHER + s})") for s in range(3)]
    others = [f.function(features=x, labels=y, moments=Moments(x, y)) for f in further]
    assert values["nleep"] == found[0]
    assert spreads == {"nleep": pytest.approx(np.std(others, ddof=1))}

    spreads.clear()
    values, reasons = score.applied(score.all_named([f"{__file__}:moody"]), inputs, spreads=spreads)
    assert (values, spreads) == ({"moody": None}, {})
    assert "not with this seed" in reasons["moody"]

    with pytest.raises(UserError, match="takes no seed"):
        score.named(f"{__file__}:rigid")
    assert "at least two for each" in of("nleep", x[:39], y[:39])[1]


def test_nearest_class_means_and_one_width(rng):
    x, y = random(rng)
    means = np.stack([x[y == k].mean(0) for k in range(K)])
    nearest = ((x[:, None] - means) ** 2).sum(2).argmin(1)
    assert of("ncm_accuracy", x, y, val_features=x, val_labels=y)[0] == pytest.approx((nearest == y).mean())
    rotated = x @ np.linalg.qr(rng.normal(size=(12, 12)))[0].astype(np.float32)
    function = score.named("scores.nc1_pca(components=12)").function
    full = function(features=rotated, labels=y, num_classes=K)
    assert full == pytest.approx(float(nc.measure(x, y).nc1), rel=1e-3)
    assert function(features=x[:, :12] * 1.0, labels=y, num_classes=K) == pytest.approx(full, rel=1e-3)
    assert "principal components" in of("nc1_pca", x, y)[1]


ROTATED = ("h_score", "h_score_regularised", "logme", "transrate", "gbc", "face_fairness", "vci", "lidar", "rankme", "sfda")


@pytest.mark.parametrize("name", ROTATED)
@pytest.mark.parametrize("kind", ["random", "wide"])
def test_invariant_to_rotation_and_to_the_names_of_classes(rng, name, kind):
    x, y = FEATURES[kind](rng)
    before = of(name, x, y)[0]
    turned = (x.astype(np.float64) @ np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0]).astype(np.float64)
    renamed = np.array([2, 0, 3, 1])[y]
    after = of(name, turned, renamed)[0]
    assert (before is None) == (after is None)
    assert after is None or after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("name", ["h_score", "h_score_regularised", "vci", "rankme", "parc"])
def test_invariant_to_scale(rng, name):
    x, y = random(rng)
    assert of(name, 100 * x, y)[0] == pytest.approx(of(name, x, y)[0], rel=1e-5)


@pytest.mark.parametrize("name", [*REFERENCES, "logme", "nleep", "ncti_features", "ncti_confidence", "face_variance"])
@pytest.mark.parametrize("fault", ["constant", "one class", "nan", "absent"])
def test_a_number_or_a_reason_never_a_silent_one(rng, name, fault):
    x, y = random(rng)
    if fault == "constant":
        x = np.ones_like(x)
    if fault == "one class":
        y = np.zeros_like(y)
    if fault == "absent":
        kept = y != 1
        x, y = x[kept], y[kept]
    inputs = {"features": x, "labels": y, "num_classes": K}
    if fault != "one class":
        inputs["report"] = nc.measure(x, y, num_classes=K)
    if fault == "nan":
        inputs["features"] = np.where(np.arange(12) == 3, np.nan, x)
    values, reasons = score.applied({name: score.named(f"scores.{name}")}, inputs)
    if fault == "absent":
        assert np.isfinite(values[name])
    elif name != "face_variance" or fault != "nan":  # that one reads a report, which was made of sound features
        assert (values[name] is None) == (name in reasons)
        assert values[name] is None or fault == "constant"


def test_a_score_over_a_pool_depends_on_the_pool():
    wanted = score.all_named(["scores.face"])
    assert list(wanted) == ["face_variance", "face_fairness", "face"]
    values = {
        n: {"face_variance": v, "face_fairness": f} for n, v, f in (("a", -3.0, 0.2), ("b", -1.0, 0.6), ("c", -2.0, 1.0))
    }
    found = score.complete(wanted, values)
    assert [found[n]["face"] for n in "abc"] == [0.0, 1.5, 1.5]
    values["c"]["face_fairness"] = None
    found = score.complete(wanted, values)
    assert [found[n].get("face") for n in "abc"] == [0.0, 2.0, None]
    assert score.complete(score.all_named(["scores.ncti"]), {"a": {}}) == {"a": {}}
    with pytest.raises(UserError, match="asks for"):
        score.named(f"{__file__}:strange")


@score.pooled(label="strange", higher_is_better=True)
def strange(no_such_score):
    return no_such_score


def test_what_a_library_cannot_take_is_a_reason(rng):
    x, y = random(rng, n=300, d=200)
    assert np.isfinite(of("nleep", 1e5 * x, y)[0])  # a mixture adds 1e-6 to variances
    few, labels = random(rng, n=4)
    wanted = score.all_named(["scores.ncti_features"])
    assert "none has two" in score.applied(wanted, {"features": few, "labels": labels})[1]["ncti_features"]

    @score.score(label="broken", higher_is_better=True)
    def broken(features):
        raise np.linalg.LinAlgError("singular\nmatrix")

    each = score.Score("broken", "broken", True, broken, ("features",), ())
    values, reasons = score.applied({"broken": each}, {"features": x})
    assert (values["broken"], reasons["broken"]) == (None, "singular")


def test_two_scores_of_one_name_or_label_are_told_apart(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from ncjax.scores.score import score\n\n"
        "@score(label='NC1', higher_is_better=False)\ndef mine(report):\n    return 0.0\n\n\n"
        "@score(label='FaCe, class fairness', higher_is_better=True)\ndef fair(report):\n    return 0.0\n"
    )
    with pytest.raises(UserError, match="two are called 'nc1'"):
        score.all_named(["scores.nc1", "scores.nc1"])
    with pytest.raises(UserError, match="nc1 and mine are both labelled 'NC1'"):
        score.all_named(["scores.nc1", f"{own}:mine"])
    with pytest.raises(UserError, match="face_fairness and fair are both labelled"):
        score.all_named([f"{own}:fair", "scores.face"])  # which is made of that one

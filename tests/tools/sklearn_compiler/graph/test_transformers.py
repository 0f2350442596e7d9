"""Each transformer of the graph with its options, against scikit-learn's own: the sample, other rows, one row."""

import warnings

import numpy as np
import pytest
from sklearn.cluster import FeatureAgglomeration, KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA, FactorAnalysis, FastICA, IncrementalPCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next import work
from sklearn.impute import IterativeImputer
from sklearn.kernel_approximation import AdditiveChi2Sampler, Nystroem, RBFSampler, SkewedChi2Sampler
from sklearn.linear_model import Lasso, LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import KernelCenterer, StandardScaler
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.tree import DecisionTreeRegressor
from spox import Tensor, argument, build

from penstock_server.errors import UnsupportedError
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.estimators import emit
from tests.server.compiled_models.graphs import session

ROWS, COLUMNS = 120, 5


@pytest.fixture(scope="module")
def rows():
    draw = np.random.default_rng(3)
    mixed = draw.normal(size=(ROWS, COLUMNS)) @ draw.normal(size=(COLUMNS, COLUMNS))
    return np.abs(mixed) + 0.25


class Graph:
    """What the graph of a fitted transformer gives."""

    def __init__(self, transformer, datatype="FP64"):
        self.dtype = np.dtype(np.float32 if datatype == "FP32" else np.float64)
        matrix = argument(Tensor(self.dtype, ("rows", transformer.n_features_in_)))
        context = Context(datatype, matrix, emit)
        model = build({"rows": matrix}, {"made": emit(transformer, matrix, context).features})
        self.session = session(model.SerializeToString())

    def __call__(self, rows):
        return self.session.run(["made"], {"rows": rows.astype(self.dtype)})[0]


def assert_equal(transformer, *asked):
    doubles, floats = Graph(transformer), Graph(transformer, "FP32")
    for rows in asked:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = transformer.transform(rows.copy())
        expected = expected.toarray() if hasattr(expected, "toarray") else expected
        scale = np.abs(expected).max()
        np.testing.assert_allclose(doubles(rows), expected, rtol=0, atol=1e-9 * scale)
        np.testing.assert_allclose(floats(rows), expected, rtol=0, atol=1e-4 * scale)


TRANSFORMERS = {
    "pca": PCA(3),
    "pca, whitened": PCA(whiten=True),
    "incremental pca": IncrementalPCA(2, whiten=True),
    "factors": FactorAnalysis(2),
    "independent": FastICA(3, random_state=0),
    "independent, not whitened": FastICA(whiten=False, random_state=0, max_iter=20),
    "svd": TruncatedSVD(2),
    "gaussian projection": GaussianRandomProjection(3, random_state=0),
    "sparse projection": SparseRandomProjection(3, random_state=0),
    "pooled": FeatureAgglomeration(2),
    "nystroem": Nystroem(n_components=20, random_state=0),
    "nystroem, gamma": Nystroem(gamma=0.3, n_components=20, random_state=0),
    "nystroem, poly": Nystroem("poly", degree=2, coef0=0.5, n_components=20, random_state=0),
    "nystroem, defaults of poly": Nystroem("polynomial", n_components=10, random_state=0),
    "nystroem, sigmoid": Nystroem("sigmoid", gamma=0.01, n_components=10, random_state=0),
    "nystroem, linear": Nystroem("linear", n_components=5, random_state=0),
    "nystroem, cosine": Nystroem("cosine", n_components=5, random_state=0),
    "nystroem, laplacian": Nystroem("laplacian", n_components=20, random_state=0),
    "kernel pca, linear": KernelPCA(2),
    "kernel pca, rbf": KernelPCA(3, kernel="rbf", gamma=0.1),
    "kernel pca, poly": KernelPCA(3, kernel="poly", degree=2),
    "kernel pca, cosine": KernelPCA(3, kernel="cosine"),
    "fourier": RBFSampler(gamma=0.2, n_components=30, random_state=0),
    "fourier, scale": RBFSampler(gamma="scale", random_state=0),
    "skewed": SkewedChi2Sampler(skewedness=0.5, n_components=20, random_state=0),
    "additive": AdditiveChi2Sampler(sample_steps=3),
    "additive, interval": AdditiveChi2Sampler(sample_steps=4, sample_interval=0.6),
    "one after another": make_pipeline(StandardScaler(), PCA(3), RBFSampler(random_state=0)),
}


@pytest.mark.long
@pytest.mark.parametrize("transformer", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_features_are_scikit_learns(transformer, rows):
    assert_equal(transformer.fit(rows), rows, rows[:1], rows * 2 + 0.1)


def test_zeros_stay_zeros(rows):
    assert_equal(AdditiveChi2Sampler().fit(rows), np.eye(COLUMNS))


def test_a_centred_kernel(rows):
    kernel = rows @ rows.T
    fitted = KernelCenterer().fit(kernel)
    np.testing.assert_allclose(Graph(fitted)(kernel), fitted.transform(kernel), atol=1e-9)


def with_gaps(rows, share, seed=0):
    holed = rows.copy()
    holed[np.random.default_rng(seed).random(rows.shape) < share] = np.nan
    # A row without a single value stops scikit-learn's rounds only if it is alone.
    holed[np.isnan(holed).all(axis=1), 0] = 1.0
    return holed


IMPUTERS = {
    "as it comes": IterativeImputer(random_state=0),
    "least squares, few rounds": IterativeImputer(LinearRegression(), max_iter=3),
    "ridge, limits": IterativeImputer(Ridge(), min_value=0.5, max_value=2.0, max_iter=5),
    "limits by column": IterativeImputer(min_value=[0, 0.5, -np.inf, 1, 0], max_iter=4),
    "lasso, nearest": IterativeImputer(Lasso(0.01), n_nearest_features=2, random_state=0, max_iter=5),
    "descending": IterativeImputer(imputation_order="descending", max_iter=4),
    "roman": IterativeImputer(imputation_order="roman", initial_strategy="median", max_iter=4),
    "random order": IterativeImputer(imputation_order="random", random_state=1, max_iter=4),
    "complete ones skipped": IterativeImputer(skip_complete=True, max_iter=4),
    "constant first": IterativeImputer(initial_strategy="constant", fill_value=1.5, max_iter=3),
    "with indicators": IterativeImputer(add_indicator=True, max_iter=3),
    "a tree": IterativeImputer(DecisionTreeRegressor(max_depth=3, random_state=0), max_iter=3),
    "a forest": IterativeImputer(ExtraTreesRegressor(5, max_depth=3, random_state=0), max_iter=2),
    "neighbours": IterativeImputer(KNeighborsRegressor(3), max_iter=2),
    "behind a scaler": IterativeImputer(make_pipeline(StandardScaler(), Ridge()), max_iter=3),
    "no rounds": IterativeImputer(max_iter=0),
}

_SLOW = dict.fromkeys(("neighbours", "lasso, nearest"), pytest.mark.long)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "imputer", [pytest.param(each, id=name, marks=_SLOW.get(name, ())) for name, each in IMPUTERS.items()]
)
def test_values_are_imputed_as_scikit_learn_does(imputer, rows):
    fitted = imputer.fit(with_gaps(rows, 0.15))
    graph = Graph(fitted)
    for asked in (with_gaps(rows, 0.15), with_gaps(rows * 1.5, 0.6, seed=1), rows[:3], with_gaps(rows, 0.3)[4:5]):
        # ONNX's trees answer in float32.
        tolerance = 1e-6 if "Tree" in repr(fitted) else 1e-9
        np.testing.assert_allclose(graph(asked), fitted.transform(asked), rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keeps", [False, True])
def test_columns_without_values(rows, keeps):
    trained = with_gaps(rows, 0.2)
    trained[:, 2] = np.nan
    fitted = IterativeImputer(keep_empty_features=keeps, max_iter=3, add_indicator=True).fit(trained)
    graph = Graph(fitted)
    for asked in (trained, with_gaps(rows, 0.3)):
        np.testing.assert_allclose(graph(asked), fitted.transform(asked), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_a_number_stands_for_what_is_missing(rows):
    trained = np.nan_to_num(with_gaps(rows, 0.2), nan=-1.0)
    fitted = IterativeImputer(missing_values=-1, max_iter=3).fit(trained)
    np.testing.assert_allclose(Graph(fitted)(trained), fitted.transform(trained), rtol=1e-9, atol=1e-9)


def reached(transformer, *more):
    """A pipeline whose transformer gives a regression its columns."""
    return make_pipeline(StandardScaler(), transformer, *more, Ridge())


BOTH = {
    "discriminants": reached(LinearDiscriminantAnalysis()),
    "discriminants, eigen, one": reached(LinearDiscriminantAnalysis("eigen", n_components=1), StandardScaler()),
    "distances of centres": reached(KMeans(3, random_state=0)),
    "distances of centres, in batches": reached(MiniBatchKMeans(3, random_state=0)),
    "beside the numbers": make_pipeline(FeatureUnion([("k", KMeans(3, random_state=0)), ("x", PCA(2))]), Ridge()),
    "imputed": make_pipeline(IterativeImputer(max_iter=3), StandardScaler(), Ridge()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pipeline", BOTH.values(), ids=BOTH)
def test_transformers_that_predict_too_give_their_features(pipeline, rows):
    given = with_gaps(rows, 0.2) if pipeline[0].__class__ is IterativeImputer else rows
    prepared = prepare(pipeline.fit(given, (rows[:, 0] * 3).astype(int)), given)
    assert prepared.difference < 1e-5


REFUSED = {
    "kernel of one's own": (Nystroem(np.dot, n_components=3), "the kernel .*dot.* is not one"),
    "chi-squared": (Nystroem("chi2", n_components=3), "the kernel chi2 is not one that the graph can compute; linear"),
    "pooled by medians": (FeatureAgglomeration(2, pooling_func=np.median), "pooling_func=numpy.mean works"),
}


@pytest.mark.parametrize(("transformer", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_graph_cannot_compute_is_refused(transformer, message, rows):
    with pytest.raises(UnsupportedError, match=message):
        prepare(make_pipeline(transformer, Ridge()).fit(rows, rows[:, 0]), rows)

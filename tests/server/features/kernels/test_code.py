from sklearn import preprocessing as pre

from penstock_server.features.spec import steps
from tests.server.features.transformers import X, Z, assert_same


def test_k_bins_discretizer() -> None:
    fitted = pre.KBinsDiscretizer(5, encode="ordinal", strategy="uniform").fit(X)
    assert_same(fitted, steps.Bucket(tuple(tuple(edges[1:-1]) for edges in fitted.bin_edges_)), Z)

import sys
import threading
import types

import cloudpickle
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from penstock_server.errors import UnsupportedError
from penstock_tools.publish.python.kept import kept

ROWS = np.random.default_rng(0).normal(size=(40, 2))
ANSWERS = (ROWS[:, 0] > 0).astype(int)


@pytest.fixture
def local_module(monkeypatch, tmp_path):
    """A module of the user's own, beside a notebook, which uses another one."""
    (tmp_path / "helpers.py").write_text("import numpy as np\n\ndef half(rows):\n    return np.asarray(rows) / 2\n")
    (tmp_path / "mine.py").write_text("import helpers\n\ndef shrink(rows):\n    return helpers.half(rows)\n")
    monkeypatch.syspath_prepend(tmp_path)
    import mine

    yield mine
    for name in ("mine", "helpers"):
        sys.modules.pop(name, None)


@pytest.mark.long
def test_what_skops_holds_is_kept_as_skops():
    found = kept(make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, ANSWERS))
    assert (found.file, found.why_pickle, found.by_value) == ("pipeline.skops", "", ())
    assert {"scikit-learn", "pandas", "skops"} <= found.requirements.keys()


def test_a_lambda_is_kept_as_a_pickle_and_says_why():
    found = kept(make_pipeline(FunctionTransformer(lambda rows: rows * 2), LogisticRegression()).fit(ROWS, ANSWERS))
    assert found.file == "pipeline.pkl"
    assert found.why_pickle.startswith("skops cannot hold it (")
    assert cloudpickle.loads(found.content).predict(ROWS).tolist() is not None
    assert "cloudpickle" in found.requirements


def test_modules_that_are_not_installed_are_in_the_file(local_module):
    fitted = make_pipeline(FunctionTransformer(local_module.shrink), LogisticRegression()).fit(ROWS, ANSWERS)
    found = kept(fitted)
    assert found.by_value == ("helpers", "mine")
    assert found.why_pickle == "it uses helpers, mine, which other machines do not have"
    expected = fitted.predict(ROWS).tolist()
    for name in found.by_value:
        sys.modules.pop(name)
    sys.path.pop(0)
    assert cloudpickle.loads(found.content).predict(ROWS).tolist() == expected


def test_objects_of_a_notebook_are_in_the_file(monkeypatch):
    main = types.ModuleType("__main__")
    exec("def twice(rows):\n    return rows * 2\n", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    found = kept(make_pipeline(FunctionTransformer(main.twice), LogisticRegression()).fit(ROWS, ANSWERS))
    assert found.by_value == ("__main__",)


def test_what_cannot_be_pickled_is_refused():
    class Holding(LogisticRegression):
        pass

    fitted = Holding().fit(ROWS, ANSWERS)
    fitted.lock_ = threading.Lock()
    with pytest.raises(UnsupportedError, match="take out what cannot be pickled"):
        kept(fitted)

#!/usr/bin/env bash
# Runs the tests of publishing with what users get: penstock[tools] and what it needs, the newest versions, no lock and none
# of the developers' packages. The first argument bounds pandas, such as 'pandas<3'; ARGS of pytest may follow.
set -euo pipefail
cd "$(dirname "$0")/.."
pandas=${1:-pandas}
shift || true
folder=.venvs/resolved-$(tr -c 'a-z0-9\n' - <<<"$pandas")
python=$folder/bin/python

${PYTHON:-python3} -m venv "$folder"
"$python" -m pip install --quiet uv
"$folder/bin/uv" pip install --quiet --upgrade --python "$python" -e '.[tools]' "$pandas" hypothesis pytest pytest-asyncio \
    pytest-timeout pytest-xdist
"$python" -c 'import google.protobuf, pandas, sklearn
print("pandas", pandas.__version__, "protobuf", google.protobuf.__version__, "scikit-learn", sklearn.__version__)'

# The other tests import a package that only developers have, or a test that does.
foreign='^ *(from|import) (aiohttp|catboost|category_encoders|evidently|feature_engine|imblearn|lightgbm|polars|psutil|shap|xgboost)'
foreign="$foreign|^from .* import test_trees_boosting"
needless=$(grep -rLE --include='test_*.py' "$foreign" tests/tools/publish tests/tools/sklearn_compiler)
# shellcheck disable=SC2086
"$python" -m pytest -n logical --dist worksteal $needless "$@"

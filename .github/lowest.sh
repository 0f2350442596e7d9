#!/usr/bin/env bash
# Runs the tests with the lowest version of each direct dependency that pyproject.toml allows. The tests' own tools are
# the newest that go with those; ARGS of pytest may follow.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=.venvs/lowest
python=$folder/bin/python

python3.11 -m venv "$folder"
"$python" -m pip install --quiet uv
uv() { "$folder/bin/uv" pip "$@"; }
uv compile --quiet --python "$python" --resolution lowest-direct --extra tools pyproject.toml -o "$folder/lowest.txt"
uv install --quiet --python "$python" --constraint "$folder/lowest.txt" -e '.[test]'

# The light client alone goes lower than the server lets it.
python3.11 -m venv "$folder/client"
uv install --quiet --python "$folder/client/bin/python" --resolution lowest-direct .
"$folder/client/bin/python" -m doctest -o ELLIPSIS client/penstock_client/retry.py
"$folder/client/bin/python" -c 'import penstock_client.aio'

# Evidently, tritonclient, fastapi and the foreign estimators are no dependencies, and want newer companions.
"$python" -m pytest -n logical --dist worksteal -m 'not slow' tests/client tests/protos tests/server \
    --ignore tests/server/drift/test_agreement.py --ignore tests/client/test_coexistence.py "$@"

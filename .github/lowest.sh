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
# --upgrade, since uv keeps the versions of a file that is there already.
uv compile --quiet --upgrade --python "$python" --resolution lowest-direct --extra tools pyproject.toml -o "$folder/lowest.txt"
uv install --quiet --python "$python" --constraint "$folder/lowest.txt" -e '.[test]'

# The light client alone goes lower than the server lets it. pandas and polars are what its users hand it.
light=$folder/client/bin/python
python3.11 -m venv "$folder/client"
uv compile --quiet --upgrade --python "$light" --resolution lowest-direct pyproject.toml -o "$folder/light.txt"
uv install --quiet --python "$light" --no-deps -e .
uv install --quiet --python "$light" --constraint "$folder/light.txt" --requirement "$folder/light.txt" \
    cryptography hypothesis pandas polars pytest pytest-asyncio pytest-timeout pytest-xdist

# Evidently, tritonclient, fastapi and the foreign estimators are no dependencies, and need newer versions of others.
"$light" -m pytest -n logical --dist worksteal -m 'not slow' tests/client tests/protos \
    --ignore tests/client/test_coexistence.py "$@"
"$python" -m pytest -n logical --dist worksteal -m 'not slow' tests/client tests/protos tests/server \
    --ignore tests/client/test_coexistence.py "$@"

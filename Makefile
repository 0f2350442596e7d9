# What people and CI run. Every target that needs Python makes .venv first; `make` alone lists the targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements.lock
CODE := protos server client tools bench tests
# Tests run on every core, and in one process more, since some wait for servers; a process that is done takes over half of what
# another has left. WORKERS=0 runs them in one process, which a debugger needs.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# uv installs no bytecode, so an environment that also forbids writing it, as those of many containers do, compiles mlflow and
# scikit-learn again at each of the hundreds of starts of a process in the tests: 4 s instead of 1.5 s.
export PYTHONDONTWRITEBYTECODE :=
PARALLEL := -n $(WORKERS) --dist worksteal
LEFT_OUT := -m 'not long'

.DEFAULT_GOAL := help
.PHONY: help install lock demo test coverage explore simulate mutants lint check protos dashboards docs architecture kernels dist bench bench-ci bench-peers faults audit fuzz clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with everything for development, each package in the version of the lock

$(STAMP): pyproject.toml $(LOCK)
	@test -n "$(PYTHON)" || { echo "penstock needs Python 3.11 or newer, and there is no python3; install it, or run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "penstock needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>/dev/null || echo not there); run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' $(LOCK))"
	$(BIN)/uv pip sync --python $(BIN)/python $(LOCK)
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

lock: ## Write requirements.lock again from pyproject.toml; ARGS=--upgrade takes the newest versions
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --extra dev $(ARGS) pyproject.toml -o $(LOCK)

demo: $(STAMP) ## Train, serve, stream a year of flights, promote a canary, watch drift (about two minutes)
	$(BIN)/penstock demo $(ARGS)

test: $(STAMP) ## Run the tests but the long ones; ARGS="-m 'not slow'" leaves out all that start real services
	$(BIN)/penstock compile
	$(BIN)/python -m pytest $(PARALLEL) $(LEFT_OUT) $(ARGS)

coverage: $(STAMP) ## Run all tests, and show how many lines of each room they reach
	$(BIN)/penstock compile
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report= $(ARGS)
	$(BIN)/python tests/coverage_by_room.py

explore: $(STAMP) ## Run the property tests with many other examples
	$(BIN)/python -m pytest $(PARALLEL) -m hypothesis --hypothesis-profile=explore $(ARGS)

simulate: $(STAMP) ## Simulate the control plane under faults, HOURS=10 hours of it on all cores; ARGS="--seed 7" replays a seed
	$(BIN)/python -m tests.simulation --hours $(or $(HOURS),10) $(ARGS)

mutants: $(STAMP) ## Change the pure rooms one place at a time, and show which changes no test sees; ARGS="--help" lists the options
	$(BIN)/python tests/mutants.py $(ARGS)

lint: $(STAMP) ## Format, lint, types, workflows, and whether the generated code is fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m penstock.generate --check
	$(BIN)/python -m penstock_tools.dashboards --check
	$(BIN)/actionlint .github/workflows/*.yml

check: LEFT_OUT :=
# As many examples as CI draws.
check: export HYPOTHESIS_PROFILE := ci
check: lint test ## Prove everything: lint and all tests, also the long ones

protos: $(STAMP) ## Write the generated code from the .proto files
	$(BIN)/python -m penstock.generate

dashboards: $(STAMP) ## Write Grafana's dashboards, and the list of their panels in tools/docs/monitoring.md
	$(BIN)/python -m penstock_tools.dashboards

kernels: $(STAMP) ## Compile the kernels that a release has, for every machine of this architecture
	$(BIN)/penstock compile --baseline

dist: kernels ## Build the wheel and the sdist into dist/, with the kernels of this architecture
	$(BIN)/python -m hatchling build

docs: $(STAMP) ## Build the docs site into build/site; a broken link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file tools/mkdocs.yml

architecture: $(STAMP) ## Write the generated parts of server/ARCHITECTURE.md
	$(BIN)/python -m tests.architecture

bench: $(STAMP) ## Measure the server against the baselines; ARGS are those of python -m bench
	$(BIN)/python -m bench $(ARGS)

bench-ci: kernels ## Measure quickly, and fail if a threshold does not hold
	$(BIN)/python -m bench --ci
	$(BIN)/python -m bench.features 0.3
	$(BIN)/python -m bench.faults --ci
	$(BIN)/python -m bench.judges --quick

faults: $(STAMP) ## Play faults against a server, and show what others felt; ARGS="--help" lists the options
	$(BIN)/python -m bench.faults $(ARGS)

audit: $(STAMP) ## Look for known flaws in the packages of the lock
	$(BIN)/uv tool run pip-audit --requirement $(LOCK) --no-deps --disable-pip

fuzz: $(STAMP) ## Play damaged conversations against the native transport for a minute; ARGS="--help" lists the options
	$(BIN)/python -m bench.fuzz $(ARGS)

bench-peers: $(STAMP) ## Measure other model servers and Penstock; ARGS="--help" lists the options
	$(BIN)/python -m bench.peers $(ARGS)

clean: ## Remove .venv, caches and builds
	rm -rf $(VENV) build dist server/penstock_server/kernels/shipped .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

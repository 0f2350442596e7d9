# What people and CI run. Every target that needs Python makes .venv first; `make` alone lists the targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := protos server client tools bench tests

.DEFAULT_GOAL := help
.PHONY: help install demo test lint check protos architecture bench bench-ci bench-peers clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with everything for development

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "penstock needs Python 3.11 or newer, and there is no python3; install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "penstock needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>/dev/null || echo not there); say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --python $(BIN)/python -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Train, serve, stream a year of flights, promote a canary, watch drift (about two minutes)
	$(BIN)/penstock demo $(ARGS)

test: $(STAMP) ## Run the tests; ARGS="-m 'not slow'" leaves out those that start real services
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## Format, lint, types, and whether the generated code is fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m penstock.generate --check

check: lint test ## Prove everything: lint and tests

protos: $(STAMP) ## Write the generated code anew from the .proto files
	$(BIN)/python -m penstock.generate

architecture: $(STAMP) ## Write the generated parts of server/ARCHITECTURE.md anew
	$(BIN)/python -m tests.architecture

bench: $(STAMP) ## Measure the server against the baselines; ARGS are those of python -m bench
	$(BIN)/python -m bench $(ARGS)

bench-ci: $(STAMP) ## Measure quickly, and fail if a threshold does not hold
	$(BIN)/python -m bench --ci

bench-peers: $(STAMP) ## Measure other model servers beside Penstock; ARGS="--help" lists the options
	$(BIN)/python -m bench.peers $(ARGS)

clean: ## Remove .venv, caches and builds
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything runs in .venv, made on first use. `make help` lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CONFIG ?= connect_four
TESTS  ?=
ARGS   ?=
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help install train test lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## make .venv and install the project with its tools (PYTHON=python3.12 to choose)

train: $(STAMP) ## train CONFIG=connect_four (ARGS="--stop.seconds 600")
	$(BIN)/selfplay train $(CONFIG) $(ARGS)

test: $(STAMP) ## run the tests (TESTS=tests/test_x.py ARGS="-k name"; slow ones with ARGS="-m slow"; JOBS=0: one process)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) $(TESTS) $(ARGS)

lint: $(STAMP) ## check style, format, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite the code in the common format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, caches and builds; never runs/
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is older than what it depends on when the dependencies change; pip then brings .venv up to date.
# What is imported is compiled then: pip would compile all of Ray and torch.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 \
		|| { echo "make: $(PYTHON) was not found; install Python 3.11 to 3.13, or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "make: $$($(PYTHON) --version 2>&1) will not do, this project needs 3.11 to 3.13; name one: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "make: $(PYTHON) has no venv module; on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e ".[dev]"
	@touch $@

# The targets need nothing but a Python 3.11 or newer: each first makes .venv with what constraints.txt pins.
#
#   make check        lint, format, types, import floors
#   make test         every test
#   make quickstart   raw bytes to a trained BLT
#   make bench        every benchmark, at a size that takes seconds

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: check test quickstart bench

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS)

quickstart: $(VENV)/.installed
	$(BIN)/python -m pipelines quickstart

bench: $(VENV)/.installed
	@set -e; for script in $(sort $(wildcard benchmarks/bench_*.py)); do \
		echo "$$script" >&2; $(BIN)/python $$script --small; \
	done

# The stamp is written last, so an installation that was cut off is begun again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fedrec needs Python 3.11 or newer; set PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "venv is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

setup: $(STAMP)  ## make .venv, install, fetch data and models (checked by SHA-256)
	@$(BIN)/fedrec data fetch ml-100k --quiet
	@$(BIN)/fedrec data fetch movielens-small --quiet
	@$(BIN)/fedrec data fetch open-bandit --quiet
	@$(BIN)/fedrec model fetch smollm2-135m --quiet
	@$(BIN)/fedrec model fetch minilm-l6-v2 --quiet

demo: setup  ## train 8 partners under differential privacy, recommend, write runs/demo/report.html
	$(BIN)/fedrec demo

test: setup  ## run the tests (no network needed after the first time)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder  # a file's tests stay together, and share what they have loaded

check: $(STAMP)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup  ## time the private step against the plain one
	$(BIN)/fedrec bench dp-step

clean:  ## remove what was built (.venv and caches); runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

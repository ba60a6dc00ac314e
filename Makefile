# cbfsconnect: everything a developer starts from the shell. `make help` lists the targets.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help preflight preflight-test mount test format lint types unit bench other-pythons clean

help:            ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

preflight:
	@PYTHON="$(PYTHON)" tools/preflight.sh run

preflight-test:
	@PYTHON="$(PYTHON)" tools/preflight.sh test

$(PY): | preflight
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The stamp follows pyproject.toml, so that a new requirement reaches an old environment.
$(STAMP): pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# A mount needs no packages at all: the core has no dependencies, so nothing is downloaded.
mount: | preflight $(PY)  ## mount the example drive at ./drive, in the foreground
	PYTHONPATH=src $(PY) -m cbfsconnect

test: preflight-test lint types unit other-pythons  ## all checks and all tests

format: $(STAMP) ## rewrite the sources in the project's format
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

lint: $(STAMP)   ## format and lint checks
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check

types: $(STAMP)  ## strict type check of sources and tests
	$(VENV)/bin/mypy

unit: $(STAMP)   ## tests on the default Python
	$(PY) -m pytest

other-pythons: $(STAMP) ## tests on every other supported Python found
	tools/other-pythons.sh

bench: | preflight $(PY) ## measure
	PYTHONPATH=src $(PY) bench/run.py

clean:           ## remove what the other targets made
	rm -rf .venv .venv-3.11 .venv-3.12 .venv-3.13 .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

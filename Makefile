# On a fresh machine, `make demo` and `make test` are all that is needed.
# Each sets up .venv once; later runs reuse it.

PYTHON ?= python3
BACKENDS ?= jax tensorflow torch
FAST ?= torch
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help environment demo test test-full test-fast test-native durations lint types docs bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "keras-mvn needs Python 3.11 or newer; use make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)

$(STAMPS)/demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q jax -e '.[demo]'
	@touch $@

# The CPU build of PyTorch comes first: a plain `torch` would pull in gigabytes of CUDA libraries.
$(STAMPS)/test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -e '.[test]'
	@touch $@

$(STAMPS)/lint: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q -e '.[lint]'
	@touch $@

$(STAMPS)/docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q jax -e '.[docs]'
	@touch $@

$(STAMPS)/bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q -e '.[benchmarks]'
	@touch $@

demo: $(STAMPS)/demo  ## train on the weather of three airports, answer questions (3 minutes)
	$(BIN)/keras-mvn demo

environment: $(STAMPS)/test  ## everything the tests need, in .venv

PYTEST = $(BIN)/python -m pytest -q -n 2 --dist worksteal

test: $(STAMPS)/test  ## the whole suite, once per backend
	@for backend in $(BACKENDS); do \
	  echo "== $$backend"; \
	  KERAS_BACKEND=$$backend $(PYTEST) -m 'not full and not native' || exit 1; \
	done

test-full: $(STAMPS)/test  ## also what `make test` leaves to PyTorch, on every backend
	@for backend in $(BACKENDS); do \
	  echo "== $$backend"; \
	  KERAS_BACKEND=$$backend $(PYTEST) || exit 1; \
	done

test-fast: $(STAMPS)/test  ## the fast part of the suite, on PyTorch (FAST=jax: another backend)
	KERAS_BACKEND=$(FAST) $(PYTEST) -m 'not slow and not full and not native'

test-native: $(STAMPS)/test  ## the C++ tests, built with sanitizers
	KERAS_BACKEND=torch $(PYTEST) -m native tests/kernels/test_kernels.py

durations: $(STAMPS)/test  ## where the time of the suite goes: build/durations
	@mkdir -p build/durations
	@for backend in $(BACKENDS); do \
	  KERAS_BACKEND=$$backend $(PYTEST) -m 'not full and not native' --durations=0 \
	    > build/durations/$$backend.txt || tail -20 build/durations/$$backend.txt; \
	done
	$(BIN)/python benchmarks/test_durations.py $(BACKENDS:%=build/durations/%.txt)

lint: $(STAMPS)/lint  ## check style and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/lint  ## check types with mypy, strict
	$(BIN)/mypy

docs: $(STAMPS)/docs  ## run the pages and build the site in docs/_build/html (5 minutes; later only what changed)
	KERAS_BACKEND=jax $(BIN)/sphinx-build -q -W --keep-going -j auto -b html docs docs/_build/html

bench: $(STAMPS)/test $(STAMPS)/bench  ## compare with published results, measure speed; written to benchmarks/results
	KERAS_BACKEND=jax $(BIN)/python benchmarks/known_truth.py
	$(BIN)/python benchmarks/loss_speed.py
	$(BIN)/python benchmarks/epoch_speed.py
	$(BIN)/python benchmarks/memory_and_growth.py

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) build dist docs/_build keras-mvn-demo

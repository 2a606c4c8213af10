# make demo       a gallery of photographs changed to mixed targets, in demo/index.html
# make test       the tests, without the slow ones, compiled quickly
# make lint       formatting, lint, types
# make test-all   the tests with the slow ones, compiled as users compile

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test test-all lint install clean

demo: $(VENV)/installed
	$(BIN)/python experiments/synthesize.py --out=demo --overwrite

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist=worksteal

test-all: $(VENV)/installed
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 --dist=worksteal -m "not gpu"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info

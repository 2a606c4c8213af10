# make demo   a gallery of photographs changed to mixed targets, in demo/index.html
# make test   the test suite, without its slow tests, compiled without optimisation
# make check  the whole test suite, compiled as users compile
# make lint   formatting, lint, types

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test check lint install clean

demo: $(VENV)/installed
	$(BIN)/python experiments/synthesize.py --out=demo --overwrite

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist=worksteal

check: $(VENV)/installed
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

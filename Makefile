# make demo       a gallery of photographs changed to mixed targets, in demo/index.html
# make studio     a local page to play with, in the browser
# make test       the tests, without the slow ones, compiled quickly
# make lint       formatting, lint, types, spelling
# make docs       the documentation site, in site/index.html
# make test-all   make test, the slow tests, and those of COMPILED once more, compiled as users compile

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist=worksteal

# Tests of what computes with JAX: the numbers depend on how XLA compiles.
COMPILED := tests/losses_test.py tests/pixels_test.py \
	$(addprefix tests/,metrics models outputs solvers synthesis training)

.PHONY: demo studio test test-all lint docs install clean

demo: $(VENV)/installed
	$(BIN)/python experiments/synthesize.py --out=demo --overwrite

studio: $(VENV)/installed
	$(BIN)/python -m outgen_jax.studio

test: $(VENV)/installed
	$(PYTEST)

# Without XLA_FLAGS, XLA optimises as it does for users.
test-all: test
	XLA_FLAGS= $(PYTEST) $(COMPILED)
	XLA_FLAGS= $(PYTEST) -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(VENV)/installed_docs
	$(BIN)/mkdocs build --strict

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Apart: the site needs neither the tests' packages nor those of the scripts.
$(VENV)/installed_docs: setup.cfg pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) demo site build *.egg-info

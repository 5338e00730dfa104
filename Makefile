# Every target sets up what it needs inside this checkout and skips what is already there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_STAMP := tests/node/node_modules/.stamp
DEMO := examples/trip-planner

.PHONY: serve demo demo-files test lint format docs clean

serve: $(VENV)/.serve
	$(BIN)/crdt-sync serve

# A trip planner in the browser, with its server. Its files are built already; `make demo-files` builds them, which needs Node.
demo: $(VENV)/.serve
	$(BIN)/python $(DEMO)/serve.py

demo-files:
	cd $(DEMO) && npm ci --no-audit --no-fund --loglevel=error && npm run build

test: $(VENV)/.dev $(NODE_STAMP)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build
	@echo "open docs/_build/index.html"

clean:
	rm -rf $(VENV) docs/_build tests/node/node_modules benchmarks/peers/node_modules $(DEMO)/node_modules

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.serve

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@ $(VENV)/.serve

$(NODE_STAMP): tests/node/package.json tests/node/package-lock.json
	cd tests/node && npm ci --no-audit --no-fund --loglevel=error
	touch $@

# Every verb sets up what it needs in .venv. PYTHON picks the interpreter (3.11 or newer), PORT where `serve` listens.
# WHEELS holds extra options for pip, such as an index of CPU builds of torch.
PYTHON ?= python3
PORT ?= 8000
WHEELS ?=
BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(WHEELS)
.DEFAULT_GOAL = help
.PHONY: help setup serve test check train clean lock

help:
	@echo "make serve   score requests on 127.0.0.1:$(PORT) with the bundled model and users"
	@echo "make test    all tests"
	@echo "make check   lint, format, types"
	@echo "make train   rebuild the bundled model from data/"
	@echo "make setup   prepare .venv for all of these (each also does what it needs by itself)"
	@echo "make clean   remove what the others made"

.venv/serve.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/full.stamp: .venv/serve.stamp
	$(PIP) -e '.[train,dev]'
	@touch $@

setup: .venv/full.stamp

serve: .venv/serve.stamp
	AUGUR_PORT=$(PORT) AUGUR_SEED=$${AUGUR_SEED-kuairand:data/kuairand_pure} exec $(BIN)/python -m service

test: .venv/full.stamp
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=95

check: .venv/full.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: .venv/full.stamp
	$(BIN)/python -m model.distill --out model/artifacts/kuairand --run runs/bundled

clean:
	rm -rf .venv build dist runs *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The versions that CI tested, for reproducible builds: run in a clean .venv.
lock: .venv/full.stamp
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

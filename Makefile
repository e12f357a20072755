# Every verb sets up what it needs in .venv. PYTHON picks the interpreter (3.11 or newer), PORT where `serve` listens.
# WHEELS holds extra options for pip, such as an index of CPU builds of torch. URL is a server for `loadtest`, ENGINE builds
# the image IMAGE.
PYTHON ?= python3
PORT ?= 8000
WHEELS ?=
URL ?=
ENGINE ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= augur:$(VERSION)
# The bundled users are for the bundled model in the embedded store; they have no place in a store or model of one's own.
AUGUR_SEED ?= $(if $(filter-out memory://,$(AUGUR_STORE))$(AUGUR_MODEL),,kuairand:data/kuairand_pure)
BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(WHEELS)
.DEFAULT_GOAL = help
.PHONY: help setup serve test check train bench loadtest image clean lock

help:
	@echo "make serve     score requests on 127.0.0.1:$(PORT) with the bundled model and users"
	@echo "make test      all tests"
	@echo "make check     lint, format, types"
	@echo "make train     rebuild the bundled model from data/"
	@echo "make bench     kernels against what else one could run"
	@echo "make loadtest  locust against a server of its own, or URL="
	@echo "make image     build the container image $(IMAGE) with docker, podman or buildah, or ENGINE="
	@echo "make setup     prepare .venv for all of these (each also does what it needs by itself)"
	@echo "make clean     remove what the others made"

.venv/serve.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/full.stamp: .venv/serve.stamp
	$(PIP) -e '.[train,dev]'
	@touch $@

.venv/loadtest.stamp: .venv/serve.stamp
	$(PIP) -e '.[loadtest]'
	@touch $@

setup: .venv/full.stamp

serve: .venv/serve.stamp
	AUGUR_PORT=$(PORT) AUGUR_SEED=$(AUGUR_SEED) exec $(BIN)/python -m service

test: .venv/full.stamp
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=95

check: .venv/full.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: .venv/full.stamp
	rm -rf runs/bundled
	$(BIN)/python -m model.distill --out model/artifacts/kuairand --run runs/bundled

bench: .venv/serve.stamp
	$(BIN)/python -m kernels.bench

loadtest: .venv/loadtest.stamp
	$(BIN)/python -m loadtest $(if $(URL),--url $(URL))

# The first engine that answers, if none is named. All but docker need to be told of a format that has health checks.
image:
	@engine='$(ENGINE)'; for each in docker podman buildah; do \
	  test -n "$$engine" || ! $$each info >/dev/null 2>&1 || engine=$$each; \
	done; \
	test -n "$$engine" || { echo "no container engine answers: docker, podman or buildah is needed; set ENGINE=" >&2; exit 1; }; \
	case $$engine in *docker) format= ;; *) format='--format docker' ;; esac; \
	set -x; $$engine build $$format --build-arg VERSION=$(VERSION) --build-arg WHEELS='$(WHEELS)' -t $(IMAGE) .

clean:
	rm -rf .venv build dist runs *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The versions that CI tested, for reproducible builds: run in a clean .venv.
lock: .venv/full.stamp
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

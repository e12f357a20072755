# Every verb sets up what it needs in .venv. PYTHON picks the interpreter (3.11 or newer), PORT where `serve` listens.
# WHEELS holds extra options for pip, such as an index of CPU builds of torch. URL is a server for `loadtest`, ENGINE builds
# the image IMAGE, with kernels for GPU_TARGETS. CXX is the C++ compiler. SOAK is a length in seconds for `capacity`. PARTS,
# AGAIN and QUICK are for `report`.
PYTHON ?= python3
PORT ?= 8000
WHEELS ?=
URL ?=
SOAK ?=
PARTS ?=
AGAIN ?=
QUICK ?=
ENGINE ?=
GPU_TARGETS ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= augur:$(VERSION)
# The bundled users are for the bundled model in the embedded store; they have no place in a store or model of one's own.
AUGUR_SEED ?= $(if $(filter-out memory://,$(AUGUR_STORE))$(AUGUR_MODEL),,kuairand:data/kuairand_pure)
BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(WHEELS)
CMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake
CONFIGURE = $(CMAKE) -S . -G Ninja -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python"
NATIVE = CMakeLists.txt $(wildcard kernels/native/*.cpp kernels/native/*.h)
# What it takes to compile an extension: C++17 and Python's headers.
CAN_COMPILE = printf '\#include <optional>\n\#include <Python.h>\n' | $${CXX:-c++} -std=c++17 -fsyntax-only -x c++ \
  -I "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')" - 2>/dev/null
# `make setup` tries again to compile what could not be compiled before.
RETRY = $(if $(filter setup,$(MAKECMDGOALS)),$(if $(wildcard kernels/native/_native*.so),,retry))
# Without isolation, for the pinned versions of what builds.
EDITABLE = $(PIP) --no-build-isolation -e
# A torch for GPUs brings the Triton it was made with, and would not stand another; one for CPUs brings none.
TRITON = triton==3.9.0
.DEFAULT_GOAL = help
.NOTPARALLEL:
.PHONY: help setup retry serve test check sanitize train bench loadtest capacity ladder report docs docs-serve image clean lock

help:
	@echo "make serve     score requests on 127.0.0.1:$(PORT) with the bundled model and users"
	@echo "make test      all tests"
	@echo "make check     lint, format, types"
	@echo "make sanitize  tests of the CPU kernels with the address sanitizer"
	@echo "make train     rebuild the bundled model from data/"
	@echo "make bench     kernels against what else one could run"
	@echo "make loadtest  locust against a server of its own, or URL="
	@echo "make capacity  this server against a plain one: what each can take"
	@echo "make ladder    what kernels, shared work and a distilled model each give"
	@echo "make report    every measurement, about an hour, and one report of all; QUICK=1, PARTS=a,b and AGAIN=a,b"
	@echo "make docs      the documentation as a site in runs/site; make docs-serve shows it on 127.0.0.1:$(PORT)"
	@echo "make image     build the container image $(IMAGE) with docker, podman or buildah, or ENGINE="
	@echo "make setup     prepare .venv for all of these (each also does what it needs by itself)"
	@echo "make clean     remove what the others made"

.venv/serve.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) scikit-build-core
	$(EDITABLE) .
	@touch $@

# The CPU kernels, compiled into the checkout. A machine that cannot compile goes without, and hears of it here alone; a
# source that does not compile is an error.
.venv/native.stamp: $(NATIVE) .venv/serve.stamp $(RETRY)
	@rm -f kernels/native/_native*.so
	@if $(CAN_COMPILE); then \
	  $(PIP) cmake nanobind ninja && $(CONFIGURE) -B .venv/native >/dev/null && $(CMAKE) --build .venv/native -- --quiet \
	    && $(CMAKE) --install .venv/native --prefix . >/dev/null; \
	else \
	  echo "No CPU kernels: '$${CXX:-c++}' cannot compile C++17 with Python's headers. All works, but torch computes in their" \
	    "place, more slowly. Install g++ and python3-dev, then run make setup." >&2; \
	fi
	@touch $@

.venv/full.stamp: .venv/serve.stamp
	$(EDITABLE) '.[train,dev]'
	@$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) $(TRITON)
	@touch $@

.venv/loadtest.stamp: .venv/serve.stamp
	$(EDITABLE) '.[loadtest]'
	@touch $@

.venv/docs.stamp: .venv/serve.stamp
	$(EDITABLE) '.[docs]'
	@touch $@

# The public clients of the Open Inference Protocol, for a test: in a place of their own, since both want older versions of
# what is pinned here.
.venv/clients.stamp: tests/service/clients/requirements.txt .venv/serve.stamp
	@test -x .venv/clients/bin/python || $(PYTHON) -m venv .venv/clients
	.venv/clients/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

setup: .venv/full.stamp .venv/native.stamp

serve: .venv/serve.stamp .venv/native.stamp
	AUGUR_PORT=$(PORT) AUGUR_SEED=$(AUGUR_SEED) exec $(BIN)/python -m service

# Modules in order of name: by their number of tests, long ones of few tests would come last.
test: .venv/full.stamp .venv/native.stamp .venv/clients.stamp
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder --cov --cov-report=term:skip-covered --cov-fail-under=95

check: .venv/full.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A second build, in a copy of what it tests: the sanitizer's library has to be in the process before Python is, and that
# of C++ before the first exception. Leaks are not looked for, since Python leaves its own.
sanitize: .venv/full.stamp
	rm -rf .venv/sanitized/tree
	mkdir -p .venv/sanitized/tree
	cp -R conftest.py kernels tests pyproject.toml .venv/sanitized/tree
	rm -f .venv/sanitized/tree/kernels/native/_native*.so
	$(PIP) cmake nanobind ninja
	$(CONFIGURE) -B .venv/sanitized/build -DCMAKE_BUILD_TYPE=Debug -DAUGUR_SANITIZE=ON >/dev/null
	$(CMAKE) --build .venv/sanitized/build -- --quiet
	$(CMAKE) --install .venv/sanitized/build --prefix .venv/sanitized/tree >/dev/null
	cd .venv/sanitized/tree && ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so.6)" \
	  "$(CURDIR)/$(BIN)/python" -m pytest --capture=sys -p no:cacheprovider tests/kernels/test_native*.py \
	    tests/kernels/test_ops.py tests/kernels/test_kernels_contract.py

docs: .venv/docs.stamp
	$(BIN)/python docs/pictures
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "the site is in runs/site; make docs-serve shows it"

docs-serve: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:$(PORT)

train: .venv/full.stamp .venv/native.stamp
	rm -rf runs/bundled
	$(BIN)/python -m model.distill --out model/artifacts/kuairand --run runs/bundled

bench: .venv/full.stamp .venv/native.stamp
	$(BIN)/python -m kernels.bench

loadtest: .venv/loadtest.stamp .venv/native.stamp
	$(BIN)/python -m loadtest $(if $(URL),--url $(URL))

capacity: .venv/loadtest.stamp .venv/native.stamp
	$(BIN)/python -m loadtest.capacity $(if $(SOAK),--soak $(SOAK))

ladder: .venv/loadtest.stamp .venv/native.stamp
	$(BIN)/python -m loadtest.ladder

report: .venv/full.stamp .venv/native.stamp
	$(BIN)/python -m loadtest.report $(if $(QUICK),--quick) $(if $(PARTS),--parts $(PARTS)) $(if $(AGAIN),--again $(AGAIN))

# The first engine that answers, if none is named. All but docker need to be told of a format that has health checks;
# buildah makes one layer of all unless it is told not to.
image:
	@engine='$(ENGINE)'; for each in docker podman buildah; do \
	  test -n "$$engine" || ! $$each info >/dev/null 2>&1 || engine=$$each; \
	done; \
	test -n "$$engine" || { echo "no container engine answers: docker, podman or buildah is needed; set ENGINE=" >&2; exit 1; }; \
	case $$engine in *docker) format= ;; *) format='--format docker --layers' ;; esac; \
	set -x; $$engine build $$format --build-arg VERSION=$(VERSION) --build-arg WHEELS='$(WHEELS)' \
	  --build-arg GPU_TARGETS='$(GPU_TARGETS)' --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null)" -t $(IMAGE) .

clean:
	rm -rf .venv build dist runs kernels/native/_native*.so *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The versions that CI tested, for reproducible builds: run in a clean .venv.
lock: .venv/full.stamp
	$(BIN)/python -m pip freeze --exclude-editable | sed '/^triton==/d; s/+cpu$$//' > constraints.txt

# dopaint. `make` alone lists the verbs.
# Variables: PYTHON (3.11 to 3.14), JOBS (test processes), PIP_ARGS (passed to pip install, e.g. a local folder of wheels), PYTEST_ARGS.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install test check slow format demo bench train clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Shared libraries that wheels expect of the system, as library:Debian package (RDKit's drawing).
SYSTEM_LIBS := libexpat.so.1:libexpat1 libX11.so.6:libx11-6 libXext.so.6:libxext6 libXrender.so.1:libxrender1
VENV := .venv
CELLPROFILER := .venv-cellprofiler
CP_MEASURE := .venv-cp_measure
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input $(PIP_ARGS)
PYTEST := $(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-9s %s\n", $$1, $$2 }'

$(BIN)/python:
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null || { \
	  echo "dopaint needs Python 3.11 to 3.14 with venv. On Debian 12: apt-get install -y python3.11 python3.11-venv"; exit 1; }
	@missing=""; for lib in $(SYSTEM_LIBS); do /sbin/ldconfig -p 2>/dev/null | grep -q "$${lib%%:*} " || missing="$$missing $${lib##*:}"; done; \
	if [ -n "$$missing" ]; then echo "system libraries are missing. On Debian 12: apt-get install -y$$missing"; exit 1; fi
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt service/version.py | $(BIN)/python
	@echo "installing the packages of constraints.txt into $(VENV) (minutes the first time)"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

# The mark is written by the setup itself, which leaves an environment of today's pins alone.
$(CELLPROFILER)/dopaint-requirements.txt: configs/profiling/requirements-cellprofiler.txt | $(VENV)/.installed
	@echo "installing CellProfiler into $(CELLPROFILER), an environment of its own (a minute the first time)"
	@DOPAINT_CELLPROFILER_VENV=$(CURDIR)/$(CELLPROFILER) $(BIN)/python -m profiling.engines.setup
	@touch $@

$(CP_MEASURE)/dopaint-requirements.txt: configs/profiling/requirements-cp_measure.txt | $(VENV)/.installed
	@DOPAINT_CP_MEASURE=$(CURDIR)/$(CP_MEASURE) $(BIN)/dopaint setup cpmeasure
	@touch $@

install: $(VENV)/.installed $(CELLPROFILER)/dopaint-requirements.txt $(CP_MEASURE)/dopaint-requirements.txt  ## make .venv and .venv-cellprofiler with everything in them; does nothing when they are up to date

test: install  ## install, then the tests that take less than ten seconds each
	$(PYTEST) -m "not slow"

check: install  ## what CI runs: format, lint, types, import contracts, audit of the dependencies, the tests of `make test`
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python deploy/audit.py
	$(PYTEST) -m "not slow"

slow: install  ## the tests that take longer than ten seconds each (hours on 2 cores: kills, hostile requests, short trainings, Chromium)
	$(PYTEST) -m slow

format: install  ## write the format and the safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: install  ## start the service, ask it about three molecules, print their mechanisms and the page's address
	$(BIN)/dopaint demo

bench: install  ## measure: the gate and unseen drugs on the shipped model, the estimators against known truth, speed, real profiles where DOPAINT_DATA is set (tens of minutes)
	$(BIN)/dopaint benchmark gate
	$(BIN)/dopaint benchmark unseen
	$(BIN)/dopaint benchmark causal
	$(BIN)/python benchmarks/chem_encoder.py models/simulation-128/encoder
	$(BIN)/python benchmarks/simulate.py
	$(BIN)/python benchmarks/scoring.py
	[ -z "$$DOPAINT_DATA" ] || $(BIN)/dopaint benchmark real

# The order in which the shipped model was made. A stopped run goes on where it was when the same command is given again.
train: install  ## train a model like the shipped one into runs/shipped (3 hours on 2 cores; the encoder needs DOPAINT_DATA)
	$(BIN)/dopaint train configs/chem/small_t5.toml --out runs/shipped
	$(BIN)/dopaint simulate --config configs/simulation/train.toml --encoder runs/shipped/encoder --out runs/data
	$(BIN)/dopaint train configs/ldm/small_autoencoder.toml --data runs/data --out runs/shipped
	mkdir -p runs/shipped/first && cp -rT runs/shipped/vae runs/shipped/first/vae
	$(BIN)/dopaint train configs/ldm/small.toml --data runs/data --out runs/shipped/first
	$(BIN)/dopaint train configs/ldm/small_again.toml --data runs/data --out runs/shipped --start-from runs/shipped/first/model
	cp -r runs/shipped/encoder runs/shipped/model/encoder
	$(BIN)/dopaint reference --model runs/shipped/model
	$(BIN)/dopaint benchmark gate --model runs/shipped/model

clean:  ## remove both environments and the caches; models and results stay
	rm -rf $(VENV) $(CELLPROFILER) $(CP_MEASURE) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist

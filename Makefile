# make setup    virtual environments, system packages      make check    style, types, import contracts, size budget
# make demo     a real CT in, SEG and SR with a volume out  make run      the node (CONFIG=node.toml)
# make test     every test                                 make bench    ingest rate, seconds and memory of an analysis
# make crash-test  the node killed 300 times (KILLS=, SEED=)  make fuzz  hostile bytes: 20000 examples a test (EXAMPLES=)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup system demo test crash-test fuzz check run bench clean

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SYSTEM_PACKAGES := chromium dcmtk dicom3tools ghostscript nginx-light orthanc orthanc-dicomweb pixelmed-apps postgresql systemd
# Where npm comes from elsewhere, with Node.js, Debian's package would not go beside it.
SYSTEM_PACKAGES += $(if $(shell command -v npm),,npm)
SYSTEM_PROGRAMS := chromium storescu dciodvfy gs nginx Orthanc DicomSRValidator pg_ctl systemd-analyze npm
# Orthanc is a program of /usr/sbin, which is not on everybody's path; Debian keeps pg_ctl where nobody looks.
export PATH := $(PATH):/usr/sbin:/sbin:$(lastword $(wildcard /usr/lib/postgresql/*/bin))

help:
	@sed -n 's/^# //p' Makefile | head -4

setup: system .venv/.installed .venv-dcmqi/.installed .ohif/index.html

# The programs that tests and benchmarks run beside ours; the node itself needs none of them.
system:
	@missing=""; for program in $(SYSTEM_PROGRAMS); do command -v $$program > /dev/null || missing="$$missing $$program"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) > /dev/null; \
	else \
		echo "missing:$$missing. Install them: sudo apt-get install $(SYSTEM_PACKAGES)" >&2; \
		[ -z "$${CI:-}" ]; \
	fi

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}: make setup PYTHON=python3.11")'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "installing into .venv (PyTorch takes a while)"
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

# Apart: its binaries bring libraries of their own.
.venv-dcmqi/.installed:
	@$(PYTHON) -m venv .venv-dcmqi
	@.venv-dcmqi/bin/python -m pip --disable-pip-version-check --quiet install dcmqi==1.5.7
	@touch $@

# The viewer that the tests look at results with.
.ohif/index.html: deploy/viewer/fetch.sh
	@sh deploy/viewer/fetch.sh .ohif && touch $@

demo: .venv/.installed
	@$(BIN)/python deploy/demo.py

# Two processes of one thread each, for CI has two cores; a file's tests stay together, for what they share.
test: export OMP_NUM_THREADS = 1
test: setup
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

crash-test: .venv/.installed
	$(BIN)/python -m tests.acceptance.crash --kills $(or $(KILLS),300) --seed $(or $(SEED),1)

fuzz: .venv/.installed
	FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) $(BIN)/python -m pytest -q --timeout=0 tests/acceptance/test_fuzz.py

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_architecture.py

run: .venv/.installed
	$(BIN)/dicomnode serve $(if $(CONFIG),--config $(CONFIG))

bench: setup
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/enqueue.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/analyse.py

clean:
	rm -rf .venv .venv-dcmqi .ohif demo-output build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

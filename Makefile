# Set-up and main jobs of Evenray. Everything lives in .venv; nothing is installed outside it but by `make peers`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test check validate soak peers bench-engine bench-receive bench-latency bench-growth clean
help:            ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 18

setup: $(READY)  ## the virtual environment with everything in it
$(READY): pyproject.toml deploy/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Evenray needs Python 3.11 or newer: set PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about two minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint deploy/constraints.txt --editable . --group dev
	@touch $(READY)

demo: $(READY)   ## the main job, shown: a study from a modality through the node to a PACS; INPUT=path takes your own files
	@$(BIN)/evenray demo $(if $(INPUT),--input "$(INPUT)") $(if $(OUT),--out "$(OUT)")

test: $(READY)   ## all tests; those with real peers need `make peers`
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(READY)  ## format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_import_rules.py

validate: $(READY)  ## every class of object from every image before dicom3tools, DCMTK and PixelMed; IMAGES=folder of DICOM images
	@$(BIN)/python -m tests.validate $(if $(IMAGES),--images "$(IMAGES)",--out tests/bench/results/validate.txt)

peers:           ## the real peers (Orthanc, DCMTK, dicom3tools, PixelMed) from Debian; needs root
	@deploy/install-peers.sh

bench-engine: $(READY)  ## the classical methods on X-rays they never saw; IMAGES=folder with an index.csv
	@test -n "$(IMAGES)" || { echo "bench-engine: say IMAGES=folder (with an index.csv, as ../shared/data has)" >&2; exit 2; }
	@$(BIN)/python -m tests.bench.bench_engine_baseline --images "$(IMAGES)" --out tests/bench/results/engine_baseline.txt

# A trial, a part of it or somebody's files must not replace the last result.
KEPT = $(if $(QUICK)$(INPUT)$(ONLY)$(CORPUS)$(SENDERS),,--out tests/bench/results/$(1).txt)
BENCH = $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUICK),--quick) $(if $(WORK),--work "$(WORK)")

bench-receive: $(READY)  ## receivers side by side; ROUNDS=3 QUICK=1 CORPUS=dx,cr SENDERS=1,4,8 ONLY=names INPUT=folder PROCESSES=n
	@$(BIN)/python -m tests.bench.bench_receive $(BENCH) $(if $(CORPUS),--corpus $(CORPUS)) $(if $(SENDERS),--senders $(SENDERS)) \
	  $(if $(ONLY),--only "$(ONLY)") $(if $(INPUT),--input "$(INPUT)") $(if $(PROCESSES),--processes $(PROCESSES)) $(call KEPT,receive)

bench-latency: $(READY)  ## from the last image to its results in the archive; QUICK=1
	@$(BIN)/python -m tests.bench.bench_latency $(if $(QUICK),--quick) $(if $(WORK),--work "$(WORK)") $(call KEPT,latency)

bench-growth: $(READY)  ## an empty node beside one with 100,000 instances; ROUNDS=5 QUICK=1
	@$(BIN)/python -m tests.bench.bench_growth $(BENCH) $(call KEPT,growth)

soak: $(READY)   ## the long tests: kills at every step and at random, power cuts, fuzzing, PACS moods; KILLS=500 CUTS=20 CASES=1000000 ATTACKS=5000 SEED=n ARGS="-k name"; root for power cuts
	@EVENRAY_SOAK=1 $(if $(KILLS),KILLS=$(KILLS)) $(if $(CUTS),CUTS=$(CUTS)) $(if $(SEED),SEED=$(SEED)) $(if $(MINUTES),MINUTES=$(MINUTES)) $(BIN)/python -m pytest -s tests/soak $(ARGS)

clean:           ## remove the environment and what the demo wrote
	rm -rf $(VENV) build evenray-demo

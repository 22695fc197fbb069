# Everything a newcomer needs: `make study` and `make test` do all of their own set-up in .venv.
PYTHON ?= python3
# `make test PYTHON=python3.13` has an environment and versions of its own: JAX 0.12 needs Python 3.12.
OTHER := $(filter-out python3,$(notdir $(PYTHON)))
VENV := .venv$(OTHER:%=-%)
PINS := $(if $(wildcard constraints-$(OTHER).txt),constraints-$(OTHER).txt,constraints.txt)
BIN := $(VENV)/bin
STUDY ?= study
JOBS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv study test parity check nightly audit bench badge clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(VENV)/.ready ## set up .venv

$(VENV)/.ready: setup.py $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; run make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(PINS) --editable '.[test]'
	@touch $@

study: venv ## build data, run the CPU scaling study (FULL=1: 1.5 decades), write $(STUDY)/report.html
	$(BIN)/python -m launch.study --out=$(STUDY) $(if $(FULL),--full)

test: venv ## run the tests, in two processes (JOBS=n: in n)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# PyTorch lives in an environment of its own, as no part of vdit needs it.
$(VENV)-parity/.ready: setup.py constraints.txt constraints-parity.txt
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/pip install --quiet --constraint constraints.txt --constraint constraints-parity.txt \
		--editable '.[parity]'
	@touch $@

parity: $(VENV)-parity/.ready ## compare with PyTorch's implementations, in .venv-parity (WEIGHTS=folder: a Wan pipeline's)
	WEIGHTS='$(WEIGHTS)' $(VENV)-parity/bin/python -m pytest tests/parity$(if $(WEIGHTS),/test_pipeline.py)

check: venv ## formatting, lint, types, which folder may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

audit: ## known faults of the pinned dependencies; asks PyPI about each of them
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet pip-audit==2.10.1
	@cd $(VENV)-audit && bin/pip-audit --strict --requirement $(CURDIR)/constraints.txt --no-deps --disable-pip 2>errors \
		&& tail -n 1 errors || { tail -n 1 errors; grep -q '^Found' errors \
		&& echo "error: raise these pins in constraints.txt, or say in docs/reliability.md why they do no harm" \
		|| echo "error: PyPI's advisories cannot be read from here, so nothing is known of the pins"; exit 1; }

bench: venv ## what the CPU reaches, model size by model size
	$(BIN)/python -m benchmarks.step

figures: venv ## draw the README's figures and tables again, from $(STUDY) and weights/
	$(BIN)/python -m launch.showcase weights/balls
	$(BIN)/python -m launch.overview $(STUDY)
	$(BIN)/python -m vdit.scaling.report $(STUDY) --out=$(STUDY)/report.html --figures=docs/figures
	$(BIN)/python -m benchmarks.study $(STUDY) --keep
	$(BIN)/python -m benchmarks.readme

nightly: venv ## what is too slow for CI
	$(BIN)/python -m benchmarks.step --json > benchmarks/step.json
	$(BIN)/python -m pytest -m nightly
	@if python3.13 -c '' 2>/dev/null; then $(MAKE) test PYTHON=python3.13; else echo "no python3.13: not tested on it"; fi

badge: ## say which copy the notebooks' Colab badges open and install (REPO=account/name)
	@echo '$(REPO)' | grep -Eqx '[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+' || { echo "error: say which: make badge REPO=account/name"; exit 2; }
	sed -i.bak -E 's#(colab\.research\.google\.com/github/|REPOSITORY = \\"https://github\.com/)[^/]+/[^/\"]+#\1$(REPO)#' \
		notebooks/*.ipynb
	rm notebooks/*.bak

clean: ## remove .venv and caches, keep studies and data
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis

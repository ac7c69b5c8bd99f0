# Everything a developer does, each with the environment it needs: made once, visibly, again when pyproject.toml changes.
#   make demo    the sample shop as in production, at http://127.0.0.1:8000 (PORT=9000 make demo)
#   make test    the whole suite against real servers
# PYTHON=python3.12 chooses another interpreter, VENV=dir another place.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
ARGS ?=
# Test processes at a time; most tests wait for servers, so that three are good for two cores. JOBS=0 runs in one.
JOBS ?= 3

# Tests that compare milliseconds run after the others: two at a time where they wait, one where they are under load.
# ARGS may choose tests of one kind only; without ARGS nothing is read but the files that have what is wanted.
BESIDE := -n $(JOBS) --dist loadfile --no-loadscope-reorder
CALMLY := -n $(if $(filter 0,$(JOBS)),0,2) --dist loadfile
marked = $(if $(ARGS),$(ARGS),$$(grep -rl --include='test_*.py' 'mark[.]$(1)' tests))
# pytest: marks, how, which. What fails beside others runs once more by itself, so that a machine too busy for a test is
# told from a defect; the first report stays above. Where ARGS choose, to find none is no failure.
define pytest
	@run() { echo "$(BIN)/python -m pytest -m '$(1)' $$*"; $(BIN)/python -m pytest -m "$(1)" "$$@"; }; \
	run $(2) $(3); code=$$?; \
	if [ $$code -eq 1 ]; then \
		echo "==> once more, by itself: what failed above"; \
		run --maxfail 5 --last-failed --last-failed-no-failures none $(3) && code=0; \
		[ $$code -ne 0 ] || echo "==> passed by itself, failed beside others: see above"; \
	fi; \
	[ $$code -eq 0 ] $(if $(ARGS),|| [ $$code -eq 5 ])
endef

EXTRAS_demo := embedded,sample
EXTRAS_test := test,bench
EXTRAS_lint := test,bench,lint,deploy
EXTRAS_bench := bench
EXTRAS_deploy := deploy-test

.DELETE_ON_ERROR:
.PHONY: help setup demo test test-lowest lint format bench faults drain-test deploy deploy-test traps clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1#/p' $(MAKEFILE_LIST) | awk -F'#' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: pyproject.toml | $(BIN)/python  ## what all the others need, at once: quicker than one by one
	@$(PIP) install --quiet --editable '.[$(EXTRAS_demo),$(EXTRAS_lint),$(EXTRAS_deploy)]'
	@touch $(foreach name,demo test lint bench deploy,$(VENV)/.$(name))

demo: $(VENV)/.demo  ## the sample shop: web, worker and a local Valkey; Ctrl-C stops all
	@exec env FLASK_APP=sample_app DATA_DIR=$${DATA_DIR:-var/shop} ENVIRONMENT=$${ENVIRONMENT:-development} $(BIN)/flask prod up --data var $(ARGS)

test: $(VENV)/.test  ## the suite; ARGS="-k limit" chooses
	$(call pytest,not faults and not deploy and not alone,$(BESIDE),$(ARGS))
	$(call pytest,not faults and not deploy and alone,$(CALMLY),$(call marked,alone))

test-lowest: $(VENV)-lowest/.test  ## the suite with the oldest versions that pyproject.toml allows
	$(VENV)-lowest/bin/python -m pytest -m "not faults and not deploy" $(ARGS)

lint: $(VENV)/.lint  ## ruff, flake8, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.lint  ## let ruff write the code's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench  ## bare Flask, the same libraries by hand, and the kit, side by side; ARGS=--gate as CI does
	$(BIN)/python -m bench $(ARGS)

faults: $(VENV)/.test  ## killed workers, frozen servers, broken networks; FAULTS_SECONDS=5 for a short run
	$(call pytest,faults and not alone,$(BESIDE) --timeout 900,$(call marked,faults))
	$(call pytest,faults and alone,--timeout 900,$(call marked,alone))

drain-test: $(VENV)/.demo  ## a deploy of the sample shop, rehearsed: no request may be lost; ARGS="--rounds 5"
	@data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT && export FLASK_APP=sample_app DATA_DIR="$$data" \
		ENVIRONMENT=$${ENVIRONMENT:-development} DRAIN_SECONDS=$${DRAIN_SECONDS:-3} && $(BIN)/flask prepare && \
		$(BIN)/flask prod drain-test --rounds 1 --path /health/live --path / --path /api/products $(ARGS)

deploy: $(VENV)/.deploy  ## deploy/ anew, from the templates and the sample shop's settings
	ENVIRONMENT=development $(BIN)/flask --app sample_app prod deploy init all --to deploy --yes

deploy-test: $(VENV)/.deploy  ## deployment files built, started and checked by real programs
	$(call pytest,deploy,,$(call marked,deploy))

traps: $(VENV)/.test  ## every known trap, by hand and with the kit; writes docs/traps.md
	$(BIN)/python -m tests.traps.record

clean:  ## remove environments, caches and the demo's data
	rm -rf $(VENV) $(VENV)-lowest var build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
		.hypothesis .coverage* bench/results.json callgrind.out.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@echo "==> making the environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flask-prod needs Python 3.11 or newer: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo "==> installing flask-prod[$(EXTRAS_$*)] into $(VENV), once"
	@$(PIP) install --quiet --editable '.[$(EXTRAS_$*)]'
	@touch $@

$(VENV)-lowest/.test: pyproject.toml tests/lowest.py
	@echo "==> making $(VENV)-lowest with the oldest versions that pyproject.toml allows"
	@$(PYTHON) -m venv --clear $(VENV)-lowest
	@$(PYTHON) tests/lowest.py > $(VENV)-lowest/constraints.txt
	@$(VENV)-lowest/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
		--constraint $(VENV)-lowest/constraints.txt --editable '.[test,bench]'
	@touch $@

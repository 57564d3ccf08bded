# Each recipe is one line that a person can type. `make check` is what CI runs.
# `make demo` and `make test` set up all they need, on a fresh Debian 12 too.

PYTHON := .venv/bin/python
PACKAGES := src/sealane
TESTS ?= tests
ARGS ?=
# Two for each processor, since tests wait more than they compute; at most eight. 0: all in one process, as debuggers need it.
WORKERS ?= $(shell n=$$((2 * $$(nproc))); echo $$((n < 8 ? n : 8)))
PYTEST := $(PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# What a module was compiled to is kept: tests start thousands of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup tools demo debian13 test test-debian13 test-long check lint types layers docs bench fmt clean

help:            ## Show this list.
	@grep -E '^[a-z0-9-]+: .*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 14

setup: .venv/ready    ## A virtual environment with sealane and its development tools.

.venv/ready: pyproject.toml scripts/setup
	scripts/setup

tools:           ## The Debian packages that tests and benchmarks run against (needs root).
	scripts/install-tools

demo: setup      ## The main job, in private namespaces: nothing of this machine's network is touched.
	scripts/in-namespaces $(PYTHON) -m examples.shop.demo

debian13:        ## A root of Debian 13 in /var/tmp for its engines, where it can be made (once, a minute, 1.5 GB).
	-@scripts/test-debian13 --prepare

test: setup tools debian13 ## All tests, in private namespaces, on all processors.
	$(PYTHON) scripts/test-twice $(WORKERS) -m "not slow" $(TESTS) $(ARGS)

test-debian13:   ## With the engines and the Python of Debian 13: tests of the integrations, and all units.
	scripts/test-debian13 $(ARGS)

test-long: setup tools ## The slow ones too: the whole crash sweep, long property runs, 14,000 packets explained and sent.
	HYPOTHESIS_PROFILE=long SEALANE_DIFFERENTIAL_SEEDS=8 SEALANE_TESTS_FORK=0 scripts/in-namespaces scripts/no-survivors $(PYTEST) $(TESTS) $(ARGS)

check: lint types layers docs test ## Everything that must hold for a commit.

lint: setup      ## ruff: rules and format.
	$(PYTHON) -m ruff check src tests bench examples && $(PYTHON) -m ruff format --check src tests bench examples

types: setup     ## mypy, strict.
	$(PYTHON) -m mypy

layers: setup    ## import-linter: imports point down.
	.venv/bin/lint-imports

docs: setup      ## Generated pages are up to date, links and commands in the docs are real.
	$(PYTHON) -m pytest -q -p no:cacheprovider tests/docs

bench: setup tools ## Us and the peers side by side, in one run; prints medians and ratios.
	scripts/in-namespaces $(PYTHON) -m bench $(ARGS)

fmt: setup       ## Format and fix what can be.
	$(PYTHON) -m ruff check --fix src tests bench examples; $(PYTHON) -m ruff format src tests bench examples

clean:           ## Remove what was made here.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
MORE  := $(VENV)/.integrations

PIP   := $(BIN)/python -m pip install -c constraints.txt
DEV   := .[plots,cli,dev]

# The interpreter that makes the environment: PYTHON=python3.12 to choose another.
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c "" 2>/dev/null && echo $$p && break; done)
# More arguments for pytest, mypy, the demo or a benchmark: make test ARGS="-k swag -x"
ARGS ?=
# The torch that `make lock` resolves for.
TORCH ?= 2.13.0

# Workers of `make test`: as many as there are cores; 0: in this process, as a debugger needs it.
WORKERS ?= logical

# Small tensors are slower on many threads; timings and tests want the same number everywhere.
soak bench: export OMP_NUM_THREADS ?= 2
test integrations: export OMP_NUM_THREADS ?= 1
# Workers that compile would import torch each.
test: export TORCHINDUCTOR_COMPILE_THREADS ?= 1
test soak integrations: export MPLBACKEND ?= Agg

# laplace-torch and its backpack ask for torchvision, whose package does not import beside the CPU build
# of torch, and use nothing of it: they come without what they ask for, which comes by name.
define install_laplace
$(1) einconv einops linear_operator opt_einsum tqdm unfoldNd \
&& $(1) --no-deps asdfghjkl backpack-for-pytorch curvlinops-for-pytorch laplace-torch
endef

# A line for each step; what it prints is shown where it fails.
define step
@echo "setup: $(1)"
@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; { $(2); } > "$$log" 2>&1 || { cat "$$log"; exit 1; }
endef

# Tests start many processes; without bytecode on disk, each compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test soak integrations lint format types docs docs-serve bench study-uci lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything for development, at the pinned versions

$(STAMP): pyproject.toml constraints.txt
	$(call step,1 of 4: an environment in $(VENV),test -x $(BIN)/python || $(PYTHON) -m venv $(VENV))
	$(call step,2 of 4: what builds the package,$(PIP) hatchling editables)
	$(call step,3 of 4: torch and the other dependencies (some minutes),$(PIP) --no-build-isolation -e "$(DEV)")
	$(call step,4 of 4: the baselines of comparisons,$(call install_laplace,$(PIP)))
	@touch $@

# The trainers are large, and only their own tests need them.
$(MORE): $(STAMP)
	$(call step,Lightning and transformers (some minutes),$(PIP) --no-build-isolation -e ".[integrations]")
	@touch $@

demo: setup ## run the demonstration on scikit-learn's digits
	$(BIN)/lowland run configs/digits.yaml $(ARGS)

# Each worker begins with a part of the files in their order, so that what a file's tests share is
# made once, and takes tests from the end of another's part when its own is done.
# Both streams in one, so that their order holds when they go to a file.
# Without pytest's logging: it adds handlers to torch's forty loggers three times a test.
test: setup ## run the tests and the doctests
	@$(BIN)/python -m pytest -p no:logging -n $(WORKERS) --maxprocesses 8 --dist worksteal $(ARGS) 2>&1

soak: setup ## run the hours-long tests that `make test` leaves out
	@$(BIN)/python -m pytest -m soak --timeout=0 $(ARGS) 2>&1

integrations: $(MORE) ## install Lightning and transformers, and run the tests with them
	@$(BIN)/python -m pytest -m integrations tests/integrations $(ARGS) 2>&1

lint: setup ## ruff: rules and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## ruff: mend what it can, and lay out
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

types: setup ## mypy
	$(BIN)/mypy $(ARGS)

# What it would warn of is the future of mkdocs itself.
docs docs-serve: export NO_MKDOCS_2_WARNING := 1

# Not --quiet: it hides warnings from --strict too.
docs: setup ## build the documentation into build/site; a broken link is an error
	$(BIN)/mkdocs build --strict $(ARGS)

docs-serve: setup ## show the documentation in a browser, as it is being written
	$(BIN)/mkdocs serve $(ARGS)

bench: setup ## measure speed and memory
	$(BIN)/python benchmarks/run.py $(ARGS)

study-uci: setup ## run studies/uci, hours on one core, and rewrite its tables
	$(BIN)/python studies/uci/run.py $(ARGS)

lock: ## resolve the newest versions in a fresh environment and rewrite constraints.txt
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet torch==$(TORCH) hatchling editables
	$(VENV)-lock/bin/python -m pip install --quiet --no-build-isolation torch==$(TORCH) -e ".[plots,cli,dev,integrations]"
	$(call install_laplace,$(VENV)-lock/bin/python -m pip install --quiet torch==$(TORCH))
	$(VENV)-lock/bin/python -m pip freeze --all --exclude-editable | sed -E '/^pip==/d; s/\+[a-z0-9.]+$$//' > constraints.txt
	rm -rf $(VENV)-lock

clean: ## remove the environment, caches and builds; keeps runs/
	rm -rf $(VENV) $(VENV)-lock build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything a person runs, by name. Python 3.11 or newer, make and a package index are all it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install up test check fmt bench stress docs clean

help: ## Show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(VENV)/.core: pyproject.toml constraints.txt
	@test -d $(VENV) || { echo "Creating $(VENV)…"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing Noria…"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "Installing what tests, checks and docs need…"
	@$(PIP) --editable ".[dev,docs,postgres,train]"
	@touch $@

install: $(VENV)/.dev ## Install everything for working on Noria
	@$(BIN)/noria models pull smollm2-135m-instruct multilingual-e5-small

up: $(VENV)/.core ## Start the server and the console; pulls the default models the first time
	@exec $(BIN)/noria up

test: $(VENV)/.dev ## Run the default test suite
	$(BIN)/python -m pytest -n 3 --dist loadfile

check: $(VENV)/.dev ## Lint, types, layers, format
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/lint-imports
	$(BIN)/pyright

fmt: $(VENV)/.dev ## Format and mend what can be mended
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples

bench: $(VENV)/.dev ## Run the benchmarks beside their peers (long; results go to benchmarks/results)
	$(BIN)/python -m benchmarks.run

stress: $(VENV)/.dev ## Run the tests that kill, fill and flood (long; NORIA_STRESS_S=600 floods ten minutes)
	$(BIN)/python -m pytest tests/stress tests/wheel tests/training tests/evals -m "slow and not postgres" --timeout 1200 -p no:xdist

docs: $(VENV)/.dev ## Build the documentation into site/
	$(BIN)/python -m mkdocs build --strict

clean: ## Remove what was built; models and homes stay
	rm -rf $(VENV) site dist build .pytest_cache .ruff_cache .hypothesis

# Every target does all the set-up it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
EXTRAS ?= dev
# One worker more than there are cores; the order and who runs what: tests/conftest.py.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
# Else each process of a test compiles its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-faults test-long check lab-experts bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## make .venv (pip alone, no root); TORCH_INDEX=URL where pip finds no CPU build of torch
	@$(PYTHON) m3_exp/install.py --venv $(VENV) --torch-index "$(TORCH_INDEX)" --extras "$(EXTRAS)"

demo: setup ## merge the lab's experts with and without M3, score them with real vLLM, print the table
	@$(BIN)/m3 run sweeps=demo limit=20 tracker=none engine=$$(cat $(VENV)/.m3-engine)
	@echo
	@echo "Next, after: source $(BIN)/activate"
	@echo "  m3 run sweeps=table1 (all pairs), m3 plan --list (the axes)"
	@echo "  m3 run -m ratio=grid method=average,ties"
	@echo "  with a GPU: m3 run sweeps=table1 family=llama2_13b"

test: setup ## all tests but the long forms, as CI runs them, on all cores
	@$(BIN)/python -m pytest -q $(PARALLEL)

test-fast: setup ## those that take neither an engine nor seconds, for the inner loop
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not engine and not slow and not long and not faults"

test-faults: setup ## kill, starve and damage the real program, continue it, compare bytes
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/faults -m "faults and not long"

test-long: setup ## the long forms of the slow tests
	@$(BIN)/python -m pytest -q -m long

check: setup ## ruff and strict mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

lab-experts: ## train the lab's three experts again (CPU, seeded, under 20 minutes each)
	@$(MAKE) setup EXTRAS=dev,lab
	@$(BIN)/python -m m3_exp.lab.train --all
	@$(BIN)/python -m m3_exp.lab.masked_lm

bench: setup ## time merging beside mergekit (docs/benchmarks)
	@$(BIN)/python benchmarks/merge.py

clean: ## remove the environment and what was built; results stay
	rm -rf $(VENV) build *.egg-info

# Everything runs in one virtual environment, .venv; `make demo` and `make test` make it if it is missing.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format bench clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(INSTALLED) ## why does a real network call a real photo a cat? writes askwhy-demo.html
	$(BIN)/askwhy demo --out askwhy-demo.html

test: $(INSTALLED) ## the tests, without the slow ones
	$(BIN)/python -m pytest

test-slow: $(INSTALLED) ## the slow tests
	$(BIN)/python -m pytest -m slow

check: $(INSTALLED) ## what has to be green before a commit: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: $(INSTALLED) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## askwhy beside its peers and the floor (about 30 minutes)
	$(BIN)/python benchmarks/vision.py
	$(BIN)/python benchmarks/gradients.py
	$(BIN)/python benchmarks/relevance.py
	$(BIN)/python benchmarks/shapley.py
	$(BIN)/python benchmarks/surrogates.py
	$(BIN)/python benchmarks/anchors.py
	$(BIN)/python benchmarks/dream.py --rounds 3 --steps 40
	$(BIN)/python benchmarks/inside.py --rounds 3 --images 300
	$(BIN)/python benchmarks/start.py

clean: ## remove the virtual environment and what the tools left behind
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	@echo "askwhy: installing into .venv: torch (CPU), scikit-learn, scikit-image, two demo networks and the test tools, about 1 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --progress-bar on --constraint constraints.txt --editable '.[dev]'
	@touch $@

# laconic from nothing but python3 and make. `make help` lists what there is.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TORCH  := 2.13.0

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-cluster lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## train, freeze and compress the standard library's source beside the peers (10 minutes)
	$(BIN)/laconic quickstart

test: $(STAMP) ## the tests of every day (minutes, no network)
	$(BIN)/python -m pytest -m "not slow" -n logical --dist loadfile

# pytest exits with 5 where no test is marked slow: nothing to run is no failure.
test-slow: $(STAMP) ## the tests that take minutes each
	@$(BIN)/python -m pytest -m slow -n logical --dist loadfile || { status=$$?; test $$status -eq 5 || exit $$status; }

test-cluster: $(STAMP) ## the slow tests that want Ray and DeepSpeed, which it installs
	$(BIN)/pip install --quiet -e '.[ray,deepspeed]'
	$(BIN)/python -m pytest -m slow tests/test_cluster.py tests/train/test_together.py

lint: $(STAMP) ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean: ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

# Without an NVIDIA GPU, torch's CPU build comes first, so that the requirement of [train] is met and no
# CUDA libraries (several GB) follow. It is called 2.13.0+cpu: on a local index, or on PyTorch's own; where
# neither has it (macOS, for one), plain 2.13.0 is the CPU build already.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "laconic needs Python 3.10 or later, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1): try make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed: install the venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "setting up $(VENV) (once; minutes)"
	@if ! command -v nvidia-smi >/dev/null 2>&1 && ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
	  $(BIN)/pip install --quiet torch==$(TORCH)+cpu 2>/dev/null || \
	  $(BIN)/pip install --quiet --retries 1 --timeout 15 --index-url https://download.pytorch.org/whl/cpu torch==$(TORCH)+cpu 2>/dev/null || \
	  $(BIN)/pip install torch==$(TORCH); \
	fi
	$(BIN)/pip install --quiet -e '.[train,bench,dev]'
	@touch $@

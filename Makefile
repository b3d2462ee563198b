# `make help` lists the targets. `make demo` and `make test` need nothing done before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LLAMA := .venv-llama
ANTHROPIC := .venv-anthropic
BUNDLED := python/src/mlxcel/_bin/mlxcel
PYTHON_SOURCES := python bench tiny-model scripts

.DEFAULT_GOAL := help
.PHONY: help check-tools setup build demo test test-rust test-python test-clients lint parity wheel docs bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check-tools:
	@scripts/check-tools $(PYTHON)

$(BIN)/python: | check-tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Again only when what is to be installed changed.
$(VENV)/installed: python/pyproject.toml python/hatch_build.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable 'python[dev]'
	@touch $@

build: $(VENV)/installed
	cargo build --release --locked
	@mkdir -p $(dir $(BUNDLED))
	@ln -sfn ../../../../target/release/mlxcel $(BUNDLED)

setup: check-tools build ## Create .venv, install the package, build the server (quick when nothing changed)

demo: setup ## Set up, and let the built-in model answer through the whole chain
	$(BIN)/python python/examples/quickstart.py

test: lint test-rust test-python ## Everything: formats, lints, types, Rust and Python tests with the real server

lint: setup
	cargo fmt --check
	cargo clippy --locked --all-targets -- --deny warnings
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	cd python && ../$(BIN)/mypy

test-rust: setup
	cargo test --locked --quiet

test-python: setup
	$(BIN)/pytest python -q

test-clients: setup $(LLAMA)/installed $(ANTHROPIC)/installed ## The client against llama-cpp-python's server, and Anthropic's SDK against ours
	MLXCEL_TEST_LLAMA_PYTHON=$(CURDIR)/$(LLAMA)/bin/python $(BIN)/pytest python/tests/clients/test_llama_cpp_python.py -q
	$(ANTHROPIC)/bin/python -m pytest python/tests/clients/test_anthropic.py -q

# Built from source the first time: some minutes.
$(LLAMA)/installed:
	$(PYTHON) -m venv $(LLAMA)
	$(LLAMA)/bin/python -m pip install --quiet 'llama-cpp-python[server]' gguf numpy
	@touch $@

# The server's binary is found in the checkout.
$(ANTHROPIC)/installed: python/pyproject.toml
	$(PYTHON) -m venv $(ANTHROPIC)
	$(ANTHROPIC)/bin/python -m pip install --quiet --editable python 'anthropic>=2' pytest pytest-asyncio hypothesis
	@touch $@

parity: setup ## The whole parity suite against mlx-lm (make test takes a sample)
	$(BIN)/pytest python/tests/parity -q --parity=all

wheel: setup ## Build a wheel for this platform that carries the server and the built-in model
	$(BIN)/python -m build --wheel --outdir dist python

docs: setup ## Build the documentation site
	$(BIN)/python -m pip install --quiet --editable 'python[docs]'
	$(BIN)/mkdocs build --strict

bench: setup ## Decode and prefill against mlx_lm.server, side by side
	$(BIN)/python bench/serve_vs_mlx_lm.py

clean: ## Remove what was built (.venv, target, dist)
	rm -rf $(VENV) $(LLAMA) target dist site $(BUNDLED)

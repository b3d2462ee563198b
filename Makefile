# `make help` lists the targets. `make demo` and `make test` need nothing done before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LLAMA := .venv-llama
BUNDLED := python/src/mlxcel/_bin/mlxcel
PYTHON_SOURCES := python bench tiny-model scripts

# The SDKs that the server is tested with, each in an environment of its own as its file pins it.
CLIENTS := .clients
CLIENT_TESTS := python/tests/clients
SDKS := $(basename $(notdir $(wildcard $(CLIENT_TESTS)/requirements/*.txt)))
NPM_SDKS := $(notdir $(wildcard $(CLIENT_TESTS)/npm/*))

.DEFAULT_GOAL := help
.PHONY: help check-tools setup build demo test test-rust test-python test-llama lint parity wheel docs bench clean
.PHONY: test-clients test-clients-python test-client-npm $(SDKS:%=test-client-%)

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

test-clients-python: $(SDKS:%=test-client-%)

test-clients: test-clients-python test-client-npm ## The server against the SDKs people use (needs Node.js)

$(SDKS:%=test-client-%): test-client-%: setup $(CLIENTS)/%/installed
	$(CLIENTS)/$*/bin/python -m pytest -q $(CLIENT_TESTS)/test_$*.py

test-client-npm: setup $(NPM_SDKS:%=$(CLIENTS)/npm-%/installed)
	$(BIN)/pytest -q -p no:asyncio $(CLIENT_TESTS)/test_npm.py

$(CLIENTS)/npm-%/installed: $(CLIENT_TESTS)/npm/%/package.json $(CLIENT_TESTS)/npm/%/package-lock.json
	@command -v npm >/dev/null || { echo 'missing: Node.js 20 or newer, with npm' >&2; exit 1; }
	@mkdir -p $(@D)
	cp $^ $(@D)
	cd $(@D) && npm ci --silent --no-audit --no-fund
	@touch $@

# .venv's pip serves them all: an environment without one is made in no time.
$(CLIENTS)/%/installed: $(CLIENT_TESTS)/requirements/%.txt | $(BIN)/python
	$(PYTHON) -m venv --clear --without-pip $(@D)
	$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --no-compile --requirement $<
	@touch $@

test-llama: setup $(LLAMA)/installed ## The client against llama-cpp-python's server, in an environment of its own
	MLXCEL_TEST_LLAMA_PYTHON=$(CURDIR)/$(LLAMA)/bin/python $(BIN)/pytest python/tests/llama_cpp -q

# Built from source the first time: some minutes.
$(LLAMA)/installed:
	$(PYTHON) -m venv $(LLAMA)
	$(LLAMA)/bin/python -m pip install --quiet 'llama-cpp-python[server]' gguf numpy
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
	rm -rf $(VENV) $(LLAMA) $(CLIENTS) target dist site $(BUNDLED)

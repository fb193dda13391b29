# `make demo` and `make test` are all a fresh machine needs; the rest is for developers.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
RUN_OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-crash test-data test-backends check format bench bench-peers wheel fab clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

# The stamp is newer than what it was made from, so this runs once and after changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## make the environment (.venv)

demo: install  ## the whole loop on handwritten digits: train, compress, sign, install
	$(BIN)/python -m simulations.run $(RUN_OPTIONS)

# Three at a time: the integration tests mostly wait for Flower's polls. One thread each:
# more would spin while they wait for a core that another has.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not crash'
test: install  ## all tests but the slow suites below
	@logs=$$(mktemp -d); \
	$(PYTEST) tests/integration >"$$logs/1" 2>&1 & waiting=$$!; \
	$(PYTEST) --ignore tests/integration --ignore tests/fedge >"$$logs/2" 2>&1 & apps=$$!; \
	$(PYTEST) tests/fedge; library=$$?; \
	wait $$apps; apps=$$?; cat "$$logs/2"; \
	wait $$waiting; waiting=$$?; cat "$$logs/1"; \
	rm -rf "$$logs"; exit $$((library | apps | waiting))

test-crash: install  ## kill runs at 100 random points, and by each fault; they must end in the same model
	$(BIN)/python -m pytest -m crash

test-data: install  ## tests on real data; needs FEDGE_DATA_ROOT
	$(BIN)/python -m pytest -m local_data

.venv-backends/.installed: pyproject.toml constraints-backends.txt
	$(PYTHON) -m venv .venv-backends
	.venv-backends/bin/python -m pip install --quiet --constraint constraints-backends.txt \
		--editable '.[dev,litert,executorch,openvino]'
	@touch $@

test-backends: .venv-backends/.installed  ## tests of LiteRT, ExecuTorch and OpenVINO (1 GB more, an environment of their own)
	.venv-backends/bin/python -m pytest -p no:anyio -m backends

check: install  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## all benchmarks, as ratios
	$(BIN)/python -m simulations.benchmarks.engine
	$(BIN)/python -m simulations.benchmarks.secagg
	$(BIN)/python -m simulations.benchmarks.compression

.venv-peers/.installed: simulations/benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --no-deps --requirement $<
	@touch $@

bench-peers: install .venv-peers/.installed  ## the simulator against Flower's and pfl-research
	$(BIN)/python -m simulations.benchmarks.engine

wheel: install  ## build the library's wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist

fab: install  ## build Flower's app bundle into dist/
	@mkdir -p dist
	FLWR_TELEMETRY_ENABLED=0 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/flwr build
	mv ./*.fab dist/

clean:  ## remove what the other targets made, but not the environment
	rm -rf dist outputs multirun .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

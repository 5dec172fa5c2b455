PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIR ?= .
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
# The fast tests look at fewer examples of each property.
FAST := PROPERTY_EXAMPLES=5 $(PYTEST) -m

.DEFAULT_GOAL := help
.PHONY: help run chat studio test test-fast lint typecheck format cov picture chaos gate-fuzz bench lock image clean

help: ## print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: export AGENT_RUNTIME__DEV ?= $(if $(filter-out 127.0.0.1 ::1 localhost,$(AGENT_RUNTIME__HOST)),false,true)
run: $(VENV)/.run ## serve on 127.0.0.1:8001 with SQLite and the offline model
	$(BIN)/python server.py

chat: $(VENV)/.run ## open the terminal IDE in DIR=path (ARGS="--session ID")
	$(BIN)/python -m ide "$(DIR)" $(ARGS)

studio: $(VENV)/.dev ## serve the graph for LangGraph Studio (langgraph dev)
	$(BIN)/langgraph dev --no-browser --host 127.0.0.1 $(ARGS)

test: lint typecheck ## check everything that must hold
	$(PYTEST) --durations=25

test-fast: $(VENV)/.dev ## run the fast tests in two minutes: no chaos, evening, remote, Postgres
	$(FAST) "not slow and not postgres"

lint: $(VENV)/.dev ## check format, style and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

typecheck: $(VENV)/.dev ## check the types (mypy, strict)
	$(BIN)/mypy

format: $(VENV)/.dev ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cov: $(VENV)/.dev ## measure the coverage of the fast tests, on Postgres too; fail when it has fallen
	$(FAST) "not slow" --cov --cov-report=term:skip-covered

picture: $(VENV)/.dev ## write the picture of the graph into README.md and docs/architecture.md
	$(BIN)/python -m cli picture README.md docs/architecture.md

chaos: $(VENV)/.dev ## kill, stop and overload the service by hand (ARGS="--only kill --rounds 20")
	$(BIN)/python -m tests.chaos $(ARGS)

gate-fuzz: $(VENV)/.dev ## run what the gate accepts, and watch that it only reads (ARGS="--seed 1 --only sed")
	$(BIN)/python -m tests.gate $(ARGS)

bench: $(VENV)/.dev ## measure what a turn costs on this machine (ARGS=--quick)
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(VENV)/.dev ## pin the dependencies of pyproject.toml with hashes
	$(BIN)/uv pip compile --universal --generate-hashes --no-header --python-version 3.11 \
		pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --universal --generate-hashes --no-header --python-version 3.11 \
		--extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

image: ## build the container image
	docker build -t agent-runtime .

clean: ## remove the environment and the caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .langgraph_api .coverage*

$(VENV)/.run: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

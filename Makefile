PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIR ?= .

.PHONY: run chat studio test chaos format bench lock image clean

run: export AGENT_RUNTIME__DEV ?= $(if $(filter-out 127.0.0.1 ::1 localhost,$(AGENT_RUNTIME__HOST)),false,true)
run: $(VENV)/.run
	$(BIN)/python server.py

chat: $(VENV)/.run
	$(BIN)/python -m ide "$(DIR)" $(ARGS)

studio: $(VENV)/.dev
	$(BIN)/langgraph dev --no-browser --host 127.0.0.1 $(ARGS)

test: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist loadfile

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(VENV)/.dev
	$(BIN)/uv pip compile --universal --generate-hashes --no-header --python-version 3.11 \
		pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --universal --generate-hashes --no-header --python-version 3.11 \
		--extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

image:
	docker build -t agent-runtime .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .langgraph_api

$(VENV)/.run: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

# Two commands for a newcomer: `make demo` and `make test`. Needs Python 3.11+, git and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
# Half of the suite waits, for hosts and processes: it takes twice as long in one process.
WORKERS ?= auto

.PHONY: help demo demo-gpu test check format lock schema clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(STAMP) ## Generate a dataset, plan, train on the CPU, publish, draw predictions; no account needed
	@$(BIN)/offload demo

demo-gpu: $(STAMP) ## The whole GPU path on a simulated cloud; no account and no root needed
	@$(BIN)/offload demo --gpu

test: $(STAMP) ## Run the tests
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: $(STAMP) ## Everything that a commit must pass: format, lint, types, imports, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p .lint && ln -sfn .. .lint/gpu_offload
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

format: $(STAMP) ## Format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --no-annotate
lock: ## Lock the dependencies anew, with hashes
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	$(COMPILE) --extra train --extra simulator --group dev -o requirements/dev.txt
	$(COMPILE) --extra train -o infra/instance/requirements.txt
	$(COMPILE) -o requirements/plan.txt
	echo uv | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/uv.txt

schema: $(STAMP) ## Write the JSON schema of the configuration
	$(BIN)/python -m gpu_offload.orchestrator.settings.json_schema > docs/offload.schema.json

clean: ## Remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis demo demo-gpu *.egg-info build dist

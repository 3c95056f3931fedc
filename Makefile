# Two commands for a newcomer: `make demo` and `make test`. Needs Python 3.11+, git and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
WORKERS ?= auto
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist worksteal
# The marks are defined in tests/resources.py.
QUICK := not (simulator or process or training or root or workflow or sweep)
WHEEL_VENV := .venv-wheel

.PHONY: help demo demo-gpu lint quick test check coverage wheel docs format lock schema clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements/dev.txt pyproject.toml
	@echo "installing gpu-offload, PyTorch and Ultralytics into $(VENV): minutes the first time, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --only-binary :all: --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## Generate a dataset, plan, train on the CPU, publish, report; no account needed
	@$(BIN)/offload demo

demo-gpu: $(STAMP) ## The whole GPU path on a simulated cloud; no account and no root needed
	@$(BIN)/offload demo --gpu

lint: $(STAMP) docs ## Format, lint, types, the import contract and the documentation's links
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	@mkdir -p .lint && ln -sfn .. .lint/gpu_offload
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

quick: lint ## Lint, and the tests that need no process, no training, no simulated cloud and no long sweep
	$(PYTEST) -m '$(QUICK)' $(PYTEST_ARGS)

# Half of the suite waits for hosts and processes, so one more test runs than there are processors.
test: WORKERS := $(or $(WORKERS:auto=),$(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1))))
test: $(STAMP) ## Run the tests
	$(PYTEST) $(PYTEST_ARGS)

check: lint test ## Everything that a commit must pass

coverage: $(STAMP) ## Branch coverage of what decides and spends, with a floor for each part
	$(PYTEST) -m 'not (training or root or workflow)' --cov --cov-report= $(PYTEST_ARGS) tests/infra tests/orchestrator
	$(BIN)/coverage report --include='orchestrator/run/*' --fail-under=95
	$(BIN)/coverage report --include='infra/*' --fail-under=88

wheel: $(STAMP) ## Build the wheel, and run the quick tests against it, installed
	rm -rf dist $(WHEEL_VENV)
	$(BIN)/uv build --quiet --python $(BIN)/python --no-build-isolation --out-dir dist
	$(BIN)/uv venv --quiet --python $(BIN)/python $(WHEEL_VENV)
	$(BIN)/uv pip install --quiet --python $(WHEEL_VENV)/bin/python --only-binary :all: --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(WHEEL_VENV)/bin/python --no-deps dist/*.whl
	$(WHEEL_VENV)/bin/pytest -n $(WORKERS) --dist worksteal -m '$(QUICK)' $(PYTEST_ARGS)

docs: $(STAMP) ## Build the documentation site into site/; a broken link is an error
	$(BIN)/zensical build --strict --clean

format: $(STAMP) ## Format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --no-annotate
lock: ## Lock the dependencies anew, with hashes
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --only-binary :all: --require-hashes -r requirements/uv.txt; }
	$(COMPILE) --extra train --extra fsspec --extra hub --extra simulator --extra sweep --extra ray --group dev -o requirements/dev.txt
	$(COMPILE) --extra train -o infra/instance/requirements.txt
	$(COMPILE) --extra hub --constraint infra/instance/requirements.txt -o requirements/plan.txt
	echo uv | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/uv.txt

schema: $(STAMP) ## Write the JSON schema of the configuration
	$(BIN)/python -m gpu_offload.orchestrator.settings.json_schema > docs/offload.schema.json

clean: ## Remove what was made here
	rm -rf $(VENV) $(WHEEL_VENV) .coverage .lint .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis demo demo-gpu *.egg-info build dist site

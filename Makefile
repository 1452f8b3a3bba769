# Every verb sets up .venv first where it is missing or the lock has changed. Needs Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
CORES ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count())")
BIN := .venv/bin
READY := .venv/ready

.PHONY: help setup run smoke real-sample reference test docs lint format lock clean

help:  ## Show the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## Create .venv with the locked dependencies

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==0.13.8"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(READY)

run: $(READY)  ## Run the default benchmark (config.yaml) to results/7_report/index.html
	@$(BIN)/unmask check --time
	$(BIN)/snakemake --cores $(CORES)
	@echo "The report is results/7_report/index.html"

smoke: $(READY)  ## The same DAG in about three minutes (config/smoke.yaml)
	@$(BIN)/unmask check --time --config config/smoke.yaml
	$(BIN)/snakemake --cores $(CORES) --configfile config/smoke.yaml
	@echo "The report is results/smoke/7_report/index.html"

real-sample: $(READY)  ## The same DAG on real images in the folder layout (config/real-sample.yaml)
	@$(BIN)/unmask check --time --config config/real-sample.yaml
	$(BIN)/snakemake --cores $(CORES) --configfile config/real-sample.yaml
	@echo "The report is results/real-sample/7_report/index.html"

reference: $(READY)  ## Publish the default run's small tables and manifest to results/reference
	$(BIN)/unmask publish

test: $(READY)  ## Run all tests
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile

docs: $(READY)  ## Write docs/explainers.md and docs/metrics.md anew from the plug-ins
	@mkdir -p docs
	$(BIN)/unmask list explainers --markdown > docs/explainers.md
	$(BIN)/unmask list metrics --markdown > docs/metrics.md

lint: $(READY)  ## Check style and the workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(READY)  ## Put everything into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

lock: $(READY)  ## Renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-annotate \
		--no-header --no-emit-index-url --upgrade pyproject.toml --output-file requirements.lock

clean:  ## Delete .venv, caches and the results of the default and the smoke run
	rm -rf .venv .snakemake .pytest_cache .ruff_cache results/[0-9]_* results/logs results/benchmarks results/config.json results/manifest.json results/smoke

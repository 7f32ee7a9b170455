# Everything a contributor runs. `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The pure core: no I/O worth the name, no races, so nothing in it is hard to reach from a test. The registry's locks and
# durable writes are not held to a number: some of their lines are reached only when two processes collide.
ENGINE_CORE := errors model document overrides compose schema wording validate plan explain rewrite
REGISTRY_CORE := digests documents errors keys manifest record
# Those of the default suite that need no model: what they do not reach of the core is not tested closely enough.
CORE_TESTS := $(addprefix tests/,cli contract property unit/importing unit/registry unit/test_*.py)
COMMA := ,
CORE := $(subst $() ,$(COMMA),$(strip $(ENGINE_CORE:%=engine/recipe_engine/%.py) $(REGISTRY_CORE:%=registry/recipe_registry/%.py)))

MAKEFLAGS += --no-print-directory
# Two processes, one thread each: tiny models gain nothing from a second thread, and threads that spin cost everybody.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
PARALLEL := --numprocesses=2 --dist=worksteal
PYTEST = $(TEST_ENVIRONMENT) $(BIN)/pytest $(PARALLEL)

DEFINITIONS := containers/recipe_containers/definitions
UV_OPTIONS := --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --constraint $(CURDIR)/constraints.txt

.DEFAULT_GOAL := help
.PHONY: help system setup quickstart test test-all fmt lint type imports bench bench-ppo fuzz kills docs locks check clean

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z][a-z-]*:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) ## Make .venv with the engine and its tools; does nothing while the pins are the same

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make setup PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV), PyTorch included: some minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade --constraint constraints.txt pip
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --build-constraint constraints.txt \
		--editable '.[docker,harness,metrics,nf4,postgres,s3,tracking]' --group dev
	@touch $@

SERVERS := docker.io docker-registry mmdebstrap postgresql skopeo
system: ## Install the programs of servers that the tests start (Debian, as root)
	@dpkg-query --show $(SERVERS) > /dev/null 2>&1 || { apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(SERVERS) > /dev/null; }

quickstart: setup ## Fine-tune a first model: recipes/quickstart.toml
	@$(BIN)/recipe run recipes/quickstart.toml

test: setup ## The default suite, two to three minutes
	@$(PYTEST) -m "not slow and not network" --durations=5 --durations-min=4

test-all: setup ## Every test; those of the pure core with coverage, which must be whole
	@$(BIN)/coverage erase
	@$(TEST_ENVIRONMENT) $(BIN)/coverage run -m pytest $(PARALLEL) -m "not slow and not network" $(CORE_TESTS)
	@$(BIN)/coverage combine --quiet
	@rm -f .coverage.*  # what a killed process left half written
	@$(BIN)/coverage report --include="$(CORE)" --fail-under=100
	@$(PYTEST) -m "slow or network" --durations=10 --durations-min=10

fmt: setup ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format --quiet
	@$(BIN)/ruff check --fix --quiet

lint: setup ## Check style and format
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet

type: setup ## Check types, code and tests
	@$(BIN)/mypy --no-error-summary

imports: setup ## Check which part may import which
	@$(BIN)/lint-imports --no-logo

bench: setup ## Measure speed and memory
	@$(BIN)/python -m tests.bench

# The last release of TRL with PPO needs nothing but what is here, so it borrows the packages.
build/trl-peer/bin/python: | setup
	@$(BIN)/python -m venv build/trl-peer
	@$(BIN)/python -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' > "$$(echo build/trl-peer/lib/python3*/site-packages)/shared.pth"
	@build/trl-peer/bin/python -m pip install --quiet --no-deps trl==1.12.0

bench-ppo: setup build/trl-peer/bin/python ## Measure train.ppo beside the last TRL that had PPO
	@$(BIN)/python -m tests.bench.ppo

fuzz: setup ## Throw two million inputs at the recipe reader
	@$(BIN)/python -m tests.fuzz

kills: setup ## Kill thirty trainings at random moments; each must end in the same bytes
	@$(TEST_ENVIRONMENT) $(BIN)/python -m tests.bench.kills

docs: setup ## Check that the documentation is true
	@$(BIN)/pytest tests/docs

locks: ## Pin the libraries of the images anew; needs uv, and torch's CPU builds in UV_FIND_LINKS or UV_EXTRA_INDEX_URL
	@cd $(DEFINITIONS) && uv pip compile $(UV_OPTIONS) --output-file cpu.lock cpu.in
	@cd $(DEFINITIONS) && env -u UV_FIND_LINKS -u UV_EXTRA_INDEX_URL uv pip compile $(UV_OPTIONS) --output-file cuda.lock cuda.in
	@sed -n 's/^\([a-z0-9.-]*==[^ ]*\).*/\1/p' $(DEFINITIONS)/cpu.lock | grep -v '^torch==' > $(DEFINITIONS)/constraints.txt

check: lint type imports test ## What CI runs first: lint, types, imports, default suite

clean: ## Remove caches and reports; .venv and the runs stay
	@rm -rf build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find engine registry containers tests -name __pycache__ -type d -prune -exec rm -rf {} +

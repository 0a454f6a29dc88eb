# For a machine with Python 3.11 or later: `make run` installs and starts everything else.

PY ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
# Each process that is started would compile our modules again.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help venv run demo test bench lint types docs graph pictures vendor lock sbom audit clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The name changes with the clone's path and with Python, which the files in .venv contain.
MADE := .venv/made-$(shell { pwd; $(PY) -V; } 2>/dev/null | cksum | cut -d ' ' -f 1)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq --root-user-action=ignore

venv: $(MADE) ## .venv with the locked dependencies (the other targets create it when needed)
	@:

$(MADE): requirements-dev.lock pyproject.toml
	@command -v $(PY) >/dev/null || { echo "$(PY) is not installed: install Python 3.11 or later, or name one with make PY=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PY) -c 'import sys; sys.exit("Python %d.%d is too old: install Python 3.11 or later, or name one with make PY=/path/to/python3.11 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PY) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PY) has no venv: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Installing the dependencies into .venv (a minute or so the first time) ..."
	@test -e $@ || $(PY) -m venv --clear .venv
	@$(PIP) --require-hashes -r requirements-dev.lock && $(PIP) --no-build-isolation --no-deps -e . || { echo "pip could not install the packages (see above): check the network, a proxy (HTTPS_PROXY) and the disk, then run make again" >&2; exit 1; }
	@touch $@

run: venv ## the whole application, with a broker found or started
	@$(BIN)/python -m tools.run

demo: venv ## the example jobs on real input, from end to end; exits with 0 if all results are right
	@$(BIN)/python -m tools.demo

PACKAGE ?= jobtape

# Three processes on two cores, because the tests mostly wait for other processes.
test: venv ## all tests, each process on a broker and a PostgreSQL of its own; ARGS="-k name" are for pytest
	@$(BIN)/pytest -n 3 --dist worksteal $(ARGS)

bench: venv ## Jobtape beside other libraries on this machine, half an hour; ARGS="--quick --only throughput" and the like
	@$(BIN)/python -m benchmarks $(ARGS)

lint: venv ## ruff, the import rules between the rooms, and Biome on the dashboard's modules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.front_end.check lint

types: venv ## mypy --strict, and TypeScript on the dashboard's modules
	@$(BIN)/mypy --strict jobtape tools tests examples benchmarks
	@$(BIN)/python -m tools.front_end.check types

pictures: venv ## draw the pictures of the dashboard in the documentation, with Chromium
	@$(BIN)/python -m tests.dashboard.pictures

vendor: venv ## copy the locked npm packages that browsers load to producer/dashboard/static/vendor
	@$(BIN)/python -m tools.front_end.vendor

docs: venv ## the documentation as a site that works offline, in build/docs
	@$(BIN)/python -m sphinx -q -n -W -b html docs build/docs
	@echo "build/docs/index.html"

graph: venv ## the imports between the packages as a DOT graph; PACKAGE=jobtape.view for those of one
	@$(BIN)/import-linter drawgraph $(PACKAGE)

# The lock files contain names, versions and hashes. Whoever installs them chooses the package index.
UV ?= $(firstword $(wildcard $(BIN)/uv) uv)
COMPILE := $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet

lock: venv ## write the lock files from pyproject.toml
	@command -v $(UV) >/dev/null || { echo "uv is not installed: $(BIN)/pip install uv, then make lock again" >&2; exit 1; }
	@$(COMPILE) -o requirements.lock
	@$(COMPILE) --group dev -o requirements-dev.lock
	@$(COMPILE:pyproject.toml=) --group bench -o requirements-bench.lock

sbom: venv ## the bill of materials of what the package installs (CycloneDX), in build/sbom.cdx.json
	@$(BIN)/python -m tools.sbom

audit: venv ## look up the locked packages in a database of known vulnerabilities; needs the internet
	@$(BIN)/python -m tools.audit

clean: ## remove what was created here: .venv, .jobtape (all data), caches, our container
	@$(PY) -m tools.clean

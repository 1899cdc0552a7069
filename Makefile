# `make quickstart` and `make test` do all the set-up themselves; nothing else is needed but python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Other wheels of torch (a CUDA build, say): make quickstart PIP_ARGS="--extra-index-url URL" TORCH=torch
TORCH ?= torch==2.13.0
PIP_ARGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)

# The tests start many processes and rewrite thousands of assertions: each compiles all of it again where this is set.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test lint check slow story docs postgres clean

quickstart: $(VENV)/.run-ready
	$(BIN)/rmkit quickstart

test: $(VENV)/.test-ready postgres
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

slow: $(VENV)/.test-ready postgres
	$(BIN)/python -m pytest -m slow

# The whole loop on a planted task, killed between its stages; the page is story/story.html.
story: $(VENV)/.test-ready
	$(BIN)/rmkit bench story -o story

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file .mkdocs.yml
	@echo "open dist/docs/index.html"

# torch comes first and pinned: left to a resolver, its newest build brings gigabytes of CUDA libraries.
$(VENV)/.torch-ready: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rmkit needs python >= 3.11: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch (once) ..."
	$(PIP) -c constraints.txt $(TORCH)
	touch $@

$(VENV)/.run-ready: $(VENV)/.torch-ready pyproject.toml
	@echo "installing rmkit with the extras data, report, train and offline (once, a minute or two) ..."
	$(PIP) -c constraints.txt -e '.[data,report,train,offline]'
	touch $@

$(VENV)/.test-ready: $(VENV)/.torch-ready pyproject.toml
	@echo "installing rmkit with the extras all and dev (once, a few minutes) ..."
	$(PIP) -c constraints.txt -e '.[all,dev]'
	touch $@ $(VENV)/.run-ready

$(VENV)/.docs-ready: constraints.txt pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@

# The ledger's tests run against a real PostgreSQL, which pip cannot install. Where apt-get cannot either, they run on
# SQLite alone and say so; RMKIT_REQUIRE_POSTGRES=1 makes that a failure.
postgres:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || { \
	  echo "installing PostgreSQL for the ledger's tests ..."; \
	  { apt-get install -y -qq postgresql || { apt-get update -qq && apt-get install -y -qq postgresql; }; } >/dev/null 2>&1 \
	  || echo "WARNING: no PostgreSQL here and apt-get could not install it: the ledger is tested on SQLite alone" >&2; }

clean:
	rm -rf $(VENV) dist .rmkit .pytest_cache .mypy_cache .ruff_cache

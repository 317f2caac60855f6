# `make search` and `make test` set everything up by themselves: a virtual environment in .venv, then the work.
# They need Python 3.11 or newer, as python3 or as PYTHON=... They install the versions of requirements.lock, with
# CONSTRAINTS= the newest that pyproject.toml allows; `make lock` writes those into requirements.lock.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= build/demo
CONSTRAINTS ?= -c requirements.lock

.PHONY: search test test-long check docs install lock clean

search: $(VENV)/installed-all
	mkdir -p $(DEMO)
	test -d $(DEMO)/digits || $(BIN)/nas make-data $(DEMO)/digits
	$(BIN)/nas-submit examples/digits.yaml --data $(DEMO)/digits --storage sqlite:///$(DEMO)/nas.db --output $(DEMO)/runs
	$(BIN)/nas-export --storage sqlite:///$(DEMO)/nas.db --study digits --out $(DEMO)/best
	@echo "Browse the search: $(BIN)/nas-dashboard --storage sqlite:///$(DEMO)/nas.db"

test: $(VENV)/installed-dev check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope -m "not long and not gpu"

test-long: $(VENV)/installed-dev check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope -m "long and not gpu"

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Read the site: build/site/index.html"

install: $(VENV)/installed-all

lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --disable-pip-version-check -e '.[dev]'
	sed -n '/^#/p' requirements.lock > build/lock/header
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude-editable | sort -f | cat build/lock/header - > requirements.lock

$(VENV)/installed-%: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(CONSTRAINTS) -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# `make run` and `make test` each work alone on a fresh clone with nothing but Python >= 3.11, pip and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# The suite starts some hundreds of short programs: without compiled files each would compile all of ours again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test lint bench bench-all soak deep clean help

help:
	@echo "make run    install, then the demonstration: a day of swipes becomes alerts"
	@echo "make test   install the test extras, then ruff, mypy and the whole suite"
	@echo "make lint   ruff and mypy only"
	@echo "make bench  alerts a second of the real path beside the raw network, into build/bench.json (minutes)"
	@echo "make bench-all  the same, a full ledger and a backlog of a million too (a quarter of an hour, 15 GB of disk)"
	@echo "make soak   the whole recorded files, and 50,000 alerts a fault mix, through providers that misbehave, and each of"
	@echo "           their events in each notice of the library (half an hour)"
	@echo "make deep   the ledger and the send rules against their models: 2,000 random lives each (half an hour)"
	@echo "make clean  remove .venv, build and the caches"

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Swipebell needs Python 3.11 or newer; say make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed requirements-test.lock
	$(PIP) install --quiet --require-hashes -r requirements-test.lock
	touch $@

run: $(VENV)/installed
	$(BIN)/swipebell demo --dir build/demo

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m alone

bench: $(VENV)/installed
	$(BIN)/python -m loadtest.bench --json build/bench.json --table build/bench.md

bench-all: $(VENV)/installed
	$(BIN)/python -m loadtest.bench --all --json build/bench.json --table build/bench.md

soak: $(VENV)/installed-test
	SWIPEBELL_SOAK=1 $(BIN)/python -m pytest tests/e2e/test_send_real_input.py tests/e2e/test_fault_mixes.py tests/e2e/test_rules_recount.py
	SWIPEBELL_SOAK=1 $(BIN)/python -m pytest -n auto tests/e2e/test_templates_everything.py

deep: $(VENV)/installed-test
	SWIPEBELL_HYPOTHESIS=deep $(BIN)/python -m pytest -n 2 tests/ratelimit/test_rules_stateful.py tests/dispatcher/test_ledger_stateful.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

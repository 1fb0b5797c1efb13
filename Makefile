# Every target sets up the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test check fast attacks fuzz bench lint mutants names hints stand-ins browser formgrader clean

setup: $(READY)

# The packages that the chapters need are listed where students find them.
PACKAGES := $(wildcard solutions/*/requirements.txt)

$(READY): pyproject.toml $(PACKAGES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,cluster]' \
		$(PACKAGES:%=--requirement %)
	touch $@

demo: setup
	$(BIN)/python -m bench.demo

# The slowest files come first, except that test_thousand.py uses the known mistakes that test_recognition.py learns. The
# attacks mostly sleep, so there is one process more than a small machine has cores.
test: lint
	$(BIN)/python -m pytest -q --numprocesses 3 --dist loadfile --no-loadscope-reorder \
		tests/attacks/test_attacks.py tests/test_recognition.py tests/test_demo.py tests/test_substitution.py \
		tests/test_new_course.py tests/test_choosing.py tests/test_thousand.py tests/attacks tests/test_*.py tests/fuzz

# What to run before each commit. Types and tests are checked at the same time.
check: setup
	$(MAKE) --jobs 2 lint fast

fast: setup
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile -m "not slow" tests

attacks: setup
	ATTACKS=all $(BIN)/python -m pytest -q tests/attacks tests/test_limits.py

fuzz: setup
	$(BIN)/python -m tests.fuzz

bench: setup
	$(BIN)/python -m bench

mutants: setup
	$(BIN)/python -m bench.mutants

names: setup
	NAMES=all $(BIN)/python -m pytest -q tests/test_recognition.py tests/test_substitution.py

hints: setup
	HINTS=all $(BIN)/python -m pytest -q tests/test_hints.py

stand-ins: setup
	STAND_INS=all $(BIN)/python -m pytest -q tests/test_stand_ins.py

browser: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright axe-playwright-python
	$(BIN)/python -m tests.browser.check $(SHOTS)

formgrader: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright axe-playwright-python
	$(BIN)/python -m tests.browser.formgrader $(SHOTS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) source demo

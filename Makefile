# Every target sets up the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The tests start hundreds of processes, which would otherwise all compile the same modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test suite check fast attacks fuzz bench slurm hub lint style types mutants names hints stand-ins docs browser formgrader run-all variants clean

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

# Types are checked while the tests run.
test: style
	$(MAKE) --jobs 2 types suite

# The slowest files come first. The attacks mostly sleep, so there is one process more than a small machine has cores.
suite: setup
	$(BIN)/python -m pytest -q --numprocesses 3 --dist loadfile --no-loadscope-reorder \
		tests/test_substitution.py tests/test_demo.py tests/attacks/test_attacks.py tests/test_thousand.py \
		tests/test_recognition.py tests/test_days.py tests/test_nbgrader.py tests/test_mutants.py \
		tests/test_stand_ins.py tests/test_choosing.py tests/test_new_course.py tests/attacks tests/test_*.py tests/fuzz

# What to run before each commit.
check: setup
	$(MAKE) --jobs 2 lint fast

fast: setup
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile -m "not slow" tests

attacks: setup
	ATTACKS=all $(BIN)/python -m pytest -q tests/attacks tests/test_lost_servers.py

fuzz: setup
	$(BIN)/python -m tests.fuzz

# Needs root and SLURM: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
slurm: setup
	SLURM=all $(BIN)/python -m pytest -q tests/test_slurm.py

# Needs root, npm, and a Python that students' accounts can run: HUB_PYTHON.
HUB_PYTHON ?= /usr/bin/python3
HUB := /var/tmp/autograder-hub

hub: setup
	$(HUB_PYTHON) -m venv --without-pip $(HUB)
	$(BIN)/python -m pip --python $(HUB)/bin/python install --quiet --disable-pip-version-check jupyterhub nbgrader
	npm install --silent --no-audit --no-fund --prefix $(HUB) configurable-http-proxy
	HUB=$(HUB) $(BIN)/python -m pytest -q tests/test_hub.py

# `make bench BEFORE=CHECKOUT` also compares this checkout with another one.
bench: setup
	$(BIN)/python -m bench $(BEFORE:%=--compare-with %)

mutants: setup
	$(BIN)/python -m bench.mutants

names: setup
	NAMES=all $(BIN)/python -m pytest -q tests/test_recognition.py tests/test_substitution.py

hints: setup
	HINTS=all $(BIN)/python -m pytest -q tests/test_hints.py tests/test_stand_ins.py

stand-ins: setup
	STAND_INS=all $(BIN)/python -m pytest -q tests/test_stand_ins.py

# The site opens without a server: docs/index.html in the folder site/.
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going -c docs . site
	SITE=site $(BIN)/python -m pytest -q tests/test_site.py

browser: docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright axe-playwright-python
	$(BIN)/python -m tests.browser.check $(SHOTS)
	$(BIN)/python -m tests.browser.live $(SHOTS)
	$(BIN)/python -m tests.browser.notebooks $(SHOTS)
	$(BIN)/python -m tests.browser.site $(SHOTS)

formgrader: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright axe-playwright-python
	$(BIN)/python -m tests.browser.formgrader $(SHOTS)

run-all: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright axe-playwright-python
	$(BIN)/python -m tests.browser.run_all $(SHOTS)

variants: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright axe-playwright-python
	$(BIN)/python -m tests.browser.variants $(SHOTS)

lint: style types

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

clean:
	rm -rf $(VENV) source demo site

# Two commands do all on a fresh clone that has only python3 and make:
#     make test          the whole test suite
#     make quickstart    a model that hallucinates, and its cure
# The first one run creates .venv and installs; later runs do not. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help install test quickstart lint format clean

help:
	@echo "make quickstart   watch a tiny vision-language model stop hallucinating (ARGS=... goes to mmalign quickstart)"
	@echo "make test         run the tests (ARGS='-k tree' goes to pytest)"
	@echo "make lint         check style    make format   fix it    make clean   remove .venv and caches"

install: $(STAMP)

# The stamp is written last, so an interrupted installation is taken up again; it is older than the two files that say
# what to install as soon as one of them changes.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v < (3, 14) else "mmalign needs Python 3.10 to 3.13, $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" % v)'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "$(PYTHON) has no venv module; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

quickstart: $(STAMP)
	$(BIN)/python -m mmalign quickstart $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

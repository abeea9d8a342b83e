# Everything here needs Python 3.10-3.12, git and make, and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint types clean

demo: $(VENV)/installed  ## synthesise speech, train, evaluate, and stream a recording: six minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/demo/run.sh

test: $(VENV)/installed  ## the promises
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info < (3, 13) else "asr needs Python 3.10, 3.11 or 3.12, and this is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info

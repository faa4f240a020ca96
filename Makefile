# make demo: the main job on bundled images.  make test: every check.
# make bench: speed of rounds and fitness.  make bench-search: how good and how fast the search is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find supernet fitness cache training search -name '*.py' -o -name '*.yaml' -o -name '*.jinja')

.PHONY: demo test bench bench-search clean

demo: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python examples/demo.py

# Two processes of one thread each: threads of two processes on two cores wait for each other.
test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

bench: $(VENV)/installed
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/training_speed.py

bench-search: $(VENV)/installed
	$(BIN)/python benchmarks/search_quality.py

# The packages are installed as copies: what is tested is what a user gets.
$(VENV)/installed: pyproject.toml $(SOURCES) | $(VENV)/bin/python
	rm -rf build
	$(BIN)/pip install --quiet .
	rm -rf build
	touch $@

$(VENV)/installed-dev: pyproject.toml $(SOURCES) | $(VENV)/bin/python
	rm -rf build
	$(BIN)/pip install --quiet '.[dev,export,flower]'
	rm -rf build
	touch $@ $(VENV)/installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

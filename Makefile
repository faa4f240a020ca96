# make demo: the main job on bundled images.  make federation-demo: the same over Flower, with real processes.
# make test: every check but the slowest tests.  make test-slow: those, parts of a federation that are killed among them,
# and all examples of every property.
# make bench: speed of rounds and fitness.  make bench-search: how good and how fast the search is.
# make bench-federation: what rounds over Flower, and privacy, cost.
# make bench-attacks: hostile clients against rules of aggregation.
# make bench-data: more images than memory, decoded while a run trains on them.
# make bench-gpu DATA=FOLDER: speed, and methods compared, on one GPU, with the python that has torch; see benchmarks/gpu.py.
# make gpu-wheels: what that needs besides, into wheels/, for a machine without a network.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= data
MINUTES ?= 8
JSON ?= gpu.json
DEVICE ?= cuda
SOURCES := $(shell find fedpareto supernet fitness cache training search -name '*.py' -o -name '*.yaml' -o -name '*.jinja' -o -name '*.toml')

.PHONY: demo federation-demo test test-slow bench bench-search bench-federation bench-attacks bench-data bench-gpu gpu-wheels clean

demo: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python examples/demo.py

federation-demo: $(VENV)/installed-flower
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python examples/federation_demo.py

# Two processes of one thread each: threads of two processes on two cores wait for each other.
test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m 'not federation and not slow'
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'federation and not slow'

# A real federation, one test after another: Flower takes a minute to notice that a process is gone.
test-slow: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 FEDPARETO_EXAMPLES=all $(BIN)/pytest -n 2 --dist worksteal -m 'slow and not federation'
	OMP_NUM_THREADS=1 FEDPARETO_EXAMPLES=all $(BIN)/pytest -m 'slow and federation'

bench: $(VENV)/installed-fast
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/training_speed.py

bench-search: $(VENV)/installed
	$(BIN)/python benchmarks/search_quality.py

bench-federation: $(VENV)/installed-dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python benchmarks/federation_speed.py
	$(BIN)/python benchmarks/privacy_cost.py

bench-attacks: $(VENV)/installed-fast
	$(BIN)/python benchmarks/attacks.py --seeds 3

bench-data: $(VENV)/installed
	$(BIN)/python benchmarks/large_data.py

# Nothing is installed: the packages come from here and what else is needed from wheels, if python lacks it.
bench-gpu:
	PYTHONPATH="$(CURDIR):$$(echo wheels/*.whl | tr ' ' :)" $(PYTHON) benchmarks/gpu.py \
		--data "$(DATA)" --minutes $(MINUTES) --json "$(JSON)" --device $(DEVICE)

gpu-wheels:
	$(PYTHON) -m pip download --quiet --no-deps --dest wheels --requirement benchmarks/gpu-requirements.txt

# The packages are installed as copies: what is tested is what a user gets.
$(VENV)/installed: pyproject.toml $(SOURCES) | $(VENV)/bin/python
	rm -rf build
	$(BIN)/pip install --quiet .
	rm -rf build
	touch $@

$(VENV)/installed-fast: pyproject.toml $(SOURCES) | $(VENV)/bin/python
	rm -rf build
	$(BIN)/pip install --quiet '.[fast]'
	rm -rf build
	touch $@ $(VENV)/installed

$(VENV)/installed-flower: pyproject.toml $(SOURCES) | $(VENV)/bin/python
	rm -rf build
	$(BIN)/pip install --quiet '.[flower]'
	rm -rf build
	touch $@ $(VENV)/installed

$(VENV)/installed-dev: pyproject.toml $(SOURCES) | $(VENV)/bin/python
	rm -rf build
	$(BIN)/pip install --quiet '.[dev,export,fast,flower,privacy,signing]'
	rm -rf build
	touch $@ $(VENV)/installed $(VENV)/installed-fast $(VENV)/installed-flower

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

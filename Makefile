# Every target does its own set-up: `make demo` and `make test` are all that a fresh clone needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-studio lint docs bench report clean

$(VENV)/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,train,studio,export]'
	$(BIN)/pip install -q -c constraints.txt --no-deps lpips  # for the heads of LPIPS: the rest wants torchvision
	touch $@

$(VENV)/docs: $(VENV)/core
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/studio: $(VENV)/dev
	command -v chromium >/dev/null || apt-get install -y chromium || echo "no Chromium: the page is not tested"
	$(PYTHON) -m venv $(VENV)/fuzzer  # of its own: its plugin would join every run of pytest
	$(VENV)/fuzzer/bin/pip install -q -c constraints.txt schemathesis openapi-spec-validator
	touch $@

demo: $(VENV)/core  ## four pictures from the bundled examples, and a contact sheet of them
	$(BIN)/atelier demo out/demo

test: $(VENV)/dev lint  ## everything that CI runs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup

test-slow: $(VENV)/dev  ## the checks that take minutes
	$(BIN)/pytest -m slow

test-studio: $(VENV)/studio  ## the studio: its page in a browser, a fuzzer at its interface, memory, trainings
	OMP_NUM_THREADS=1 ATELIER_SCHEMATHESIS=$(VENV)/fuzzer/bin/schemathesis $(BIN)/pytest -m 'slow or not slow' tests/studio

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

bench: $(VENV)/dev  ## speed and memory; leave the machine alone meanwhile
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/encoder_peak.py
	$(BIN)/python benchmarks/gatys_vgg19.py
	$(BIN)/python benchmarks/optimise_time.py

report: $(VENV)/core  ## table and gallery of every method that needs no download: half an hour of processor time
	$(BIN)/atelier bench gallery
	$(BIN)/atelier bench report out/bench/gallery
	$(BIN)/python benchmarks/report_page.py out/bench/gallery

clean:
	rm -rf $(VENV) out dist docs/_build docs/_generated .mypy_cache .ruff_cache .pytest_cache

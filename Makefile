# Downslope's chores. `make` alone lists them. (For POSIX shells; on Windows, the README's pip
# commands do the same.)

PYTHON ?= python3
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

DEMO := examples/data/diabetes.csv --target progression --model mlp:16 \
	--optimizer SGD --optimizer Adam --lr 1e-4:1:25 --seeds 4 \
	--epochs 100 --batch-size 32 --out demo

# Files whose names begin with an underscore are shared by the benchmarks, not run.
BENCHMARKS := $(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))

.PHONY: help demo test test-all bench browser docs lint format clean

help:
	@echo 'make demo       fit a table with 2 optimizers x 25 learning rates x 4 seeds; results in demo/'
	@echo 'make test       lint, types and the default tests'
	@echo 'make test-all   the same with the slow tests'
	@echo 'make bench      run every benchmark in turn'
	@echo 'make docs       build the documentation into site/; nothing is fetched for it'
	@echo 'make lint       ruff and mypy alone'
	@echo 'make format     let ruff rewrite the sources'
	@echo 'make clean      remove demo/, site/, build products and caches; $(VENV)/ stays'

demo: $(STAMP)
	$(BIN)/downslope fit $(DEMO)

# One thread for each test process: two pools of threads on few cores wait for each other.
test: lint browser
	OMP_NUM_THREADS=1 $(PYTEST) -n $(WORKERS)

test-all: lint browser
	OMP_NUM_THREADS=1 $(PYTEST) -n $(WORKERS) -m "slow or not slow"

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-r benchmarks/requirements.txt
	@set -e; for script in $(BENCHMARKS); do \
		echo "== $$script"; \
		$(BIN)/python "$$script"; \
	done

# NO_MKDOCS_2_WARNING: the theme tells on every build what its makers plan.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo 'Open site/index.html'

# For the tests that open pages; where none can be had, they are skipped and say so.
browser:
	@sh scripts/install_chromium.sh

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo site build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no $(PYTHON) here; name a Python 3.11 or newer with: make PYTHON=..." >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Downslope needs Python 3.11 or newer, and $(PYTHON) is" \
			"$$("$(PYTHON)" --version 2>&1); name another with: make PYTHON=..." >&2; \
		exit 1; }
	@echo "Installing into $(VENV) (the first time takes a few minutes) ..."
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

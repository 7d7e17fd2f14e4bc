# Everything runs in .venv, built from requirements.lock (pinned, hashed).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro theory paper env test smoke bench lint lock clean

repro: env  ## the default study, from data to reports/index.html
	@dvc repro
	@echo "The report is $(CURDIR)/reports/index.html"

theory: env  ## the theory: networks on MNIST (theory/data) if they are not in the cache, and reports/theory.html
	@dvc repro theory/dvc.yaml

PROFILE ?= quick
JOBS ?= 1
ONLY ?= .
paper: env  ## the paper's study in a profile of paper/profiles, JOBS settings at a time, ONLY those whose name matches
	@python -m pipeline.plan $(PROFILE)
	@paper/run.sh $(JOBS) '$(ONLY)'

env: $(VENV)/ready  ## the environment alone

# uv installs in seconds what takes pip minutes; pip fetches uv itself, by the same lock.
$(VENV)/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]} (make PYTHON=python3.12 names another)")'
	@echo "Making $(VENV) from requirements.lock"
	@$(PYTHON) -m venv --clear $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/python -c 'import torch, torchvision'
	@$(BIN)/python .dvc/plots/page.py
	@touch $@

test: env
	python -m pytest -q

# The whole pipeline in a clean clone, with a network and samples too small to mean anything.
TINY := train.steps=4 train.warmup=1 sample.n=8 sample.steps=2 train.snapshots=2 evaluate.bootstrap=2
GRID_TINY := grid.train.steps=4 grid.train.warmup=1 grid.sample.n=8 grid.sample.steps=2

smoke: env
	rm -rf $(VENV)/smoke && git clone --quiet . $(VENV)/smoke && rm -f $(VENV)/smoke/dvc.lock
	git -C $(VENV)/smoke config user.name smoke && git -C $(VENV)/smoke config user.email smoke@localhost
	cd $(VENV)/smoke && SAGD_SCRATCH=$$PWD/scratch dvc exp run --quiet $(addprefix -S ,$(TINY) $(GRID_TINY))
	cd $(VENV)/smoke && test -s reports/index.html && dvc metrics show
	cd $(VENV)/smoke && dvc repro --quiet --force --single-item theory/dvc.yaml:theory
	cd $(VENV)/smoke && python -m pipeline.plan smoke && SAGD_SCRATCH=$$PWD/scratch dvc repro --quiet paper/dvc.yaml
	! grep -q grid_evaluate@ $(VENV)/smoke/reports/paper.html  # no cell is left that was not run
	rm -rf $(VENV)/smoke

lint: env
	ruff check .
	ruff format --check .

bench: env
	python -m benchmarks

lock: env  ## resolve the dependencies anew
	uv pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --output-file requirements.lock

clean:  ## what can be made again; the cache of DVC stays
	rm -rf $(VENV) artifacts .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

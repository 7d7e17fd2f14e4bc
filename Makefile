# Everything runs in .venv, built from requirements.lock (pinned, hashed).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro images verify theory paper decide show docs env environment test test-fast wheel smoke soak bench lint lock clean

repro: env  ## the default study, from data to reports/index.html
	@dvc repro
	@python -m pipeline.verify --brief
	@echo "The report is $(CURDIR)/reports/index.html"

verify: env  ## this run's numbers beside the committed ones: identical, within the standard error, or different
	@python -m pipeline.verify

DATA ?= $(error DATA is missing: make images DATA=/data/pictures)
SIZE ?= 64
images: env  ## a params.yaml for DATA, a folder or zip file of images of your own: make images DATA=/data/pictures SIZE=64
	@python -m pipeline.new "$(DATA)" --size $(SIZE) $(if $(FOR),--for $(FOR)) $(if $(YES),--yes)

show: env  ## the experiments in a table: distances, and what was varied
	@dvc exp show --only-changed --drop '^(artifacts|reports|pipeline|sagd|extensions|notebooks|params.yaml|grid|Created|State|Executor)'

theory: env  ## the theory: networks on MNIST (studies/theory/data) if they are not in the cache, and studies/theory/reports/theory.html
	@cd studies/theory && dvc repro

PROFILE ?= quick
JOBS ?= 1
ONLY ?= .
paper: env  ## the paper's study in a profile of studies/paper/profiles, JOBS settings at a time, ONLY those whose name matches
	@python -m studies.plan $(PROFILE)
	@studies/paper/run.sh $(JOBS) '$(ONLY)'

decide: env  ## what two cores can decide of the paper's claims: JOBS settings at a time, ONLY those whose name matches
	@python -m studies.plan decide
	@studies/paper/run.sh $(JOBS) '$(ONLY)' decide

docs: env  ## docs/parameters.md, from the schema; the tables of verdicts, from what was measured
	@python -m pipeline.params.table > docs/parameters.md
	@python -m studies.claims.history
	@cd studies/claims && PYTHONPATH=../.. python -m studies.claims.summary

# A link to the environment of another clone is used, where that is of the same requirements.lock.
env:  ## the environment alone
	@cmp -s requirements.lock $(VENV)/ready || $(MAKE) --no-print-directory environment

# uv installs in seconds what takes pip minutes; pip fetches uv itself, by the same lock.
environment:
	@test ! -L $(VENV) || { echo "$(VENV) is a link to an environment of another requirements.lock; remove the link" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]} (make PYTHON=python3.12 names another)")'
	@echo "Making $(VENV) from requirements.lock"
	@$(PYTHON) -m venv --clear $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@# DVC's hash of a folder of code outside a project, as those of studies/ are, has all that lies in it: no byte code, then.
	@echo 'import sys; sys.dont_write_bytecode = True' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/no_bytecode.pth"
	@$(BIN)/python -c 'import torch, torchvision'
	@cp requirements.lock $(VENV)/ready

# A worker a core, and a thread a worker: networks are small in tests.
PYTEST := OMP_NUM_THREADS=1 python -m pytest -q -n auto --dist worksteal

test: env  ## all tests
	$(PYTEST)

test-fast: env  ## without the slow ones
	$(PYTEST) -m "not slow"

wheel: env  ## the wheel, installed with its base dependencies alone in a clean environment, runs README's lines there
	rm -rf $(VENV)/wheel && uv build --quiet --wheel --out-dir $(VENV)/wheel
	uv venv --quiet --python $(BIN)/python $(VENV)/wheel/env
	uv pip install --quiet --python $(VENV)/wheel/env/bin/python --constraints requirements.lock $(VENV)/wheel/*.whl
	python -m tests.system.readme_lines | (cd $(VENV)/wheel && env/bin/python -)
	cd $(VENV)/wheel && env/bin/sagd --version && env/bin/python -m sagd --version
	rm -rf $(VENV)/wheel

# The whole pipeline in a clean clone, with a network and samples too small to mean anything.
TINY := dataset.held_out=40 train.steps=4 train.batch_size=4 train.warmup=1 ++train.snapshots=2
TINY += sample.n=8 sample.steps=2 ++evaluate.bootstrap=2
SMOKE := $(CURDIR)/$(VENV)/smoke

smoke: env  ## the studies at toy size in a clean clone
	rm -rf $(SMOKE) && git clone --quiet . $(SMOKE) && rm -f $(SMOKE)/dvc.lock
	git -C $(SMOKE) config user.name smoke && git -C $(SMOKE) config user.email smoke@localhost
	cd $(SMOKE) && SAGD_SCRATCH=$(SMOKE)/scratch dvc exp run --quiet $(addprefix -S ,$(TINY))
	cd $(SMOKE) && test -s reports/index.html && test -s artifacts/export/model_index.json && dvc metrics show && dvc plots diff --quiet HEAD
	cd $(SMOKE)/studies/theory && dvc repro --quiet --force --single-item theory
	cd $(SMOKE)/studies/claims && dvc repro --quiet --force --single-item claims
	cd $(SMOKE) && python -m studies.plan smoke && SAGD_SCRATCH=$(SMOKE)/scratch studies/paper/run.sh 2
	! grep -q 'measure@' $(SMOKE)/studies/paper/reports/paper.html  # no cell is left that was not run
	rm -rf $(SMOKE)

lint: env
	ruff check .
	ruff format --check .
	mypy

soak: env  ## kill, starve and mislead the stages: 200 kills, 200 hostile data sets, ...; figures in docs/reliability.md
	OMP_NUM_THREADS=1 python -m tests.soak --full

bench: env  ## ratios of times against peers, and the times of commands
	python -m benchmarks

lock: env  ## resolve the dependencies anew
	uv pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --output-file requirements.lock

clean:  ## what can be made again; the cache of DVC stays
	rm -rf $(VENV) artifacts studies/paper/artifacts studies/theory/artifacts .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

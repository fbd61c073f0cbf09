# Every target below prints the one command that it runs. Plain Python and make are enough: the
# first target that needs packages builds .venv from requirements.lock. `make help` lists targets.

PYTHON ?= python3
VENV ?= .venv
EXPERIMENT ?= experiments/fsmtl/multi_mnist.py
WORKDIR ?= runs/$(basename $(notdir $(EXPERIMENT)))
DATASET ?= multi_mnist
METHODS ?= cagrad,upgrad
SEEDS ?= 3
SETS ?=
ARGS ?=

PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help venv data train evaluate report analyze test test-slow lint types bench bench-torch bench-methods bench-weights bench-deepxde bench-rechub bench-concordance bench-survival bench-aggregation \
  bench-gpu bench-tpu train-gpu train-tpu results-fsmtl sweep-fsmtl results-analysis results-qm9 \
  results-mt-deeponet results-dtrn results-ad-survival compare lock clean

help: ## list the targets and the variables
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables (now):"
	@echo "  PYTHON=$(PYTHON)  VENV=$(VENV)  DATASET=$(DATASET)"
	@echo "  EXPERIMENT=$(EXPERIMENT)  WORKDIR=$(WORKDIR)"
	@echo '  ARGS="..." is added to the command, as in ARGS="--config.optim.lr=3e-4"'

venv: $(VENV)/.installed ## build the virtual environment from requirements.lock

data: $(VENV)/.installed ## prepare DATASET and verify it
	$(PY) -m mtl_jax.data prepare $(DATASET) $(ARGS)

train: $(VENV)/.installed ## train EXPERIMENT in WORKDIR; the same line again resumes
	$(PY) -m mtl_jax.train --config $(EXPERIMENT) --workdir $(WORKDIR) $(ARGS)

evaluate: $(VENV)/.installed ## score the run in WORKDIR
	$(PY) -m mtl_jax.evaluate --workdir $(WORKDIR) $(ARGS)

report: $(VENV)/.installed ## draw the report of the run in WORKDIR
	$(PY) -m mtl_jax.report --workdir $(WORKDIR) $(ARGS)

analyze: $(VENV)/.installed ## measure sharpness, conflict and calibration of the run in WORKDIR
	$(PY) -m mtl_jax.analyze --workdir $(WORKDIR) $(ARGS)

test: $(VENV)/.installed ## run the test suite
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed ## run the tests that take minutes
	$(PY) -m pytest -m slow $(ARGS)

lint: $(VENV)/.installed ## check style
	$(PY) -m ruff check . && $(PY) -m ruff format --check .

types: $(VENV)/.installed ## check types
	$(VENV)/bin/pyrefly check --python-interpreter-path $(PY)

bench: $(VENV)/.installed ## time the training step on whatever device is there
	$(PY) -m benchmarks.run $(ARGS)

bench-torch: $(VENV)/.extra-bench ## compare with torch and torchjd on this machine
	$(PY) -m benchmarks.versus_torchjd $(ARGS)

bench-methods: $(VENV)/.installed ## time the step of every method beside that of LS
	$(PY) -m benchmarks.method_step $(ARGS)

bench-weights: $(VENV)/.extra-bench ## compare the aggregators' weights with torchjd's on this machine
	$(PY) -m benchmarks.versus_torchjd_weights $(ARGS)

bench-deepxde: $(VENV)/.extra-bench ## compare operator networks with DeepXDE on this machine
	$(PY) -m benchmarks.versus_deepxde $(ARGS)

bench-concordance: $(VENV)/.installed ## time the concordance index; ARGS="--peers PYTHON" to compare
	$(PY) -m benchmarks.concordance $(ARGS)

bench-survival: $(VENV)/.installed ## time survival training; ARGS="--peers PYTHON" to compare with pycox
	$(PY) -m benchmarks.survival_training $(ARGS)

bench-aggregation: $(VENV)/.installed ## count what 8 devices send each other to aggregate task gradients
	$(PY) -m benchmarks.aggregation_bytes $(ARGS)

bench-rechub: $(VENV)/.extra-bench ## compare recommendation networks with Torch-RecHub on this machine
	$(PY) -m benchmarks.versus_rechub $(ARGS)

bench-gpu: $(VENV)/.extra-gpu ## bench, with jaxlib for CUDA
	$(PY) -m benchmarks.run $(ARGS)

bench-tpu: $(VENV)/.extra-tpu ## bench, with libtpu
	$(PY) -m benchmarks.run $(ARGS)

train-gpu: EXPERIMENT = experiments/fsmtl/multi_mnist_paper.py
train-gpu: $(VENV)/.extra-gpu ## train the paper-scale experiment on all GPUs
	$(PY) -m mtl_jax.train --config $(EXPERIMENT) --workdir $(WORKDIR) $(ARGS)

train-tpu: EXPERIMENT = experiments/fsmtl/multi_mnist_paper.py
train-tpu: $(VENV)/.extra-tpu ## train the paper-scale experiment on all TPU cores
	$(PY) -m mtl_jax.train --config $(EXPERIMENT) --workdir $(WORKDIR) $(ARGS)

results-fsmtl: $(VENV)/.installed ## run the FS-MTL study (hours, resumable) and write its table
	$(PY) -m experiments.fsmtl.study $(ARGS)

sweep-fsmtl: $(VENV)/.installed ## run FS-CAGrad over radii (an hour, resumable) and write its table
	$(PY) -m experiments.fsmtl.sweep $(ARGS)

results-analysis: $(VENV)/.installed ## measure what flat regions do (an hour, resumable) and write its tables
	$(PY) -m experiments.fsmtl.analysis $(ARGS)

results-qm9: $(VENV)/.installed ## run the study of molecules (an hour, resumable) and write its table
	$(PY) -m experiments.molecules.study $(ARGS)

results-mt-deeponet: $(VENV)/.installed ## run the MT-DeepONet study (hours, resumable) and write its tables
	$(PY) -m experiments.mt_deeponet.study $(ARGS)

results-dtrn: $(VENV)/.installed ## run the DTRN study (hours, resumable) and write its tables
	$(PY) -m experiments.dtrn.study $(ARGS)

results-ad-survival: $(VENV)/.installed ## run the study of survival networks and write its tables
	$(PY) -m experiments.ad_survival.study $(ARGS)

compare: $(VENV)/.installed ## compare METHODS with LS on five quick SETS over SEEDS (ten minutes, resumable)
	$(PY) -m experiments.compare --methods "$(METHODS)" --seeds $(SEEDS) --sets "$(SETS)" $(ARGS)

lock: ## write requirements.lock anew (maintainers; needs uv)
	uv pip compile pyproject.toml --extra dev --extra tensorboard --universal --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --upgrade --quiet --output-file requirements.lock

clean: ## remove .venv and caches; runs and prepared data stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist $$(find . -name __pycache__ -not -path './$(VENV)/*')

# --clear: after a change of the lock nothing of the old environment may linger.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: PYTHON=$(PYTHON) gave '$$($(PYTHON) --version 2>&1 | tail -n 1)', Python 3.11 or newer is needed; name one: make venv PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt-get install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 1; }
	@echo "Building $(VENV): about a minute, once."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.extra-%: $(VENV)/.installed
	@$(PY) -m pip install --disable-pip-version-check -e ".[$*]"
	@touch $@

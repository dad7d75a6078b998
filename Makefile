# `make demo` and `make test` need nothing but Python >= 3.10 and make; see `make help`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RECORD := --records benchmarks/records
OLDEST := .venv-oldest

# GB that setting up takes at its peak. What is downloaded stays until all of it is installed: so torch, most of it, comes
# first, and where pip's cache, which keeps it as well, would not fit beside it, there is none.
NEEDED := 9
FREE   := df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'
FOUND  := df -Pk . | awk 'NR == 2 { printf "%.1f", int($$4 / 104857.6) / 10 }'
PIP     = TMPDIR="$(CURDIR)/$(VENV)/tmp" $(BIN)/python -m pip install -qq --disable-pip-version-check \
	--constraint constraints.txt $$(test $$($(FREE)) -gt 12 || echo --no-cache-dir)

# Three at a time on two cores: one mostly waits for a cluster. A file's tests stay together and share what they have
# made.
WORKERS := --numprocesses 3 --no-loadscope-reorder

# What depends most on other packages: Hydra, submitit, MLflow, timm, numpy; and a true sweep.
OLDEST_TESTS := tests/config/test_grid.py tests/plan/test_plan.py tests/slurm/test_needs.py \
	tests/tracking/test_mlflow_store.py tests/tracking/test_mlflow_sync.py tests/report/test_formats.py \
	tests/models/test_timm_conventions.py tests/data/test_augment.py tests/test_api.py

# Modules would be compiled anew at every start (20 s instead of 7 s) if Python may not write bytecode.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-oldest docs lint types check format bench bench-gpu fidelity clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

setup: $(READY) ## create the virtual environment; the other targets do so by themselves

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "headsweep: no '$(PYTHON)' found; install Python >= 3.10, or say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "headsweep: $$($(PYTHON) --version) is too old; expected Python >= 3.10: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "headsweep: this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@test -x $(BIN)/python || test $$($(FREE)) -ge $(NEEDED) || { echo "headsweep: expected $(NEEDED) GB free in $(CURDIR) to set up $(VENV), found $$($(FOUND)); free some, or use a clone on another disk" >&2; exit 2; }
	@echo "setting up $(VENV): a few minutes and 6 GB the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	@rm -rf $(VENV)/tmp && mkdir $(VENV)/tmp
	@$(PIP) torch torchvision
	@$(PIP) --editable '.[dev]'
	@rm -r $(VENV)/tmp
	@touch $(READY)

demo: $(READY) ## train 27 small models on real images, print the comparison table and write a report (4 minutes)
	$(BIN)/python src/train.py -m head=seqpool,ga,seqattn heads=1,4,8 seeds=3 duration='6 epochs'
	$(BIN)/headsweep report

test: $(READY) ## run all tests that can run here (5 minutes on 2 cores)
	$(BIN)/python -m pytest $(WORKERS)

test-fast: $(READY) ## run the tests of the inner loop (1 minute): none that is marked slow
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow"

# An environment of its own over .venv, which lends torch and whatever has no bound below.
$(OLDEST)/.ready: $(READY) constraints-oldest.txt
	$(BIN)/python -m venv --clear $(OLDEST)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(OLDEST)/layers
	echo $(CURDIR)/src >> $(OLDEST)/layers
	cp $(OLDEST)/layers "$$($(OLDEST)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/layers.pth"
	$(OLDEST)/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints-oldest.txt \
		$$(sed -n 's/==.*//p' constraints-oldest.txt)
	touch $@

test-oldest: $(OLDEST)/.ready ## run some tests with the oldest versions that pyproject.toml allows (2 minutes, 600 MB)
	$(OLDEST)/bin/python -m pytest $(WORKERS) $(OLDEST_TESTS)

docs: $(READY) ## build the documentation into site/; a broken link or anchor is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(READY) ## check format, lint and import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(READY) ## check types
	$(BIN)/mypy

check: $(READY) ## what CI runs: documentation, format, lint, import layers, types, tests
	$(MAKE) --jobs=2 docs lint types
	$(MAKE) test

format: $(READY) ## format the code and apply fixes of ruff
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure on this machine's CPU, best while it is idle (5 minutes), and write benchmarks/RESULTS.md
	$(BIN)/python benchmarks/heads.py --head seqpool --head ga --head seqattn --rounds 5 $(RECORD)
	$(BIN)/python benchmarks/step.py --cells seqpool1 seqattn8 ga8 --batch 16 --rounds 4 $(RECORD)
	$(BIN)/python benchmarks/data.py $(RECORD)
	$(BIN)/python benchmarks/streaming.py --images 600 --batches 3 --rounds 2 --workers 1 $(RECORD)
	$(BIN)/python benchmarks/e2e.py $(RECORD)
	$(BIN)/python benchmarks/sweep.py --fresh 3 --epochs 3 $(RECORD)
	$(BIN)/python benchmarks/tracking.py --epochs 3 $(RECORD)
	$(BIN)/python benchmarks/report.py --runs 1000 $(RECORD)
	$(BIN)/python benchmarks/probing.py $(RECORD)
	$(BIN)/python benchmarks/peers.py $(RECORD)
	$(BIN)/python benchmarks/results.py

bench-gpu: $(READY) ## measure what needs a GPU, in 10 minutes; with TINY=1 try every part of it on the CPU
	$(BIN)/python benchmarks/gpu.py $(if $(TINY),--tiny)

fidelity: $(READY) ## compare every published model with an independent implementation: sizes and logits
	$(BIN)/python benchmarks/fidelity.py

clean: ## remove the virtual environment and caches; outputs/ and data/ stay
	rm -rf $(VENV) $(OLDEST) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache src/*.egg-info

# Everything a reader or developer of the study runs. `make help` lists it.
# Needs make, git and Python 3.11, 3.12 or 3.13 with its venv module; all else is installed into .venv.

PROFILE ?= laptop
# Name or path of the Python to use; empty: the newest suitable one on the search path.
PYTHON ?=
# What `make grid` runs, and where study and grid run: local, or slurm as profiles/slurm says.
GRID ?= smoke
EXECUTOR ?= local
# How many cores study and grid take here, and what else to tell Snakemake, as in FLAGS="--slurm-status-command squeue".
CORES ?= all
FLAGS ?=

BUILD := $(or $(CRYOSTUDY_BUILD),_build)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
SNAKEMAKE = $(PY) -m snakemake --keep-going --rerun-incomplete --nolock --quiet host reason \
  --show-failed-logs $(if $(filter local,$(EXECUTOR)),--cores $(CORES),--profile profiles/$(EXECUTOR)) $(FLAGS)
ifeq ($(filter local $(notdir $(wildcard profiles/*)),$(EXECUTOR)),)
$(error EXECUTOR=$(EXECUTOR): unknown; use one of local $(notdir $(wildcard profiles/*)))
endif

.PHONY: help install study grid test lint book publish bench lock clean

# The stamp holds the directory it was made for: a copied or moved checkout installs itself anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=smoke|laptop|gpu sets the scale of study, grid and publish (now: $(PROFILE))"

install: $(STAMP) ## create .venv with the locked packages and cryostudy

$(STAMP): requirements.lock pyproject.toml
	@rm -f $(STAMP)
	@if $(PY) -m pip --version >/dev/null 2>&1 && $(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then exit 0; fi; \
	found=; bare=; \
	for p in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	  "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 || continue; \
	  if "$$p" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$p; break; fi; \
	  bare=$$p; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "make: $$bare has no venv module (on Debian and Ubuntu: apt install python3-venv), or name another with PYTHON=" >&2; exit 1; fi; \
	if [ -z "$$found" ]; then \
	  echo "make: no Python 3.11, 3.12 or 3.13 found: install one, or name it with PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "Creating $(VENV) with $$found"; \
	"$$found" -m venv --clear $(VENV)
	@echo "Installing the locked packages (the first time, some minutes)"
	@$(PY) -m pip install --requirement requirements.lock
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@echo "$(CURDIR)" > $(STAMP)
	@echo "Installed. In each shell: source $(VENV)/bin/activate"

study: $(STAMP) ## run every chapter and a small run grid at PROFILE scale, then build the site from these runs
	@start=$$(date +%s); failed=0; \
	$(SNAKEMAKE) --config profile=$(PROFILE) || { failed=1; \
	  $(PY) -m cryostudy.book build --chapters $(BUILD)/runs/$(PROFILE) --out $(BUILD)/site/$(PROFILE); }; \
	seconds=$$(($$(date +%s) - start)); \
	echo "make study: $(BUILD)/site/$(PROFILE)/index.html, $$((seconds / 60)) min $$((seconds % 60)) s"; \
	if [ $$failed = 1 ]; then echo "make study: something failed, see above and $(BUILD)/logs/$(PROFILE)" >&2; fi; \
	exit $$failed

grid: $(STAMP) ## run the cells of data/runs/GRID.yml that are out of date, at PROFILE scale; EXECUTOR=slurm on a cluster
	@$(SNAKEMAKE) grids --config profile=$(PROFILE) grid=$(GRID)
	@echo "$(BUILD)/runs/$(PROFILE)/grids/$(notdir $(basename $(GRID))).csv"

book: $(STAMP) ## build the published site from book/chapters
	@$(PY) -m cryostudy.book build --chapters book/chapters --records data/results --out _build/site/published

publish: $(STAMP) ## copy CHAPTER as run at PROFILE scale, with its records, to where it is published
	@if [ -z "$(CHAPTER)" ]; then echo "make: name the chapter, as in: make publish CHAPTER=02_volume_shuffle PROFILE=gpu" >&2; exit 2; fi
	@$(PY) -m cryostudy.book publish $(CHAPTER) $(PROFILE)

lint: $(STAMP) ## check style and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m mypy

test: lint ## lint, then every test; the slowest are listed at the end
	@$(PY) -m pytest

bench: $(STAMP) ## speed, memory and roofline against peers in one table (benchmarks/README.md)
	@$(PY) benchmarks/table.py

lock: ## write requirements.lock anew with the newest releases that pyproject.toml allows
	@mkdir -p _build && $(or $(PYTHON),python3.11) -m venv --clear _build/lock
	@_build/lock/bin/python -m pip install --quiet '.[book,dev]'
	@{ sed -n '/^#/p' requirements.lock; _build/lock/bin/python -m pip freeze --all \
	  | grep -v -i -e '^pip==' -e '^cryostudy' -e '^nvidia-' -e '^cuda-' -e '^triton==' | sed 's/+cpu$$//'; } > _build/requirements.lock
	@mv _build/requirements.lock requirements.lock && rm -r _build/lock

clean: ## remove what was built and run (_build) and the tools' caches; .venv stays
	rm -rf _build .snakemake .pytest_cache .hypothesis .mypy_cache .ruff_cache

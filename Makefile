# Every target makes what it needs first; `make help` prints itself.
.DEFAULT_GOAL := help
SHELL := bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
READY := $(VENV)/ready
AGAINST ?= HEAD
SERVICES := registry trainer renderer
DOCKER ?= docker
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# diffusers' imports remark on picture processors that nothing here uses.
export TRANSFORMERS_VERBOSITY := error

.PHONY: help install demo test lint types proto reference descriptors client breaking bench bench-registry bench-renderer bench-trainer capacity fidelity fidelity-quick fuzz clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY) ## The virtual environment with everything, pinned
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@

demo: $(READY) ## Learn three concepts from pictures and combine them: demo/sheet.png
	$(BIN)/python -m perfuse_toybox.demo --out demo

test: lint types ## Lint, types and all tests
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

lint: $(READY) ## Style and formatting, of the protos too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python proto/compile.py lint

types: $(READY) ## Strict static types
	$(BIN)/mypy

proto: $(READY) ## Generated stubs, from proto/ into src/perfuse/v1
	$(BIN)/python proto/compile.py stubs

reference: $(READY) ## docs/api.md, from the protos and their comments
	$(BIN)/python proto/reference.py

descriptors: $(READY) ## The protos with all they import in one file, perfuse.binpb, for other languages
	$(BIN)/python proto/compile.py descriptors

client: $(READY) ## The synchronous client, from the asynchronous one
	$(BIN)/python scripts/mirror_client.py

breaking: $(READY) ## Do the protos still speak to clients of AGAINST (a git revision)?
	$(BIN)/python proto/compile.py breaking --against $(AGAINST)

bench: $(READY) ## Ratios against peers, measured here
	$(BIN)/python -m bench

bench-registry: $(READY) ## The Registry beside MLflow's model registry server
	$(BIN)/python -m bench.registry

bench-renderer: $(READY) ## The Renderer beside stock diffusers, and under load
	$(BIN)/python -m bench.renderer

bench-trainer: $(READY) ## Training beside textual inversion, and packed beside one by one
	$(BIN)/python -m bench.trainer

capacity: $(READY) ## Fleets, simulated from measured step times: docs/capacity.md; a quarter of an hour
	$(BIN)/python -m bench.capacity

fidelity: $(READY) ## The paper's claims, measured: docs/fidelity.md; hours, stopped and gone on with at will
	$(BIN)/python -m bench.fidelity

fidelity-quick: $(READY) ## The same in small: 3 concepts, ten minutes on two cores
	$(BIN)/python -m bench.fidelity --quick

fuzz: $(READY) ## Search for inputs that break what reads strangers' bytes; MINUTES for each of TARGETS
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[fuzz]'
	$(BIN)/python -m fuzz --minutes $(or $(MINUTES),1) $(TARGETS)

images: ## The services' images, where Docker runs; PYTHON_IMAGE is their base, with its digest
	@[[ "$(PYTHON_IMAGE)" =~ @sha256:[0-9a-f]{64}$$ ]] || { echo "make images: PYTHON_IMAGE is '$(PYTHON_IMAGE)'; name a slim image of Python 3.11 with its digest, as PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:..., which docker buildx imagetools inspect python:3.11-slim-bookworm tells" >&2; exit 2; }
	set -e; for each in $(SERVICES); do $(DOCKER) build --file services/$$each/Dockerfile --tag perfuse-$$each:$(VERSION) --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .; done

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

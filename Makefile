# Everything below works from a fresh clone with git, make and Python 3.11 or newer, and is safe to repeat.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9

# Where this is set, every start of Python compiles all of torch anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-slow test-browser test-milvus test-docker lint lock clean

help:
	@echo "make demo       install, then train and compare baseline and DCAL on the toy data"
	@echo "make test       install, then lint, check types and run the fast tests"
	@echo "make test-slow  run the slow tests too"
	@echo "make test-browser  try the page and look at reports in Chromium"
	@echo "make test-milvus   try the Milvus engine on real servers, each in an environment of its own"
	@echo "make test-docker   build the image, start the compose file, kill, stop and upgrade it"
	@echo "make lock       renew requirements.lock and that of the image from pyproject.toml"

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@echo "Installing into .venv (a few GB: PyTorch brings its CUDA libraries) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
	@echo "Installed."

demo: install
	@$(BIN)/reid-demo

test: install
	@echo "Lint ..."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "Types ..."
	@$(BIN)/mypy
	@echo "Tests ..."
	@$(BIN)/pytest

test-browser: install
	@echo "Browser tests (need Chromium) ..."
	@$(BIN)/pytest -m browser

# Two processes, each with servers of its own, which its tests share: most of the time they wait for them.
test-milvus: install .venv-milvus/installed
	@echo "Tests on Milvus servers ..."
	@$(BIN)/pytest -m milvus

# Not in .venv: milvus-lite brings a faiss-cpu, which would overwrite our faiss-gpu.
.venv-milvus/installed: .venv/installed
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-milvus/milvus
	@$(BIN)/uv pip install --quiet --python .venv-milvus/milvus/bin/python milvus==2.3.5
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-milvus/milvus-lite
	@$(BIN)/uv pip install --quiet --python .venv-milvus/milvus-lite/bin/python milvus-lite==3.2.2 pymilvus==3.0.2
	@touch $@

# One process: they share the image.
test-docker: install
	@echo "Docker tests (need dockerd; they start it if none runs) ..."
	@$(BIN)/pytest -n 0 -m docker

test-slow: install
	@echo "Slow tests ..."
	@$(BIN)/pytest -m 'slow and not gpu' --timeout=1800

COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header

# The image has what is in the lock less what only developers need.
lock:
	@$(COMPILE) --all-extras --upgrade -o requirements.lock
	@$(COMPILE) --extra export --extra milvus --extra postgresql --no-annotate --constraint requirements.lock -o docker/requirements.lock

clean:
	rm -rf .venv .venv-milvus runs data build dist

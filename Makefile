# Every door into the project. `make demo` and `make test` make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test lint bench clean

install: $(INSTALLED)

# pip resolves against constraints.txt throughout: see the note there on PyTorch.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[vital,dev]'
	touch $@

demo: install
	$(BIN)/tinylm demo --out demo

test: install
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# All suites that this machine can run; each leaves a JSON file there, `gpu` none without a GPU.
bench: install
	mkdir -p results/bench
	$(BIN)/tinylm bench --suite cpu --json results/bench/cpu.json
	$(BIN)/tinylm bench --suite inference --json results/bench/inference.json
	$(BIN)/tinylm bench --suite gpu --json results/bench/gpu.json

clean:
	rm -rf $(VENV) demo build

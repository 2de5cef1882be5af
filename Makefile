# Every door into the project. `make demo` and `make test` make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test torture fuzz soak audit lint bench clean

install: $(INSTALLED)

# pip resolves against constraints.txt throughout: see the note there on PyTorch. It would compile all packages on
# one core, a third of the time; compileall does it on all cores, and fails where a package has a file of no use.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt \
	    --editable '.[vital,dev]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

demo: install
	$(BIN)/tinylm demo --out demo

test: install
	$(BIN)/pytest

# Kills seven commands 20 times each and compares with an undisturbed run; half an hour.
torture: install
	$(BIN)/python -m tests.torture

# Damaged files and requests for everything that reads them, for 30 minutes, and for 30 minutes what atheris makes
# of them, which nothing else needs.
fuzz: install
	$(BIN)/python -m tests.fuzz
	$(BIN)/pip install --quiet --disable-pip-version-check 'atheris>=3'
	$(BIN)/python -m tests.fuzz_coverage

# Twice the load that a server can take, for 60 seconds; on a machine that does nothing else.
soak: install
	$(BIN)/python -m tests.soak

# pip-audit has an environment of its own, so that it is not audited itself.
audit: install
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m tests.audit $(VENV)/audit/bin/pip-audit

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# All suites, some hours; each leaves a JSON file there, `train-gpu` none without a GPU.
bench: install
	mkdir -p results/bench
	for suite in train-cpu infer-cpu train-gpu ablation corpus select tfidf int8 scale; do \
	    $(BIN)/tinylm bench --suite $$suite --json results/bench/$$suite.json || exit 1; done

clean:
	rm -rf $(VENV) demo build

# make demo        tune a CNN on the bundled digits
# make test        the test suite
# make test-long   the tests that take minutes
# make docs        the site of docs/, into site/: every link checked
# make check       lint, formatting, types, and the lock file against known holes
# make faults      break everything on purpose, for an hour, and write docs/faults.md
# make faults-cluster  the same for clusters: machines, heads and links lost again and again
# make bench       a cut of every benchmark, half an hour, into benchmarks/RESULTS.md (DATA=folder of the data)
# make bench-full  the whole, hours; goes on where it was cut off
# make bench-gpu   one GPU: against the bare loop, and shared by trials (DATA=folder of the data)
# make audit       the lock file against published advisories too (needs the network)
# make lock        pin the versions again, after a change of the dependencies (needs uv)

PYTHON ?= python3
UV ?= uv
BIN := .venv/bin
INSTALLED := .venv/.installed

DATA ?= ../shared/data

.PHONY: demo test test-long docs check faults faults-cluster bench bench-full bench-gpu audit lock
.DEFAULT_GOAL := test

demo: .venv
	@$(BIN)/tunekit run --dataset digits --space digits --num-trials 20 --max-epochs 10 --metric val_loss --confirm 3

test: .venv
	@$(BIN)/python -m pytest -q --durations=10

test-long: .venv
	@$(BIN)/python -m pytest -q -m long --durations=20

docs: .venv
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --clean
	@echo "site/index.html; with its search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

check: .venv
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python tests/audit.py

faults: .venv
	@$(BIN)/python tests/faults/harness.py --out docs/faults.md

bench: .venv
	@$(BIN)/python benchmarks/run.py --data $(DATA)

bench-full: .venv
	@$(BIN)/python benchmarks/run.py --data $(DATA) --full

bench-gpu: .venv
	@$(BIN)/python benchmarks/gpu.py --data $(DATA)
	@$(BIN)/python benchmarks/report.py

faults-cluster: .venv
	@$(BIN)/python tests/cluster/fault_cluster.py --out docs/faults-cluster.md

audit: .venv
	@$(BIN)/python tests/audit.py --online

lock:
	@$(UV) pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock

# .venv is a folder, so a file in it says when it was last filled; both names stand for the same thing.
.PHONY: .venv
.venv: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tunekit needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing requirements.lock into .venv (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

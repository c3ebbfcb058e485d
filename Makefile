# Everything a developer or a user runs. `make demo` and `make test` need Linux, Python >= 3.10 and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Two processes, so one thread each: OpenMP's threads wait by spinning.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: setup demo test test-all check format lock system-packages benchmarks clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 10) <= sys.version_info < (3, 14)))' \
		|| { echo "medvision needs Python 3.10 to 3.13; found $$($(PYTHON) --version). Run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(INSTALLED)

demo: setup
	$(BIN)/medvision demo

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What some tests need beside Python: a browser, a PostgreSQL server and Prometheus. Without them those tests say that
# they are skipped. Debian starts a Prometheus of its own, which nobody here uses.
system-packages:
	@command -v chromium >/dev/null && command -v promtool >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium postgresql prometheus \
		&& { [ ! -d /run/systemd/system ] || systemctl disable --quiet --now prometheus; }; }

benchmarks: setup
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

lock:
	$(BIN)/uv pip compile --universal --python-version 3.10 --no-emit-index-url --extra dev --quiet pyproject.toml -o requirements.lock

clean:
	rm -rf demo results checkpoints runs wandb mlruns mlflow.db .medvision

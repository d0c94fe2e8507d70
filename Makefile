# Works with GNU make 3.81 (macOS) and newer. `make help` lists what there is.
# Python 3.11 or newer; PYTHON=/path/to/python3.12 takes another one than the first found.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && exit; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
# A stamp named after what was installed: other requirements, another name, so they are installed again.
INSTALLED := $(VENV)/.installed-$(shell cat requirements.txt | cksum | cut -d' ' -f1)
INSTALLED_DEV := $(VENV)/.installed-dev-$(shell cat requirements.txt requirements-dev.txt | cksum | cut -d' ' -f1)
# Compiling beside pip uses all cores. Left to the first start it would never happen under PYTHONDONTWRITEBYTECODE.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib || true
# What ruff's S rules judge too, line by line: asserts, addresses, random, our own programs, our own SQL.
JUDGED := B101,B104,B105,B311,B404,B603,B608

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench scale soak clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: $(INSTALLED) ## Start the gateway on http://127.0.0.1:8000 (PORT=9000 make run moves it); Ctrl-C stops it
	@$(BIN)/python manage.py up

# What is compiled is kept, whatever the environment says: tests start dozens of processes.
test: $(INSTALLED_DEV) ## Run the whole test suite; a part of it: ARGS="-k apply"
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(INSTALLED_DEV) ## Look for mistakes: ruff, mypy, bandit
	@$(BIN)/python -m pip --disable-pip-version-check check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy accounts gateway_project policies proxy usage
	@$(BIN)/bandit --quiet --recursive accounts gateway_project policies proxy usage --exclude '*/tests/*' --skip $(JUDGED)

format: $(INSTALLED_DEV) ## Put the code into shape
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

bench: $(INSTALLED_DEV) ## Measure the gateway against the bare relay; --peer and more: ARGS="--help"
	@$(BIN)/python -m benchmarks $(ARGS)

scale: $(INSTALLED_DEV) ## Time every admin page over 10 million calls in PostgreSQL; fewer: ARGS="--rows 300000"
	@$(BIN)/python -m benchmarks.scale $(ARGS)

soak: $(INSTALLED_DEV) ## Load for 10 minutes while workers, PostgreSQL and Redis die, then compare the books
	@$(BIN)/python -m benchmarks.soak $(ARGS)

clean: ## Remove the virtual environment and caches; your data in data/ stays
	rm -rf $(VENV) .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): $(BIN)/python
	@echo "Installing what Gatehouse needs ..."
	@# Everything is pinned, so there is nothing to work out: a third of the time. `make lint` holds the list complete.
	@$(PIP) --no-deps -r requirements.txt
	@$(COMPILE)
	@rm -f $(VENV)/.installed-[0-9]*
	@touch $@

$(INSTALLED_DEV): $(BIN)/python
	@echo "Installing what tests and linters need ..."
	@$(PIP) -r requirements-dev.txt
	@$(COMPILE)
	@rm -f $(VENV)/.installed-dev-[0-9]*
	@touch $@

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "Python 3.11 or newer is missing. Debian, Ubuntu:" \
		"sudo apt install python3 python3-venv. macOS: brew install python@3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Gatehouse needs Python 3.11 or newer," \
		"this is `"$(PYTHON)" --version 2>&1`. Install a newer one, or name it: PYTHON=/path/to/python3.12 make run" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing. Debian, Ubuntu:" \
		"sudo apt install python3-venv (or, for another Python than the system's, python3.X-venv)" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV)

# `make run` and `make test` are all that a newcomer needs; both make their own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= orl-quick

.PHONY: run test test-integration check fingerprints clean

run: $(VENV)/installed
	$(BIN)/facegan run $(RECIPE)

test: $(VENV)/installed-test
	$(BIN)/pytest -n 2

# Real servers and a real browser (as root it installs what Debian has of them), kills at random moments, README.
test-integration: $(VENV)/installed-integration
	tests/integration/prepare.sh
	$(BIN)/pytest -m integration -n 2 --timeout 600

check: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Writes the pinned keys anew: only where a stage's outputs are meant to change, with a CHANGELOG line that names it.
fingerprints: $(VENV)/installed-test
	$(BIN)/python tests/pipeline/test_fingerprints.py

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "facegan needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV): minutes the first time, several GB with torch"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/installed-integration: $(VENV)/installed-test
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,integration]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache

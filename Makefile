# Nothing is needed but Python 3.11 or newer and make; everything else is put into .venv.
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)

.PHONY: setup test test-napari demo reference clean

# mypy, which uses one core, runs beside the tests. Compiled modules are kept: most of the time before the first test
# is that of their compilation.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!; \
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q -n auto --maxprocesses 8 --dist worksteal; tests=$$?; \
	wait $$types && exit $$tests

# The plugin of napari, with napari and Qt, in an environment of its own.
NAPARI := .venv-napari/bin

test-napari: .venv-napari/installed
	$(NAPARI)/pytest -q -rs -W default -p no:npe2 -p no:napari -p no:napari-plugin-engine tests/test_napari*.py

demo: setup
	@mkdir -p out
	$(BIN)/stylize samples/bridge.jpg samples/starry-night.jpg -o out/demo.png --size 384

# The reference of the command line, stylize/cli/README.md.
reference: setup
	$(BIN)/python -m stylize.cli.reference

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stylize needs Python 3.11 or newer; call make PYTHON=/path/to/python3")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v $(UV) >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test]'
	@touch $@

.venv-napari/installed: pyproject.toml constraints.txt
	@test -x $(NAPARI)/python || $(PYTHON) -m venv .venv-napari
	@command -v uv >/dev/null 2>&1 || $(NAPARI)/python -m pip install --quiet --disable-pip-version-check uv
	@$$(command -v uv || echo $(NAPARI)/uv) pip install --quiet --compile-bytecode --python $(NAPARI)/python -c constraints.txt -e '.[napari]' pytest
	@touch $@

clean:
	rm -rf .venv .venv-napari out .mypy_cache .ruff_cache .pytest_cache .hypothesis

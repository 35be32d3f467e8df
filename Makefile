# The commands of geoflow. Each sets up .venv first, once; PYTHON=python3.12 chooses its Python.
SHELL := /bin/bash
BIN := .venv/bin
READY := .venv/.ready
LATEST := python3 python3.14 python3.13 python3.12 python3.11 python3.10
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 10))'
# The suite runs in as many processes; SLOW=1 adds what is marked slow, as continuous integration does.
JOBS ?= 2
SLOW ?=
PYTHON ?= $(shell for python in $(LATEST); do $$python $(NEW_ENOUGH) 2>/dev/null && echo $$python && break; done)

.PHONY: help demo test check lab notebooks site lock

help:
	@echo "make demo       train a flow on satellite tiles and draw where a tile could be: outputs/demo/"
	@echo "make test       all checks, then the tests in two processes: JOBS=4 for more, SLOW=1 for notebooks and the slowest tests too"
	@echo "make check      style, types, notebook pairs, layers: seconds"
	@echo "make lab        JupyterLab on the notebooks: ARGS='--port 9000 --no-browser' are its own options"
	@echo "make notebooks  execute every notebook from its source: NAMES='01_the_sphere' for some"
	@echo "make site       a gallery of the executed notebooks, to be read without Python: outputs/site/html/index.html"
	@echo "make lock       write constraints.txt anew (needs uv)"

# The stamp is written last, so that an interrupted installation is taken up again.
$(READY): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) $(NEW_ENOUGH) || { echo "geoflow needs Python 3.10 or newer; none was found. Try: make PYTHON=/path/to/python3" >&2; exit 1; }
	@rm -f $@
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv \
		|| { echo "$(PYTHON) cannot create a virtual environment (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,notebooks,photos,site]'
	@touch $@

demo: $(READY)
	$(BIN)/geoflow demo

# The layers were tested by the checks.
test: check
	$(BIN)/pytest -n $(JOBS) --dist worksteal --ignore tests/test_layers.py --durations=25 $(if $(SLOW),,-m "not slow")

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/ty check
	$(BIN)/python notebooks/execute.py --check
	$(BIN)/pytest -q -n $(JOBS) tests/test_layers.py

# JupyterLab asks root, which is who runs in a container, to say so.
lab: $(READY)
	$(BIN)/jupyter lab notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

notebooks: $(READY)
	$(BIN)/python notebooks/execute.py $(NAMES)

site: $(READY) outputs/explore.html
	rm -rf outputs/site
	$(BIN)/sphinx-build -M html . outputs/site -c notebooks/site -W --keep-going -q
	cp outputs/explore.html outputs/site/html/
	@echo "Open outputs/site/html/index.html"

outputs/explore.html: $(shell find geoflow -name '*.py' -o -path '*/static/*') | $(READY)
	$(BIN)/geoflow explore --out $@

lock:
	echo "torch==2.13.0" | uv pip compile --universal --python-version 3.10 --upgrade --no-header --no-annotate \
		--all-extras --constraint - --output-file constraints.txt pyproject.toml

# Two commands do everything: `make demo` and `make test`. Each target first makes .venv if it is missing or stale.
#   CPU-only torch on Linux:  make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" TORCH=torch==2.13.0+cpu

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH ?= torch==2.13.0
# A name on the PATH may be a stub that does not run, so a candidate must execute before it is believed.
PYTHON ?= $(shell for p in python3.11 python3.12; do $$p -c 'import venv, ensurepip' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: demo test test-long lint lab clean

demo: $(STAMP)  ## six executed notebooks and a report on the built-in synthetic market
	$(BIN)/cmat run params/demo.yaml

test: $(STAMP)  ## unit tests, static tests of the notebooks, and the smoke run of all six
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not long"

test-long: $(STAMP)  ## what takes longer
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)  ## style of code and notebooks, that no notebook holds outputs, and that imports go one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

lab: $(STAMP)  ## JupyterLab, open on notebooks/README.md
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/README.md --LabApp.app_settings_dir="$(CURDIR)/notebooks/.lab"

clean:  ## remove the environment, caches and all runs
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .hypothesis
	find outputs -mindepth 1 ! -name .gitkeep -delete

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "CMAT needs Python 3.11 or 3.12 with venv, and found neither."; \
	  echo "Debian/Ubuntu: apt install python3.11-venv   macOS: brew install python@3.11   conda: conda env create -f environment.yml"; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) $(TORCH)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	touch $@

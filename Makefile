# make demo           images from the bundled model, on the CPU, into output/
# make test           ruff, pyright, then every test
# make test-portable  the golden tests again with other CPU kernels and numbers of threads
# make fuzz           damaged and hostile files by the thousand (make test has some hundred)
# make bench-gpu      a table of what this machine's GPU makes of it (docs: benchmarks/README.md)
# make format         ruff's fixes and formatting
# make clean          removes the environment and output/
#
# Each first makes the environment that it needs, in .venv. On Windows: make.bat, with the same targets.
#
#   make demo PYTHON=python3.12              another interpreter for the environment (3.10 or newer)
#   make test VENV=~/venvs/pixeldit          another folder for it, or an existing environment
#   make demo TORCH=torch                    the newest torch; or TORCH=torch==2.8.0, another version; or a wheel
#   make demo PIP_ARGS="--index-url ..."     options of pip: a mirror, the builds without CUDA
#   make demo ARGS="--classes 3 --seeds 0-7" options of the sampler
#   make test ARGS="-m golden"               options of pytest
#   make bench-gpu ARGS="--quick --host ~/ComfyUI"
#   make fuzz ARGS="--cases 100000 --seed 1" options of the fuzzer

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PIP_ARGS ?=
ARGS ?=

VENV_PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.pixeldit-$(shell printf '%s' '$(TORCH) $(PIP_ARGS)' | cksum | cut -d' ' -f1)
PIP_INSTALL := $(VENV_PYTHON) -m pip install --disable-pip-version-check $(PIP_ARGS)

.PHONY: help demo test test-portable fuzz bench-gpu format clean
help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

demo: $(STAMP)-standalone
	$(VENV_PYTHON) -m pixeldit_core sample --device cpu --out output $(ARGS)

test: $(STAMP)-dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m pyright --pythonpath $(VENV_PYTHON)
	$(VENV_PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-portable: $(STAMP)-dev
	$(VENV_PYTHON) tests/portable.py $(ARGS)

fuzz: $(STAMP)-dev
	PYTHONPATH=tests $(VENV_PYTHON) -m fuzz.run --hostile
	PYTHONPATH=tests $(VENV_PYTHON) -m fuzz.run --cases 20000 $(ARGS)
	PYTHONPATH=tests $(VENV_PYTHON) -m fuzz.run --families --cases 2000 $(ARGS)

bench-gpu: $(STAMP)-dev
	PYTHONPATH=tests $(VENV_PYTHON) benchmarks/gpu.py $(ARGS)

format: $(STAMP)-dev
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

clean:
	rm -rf .venv output

$(VENV_PYTHON):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed. Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP)-standalone: pyproject.toml requirements-standalone.txt | $(VENV_PYTHON)
	$(PIP_INSTALL) "$(TORCH)" -e .
	@touch $@

$(STAMP)-dev: pyproject.toml requirements-standalone.txt | $(VENV_PYTHON)
	$(PIP_INSTALL) "$(TORCH)" -e ".[dev]"
	@touch $@

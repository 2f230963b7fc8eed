# make demo    pictures from the model in the box, on the CPU, into output/
# make test    ruff, then every test
# make test-portable   the golden tests again with other kernels and numbers of threads: other processors' last bits
# make fuzz    damaged and hostile files by the thousand, where make test has some hundred
# make format  ruff's fixes and formatting
# make clean   removes the environment and output/
#
# Each makes what it needs first: an environment in .venv. On Windows: make.bat, with the same words.
#
#   make demo PYTHON=python3.12              another interpreter for the environment (3.10 or newer)
#   make test VENV=~/venvs/pixeldit          another place for it, or an environment that is there already
#   make demo TORCH=torch                    the newest torch; or TORCH=torch==2.8.0, another version; or a wheel
#   make demo PIP_ARGS="--index-url ..."     more for pip: a mirror, the builds without CUDA
#   make demo ARGS="--classes 3 --seeds 0-7" more for the sampler
#   make test ARGS="-m golden"               more for pytest
#   make fuzz ARGS="--cases 100000 --seed 1" more for the fuzzer

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PIP_ARGS ?=
ARGS ?=

VENV_PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.pixeldit-$(shell printf '%s' '$(TORCH) $(PIP_ARGS)' | cksum | cut -d' ' -f1)
PIP_INSTALL := $(VENV_PYTHON) -m pip install --disable-pip-version-check $(PIP_ARGS)

.PHONY: help demo test test-portable fuzz format clean
help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

demo: $(STAMP)-standalone
	$(VENV_PYTHON) -m pixeldit_core sample --device cpu --out output $(ARGS)

test: $(STAMP)-dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m pytest $(ARGS)

test-portable: $(STAMP)-dev
	$(VENV_PYTHON) tests/portable.py $(ARGS)

fuzz: $(STAMP)-dev
	PYTHONPATH=. $(VENV_PYTHON) tests/core/fuzzing.py --hostile
	PYTHONPATH=. $(VENV_PYTHON) tests/core/fuzzing.py --cases 20000 $(ARGS)
	PYTHONPATH=. $(VENV_PYTHON) tests/core/fuzzing.py --relatives --cases 2000 $(ARGS)

format: $(STAMP)-dev
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

clean:
	rm -rf .venv output

$(VENV_PYTHON):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed. Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP)-standalone: requirements-standalone.txt | $(VENV_PYTHON)
	$(PIP_INSTALL) "$(TORCH)" -r requirements-standalone.txt
	@touch $@

$(STAMP)-dev: requirements-dev.txt requirements-standalone.txt | $(VENV_PYTHON)
	$(PIP_INSTALL) "$(TORCH)" -r requirements-dev.txt
	@touch $@

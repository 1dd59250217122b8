# make setup | demo | test | lint. Each alone sets everything up in .venv, again only when pyproject.toml changed.
#
# PYTHON  the interpreter that makes .venv (3.10 or newer)
# ARGS    more arguments: make test ARGS="-k mel", make demo ARGS="training.updates=2000"

PYTHON ?= python3
ARGS ?=
VENV := .venv
# Named after the content of pyproject.toml and the place, and written last: an interrupted installation is done again.
STAMP := $(VENV)/.installed-$(firstword $(shell { cat pyproject.toml; pwd; } | cksum))

.PHONY: help setup demo test lint check-machine

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

demo: setup
	@AUDIODIFF='$(CURDIR)/$(VENV)/bin/audiodiff' bash egs/common/shipped.sh demo/shipped
	@AUDIODIFF='$(CURDIR)/$(VENV)/bin/audiodiff' bash egs/mini/sounds/run.sh --data demo/data --exp demo $(ARGS)

test: setup
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 8 $(ARGS)

lint: setup
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

$(STAMP):
	@$(MAKE) --no-print-directory check-machine
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --editable '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

# pesq and pyworld have no wheels: pip compiles them.
check-machine:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	{ echo 'setup: $(PYTHON) is absent or older than 3.10; name another with make setup PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	{ echo 'setup: $(PYTHON) lacks venv; install it (Debian, Ubuntu: apt install python3-venv)' >&2; exit 1; }
	@{ command -v gcc && command -v g++; } >/dev/null 2>&1 || \
	{ echo 'setup: no C and C++ compiler; install them (Debian, Ubuntu: apt install build-essential)' >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.isfile(s.get_path("include") + "/Python.h"))' || \
	{ echo 'setup: the headers of $(PYTHON) are absent; install them (Debian, Ubuntu: apt install python3-dev)' >&2; exit 1; }

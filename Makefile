# shoal from a bare checkout: needs only python3 (3.10 to 3.13), git and make.
#
#   make train    train PPO on CartPole-v1           make train ARGS="--seed 3 --total-steps 50000"
#   make test     run the tests                      make test ARGS="tests/rllib -k checkpoint"
#   make test-ray the tests that need Ray, with Ray installed (engine "ray"); make test-gpu those that need a GPU;
#                 make test-browser those that need Chromium, which it installs on Debian
#   make lint     ruff and mypy                      make bench ARGS=core        make results
#   make chaos    kill workers at random             make soak    a million of everything, look for leaks
#   make clean    remove .venv and what tools left
#
# The first of them makes .venv and installs into it; later calls find the stamp and start at once. The stamp is older
# than setup.cfg, pyproject.toml or constraints.txt when one of those changed, and then the install is repeated.
# PYTHON=python3.12 chooses the interpreter, VENV=/some/folder another place for the environment.

VENV ?= .venv
ARGS ?=
# A space in VENV would part the name of a target, but for the backslash. Recipes quote what they are given.
space := $(subst ,, )
PLACE := $(subst $(space),\$(space),$(VENV))
BIN := $(VENV)/bin
STAMP := $(PLACE)/.installed
RAY_STAMP := $(PLACE)/.installed-ray

.DEFAULT_GOAL := help
.PHONY: help install install-ray install-browser train test test-ray test-gpu test-browser lint bench chaos soak results clean

help:
	@sed -n '3,9s/^#//p' Makefile

install: $(STAMP)

install-ray: $(RAY_STAMP)

# `python3` is tried first, because it is what whoever set up this machine chose; then the others, newest first. A name
# on the PATH proves nothing (a pyenv shim may have no version behind it), so each candidate is run. Debian's python3
# comes without ensurepip, which venv needs.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@set -eu; \
	suits='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; \
	found=; \
	for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10); do \
		if "$$python" -c "$$suits" 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "shoal needs Python 3.10 to 3.13; found: $$($(or $(PYTHON),python3) --version 2>/dev/null || echo none)." \
			"Install one of them, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "$$found has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	if [ ! -x "$(BIN)/python" ] || ! "$(BIN)/python" -c "$$suits" 2>/dev/null; then \
		"$$found" -m venv --clear "$(VENV)"; \
	fi
	@echo "installing shoal and its libraries into $(VENV); later calls skip this"
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch "$@"

# Ray is an extra, and large: only what needs it installs it.
$(RAY_STAMP): $(STAMP)
	@echo "installing Ray into $(VENV); later calls skip this"
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,ray]'
	@touch "$@"

train: $(STAMP)
	"$(BIN)/shoal" train --algo ppo --env CartPole-v1 $(ARGS)

# Two processes, each with sessions of its own: two thirds of the time of one on 2 cores. For a debugger: ARGS="-n 0".
test: $(STAMP)
	"$(BIN)/python" -m pytest -n 2 --dist loadfile $(ARGS)

test-ray: $(RAY_STAMP)
	"$(BIN)/python" -m pytest -m ray $(ARGS)

test-gpu: $(STAMP)
	"$(BIN)/python" -m pytest -m gpu $(ARGS)

test-browser: $(STAMP) install-browser
	"$(BIN)/python" -m pytest -m browser $(ARGS)

# Any Chromium or Chrome on the PATH will do. Where there is none, Debian's package, if we may install packages.
install-browser:
	@set -eu; \
	for name in chromium chromium-browser google-chrome chrome; do \
		if command -v "$$name" >/dev/null; then exit 0; fi; \
	done; \
	if ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
		echo "the tests in a browser need Chromium; on Debian: sudo apt-get install chromium" >&2; exit 1; \
	fi; \
	echo "installing Chromium; later calls skip this"; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium

# The folder of this checkout may have any name; mypy reads it through a link that is called `shoal`.
lint: $(STAMP)
	"$(BIN)/ruff" check .
	@mkdir -p .typing && ln -sfn .. .typing/shoal
	"$(BIN)/mypy"

# Every entry of the zoo with five seeds: an hour on 2 cores, less with ARGS="--parallel 2"; ARGS="--only CartPole-v1"
# takes half a minute. What is finished is kept. Writes what `shoal zoo` shows; `shoal results` writes beside its runs.
results: $(STAMP)
	"$(BIN)/shoal" results --output algorithms/zoo_results.json $(ARGS)

# What it is compared with is installed first: `make install-ray` for ARGS="core --vs ray" and ARGS=engine; MPI, for
# ARGS=simulation, by `.venv/bin/pip install -e '.[bench]'`, without which that measures the rest; Sample Factory, for
# ARGS="appo --vs sample-factory --sf-python PATH", into an environment of its own.
bench: $(STAMP)
	"$(BIN)/shoal" bench $(ARGS)

# Two minutes, and five.
chaos: $(STAMP)
	"$(BIN)/shoal" chaos $(ARGS)

soak: $(STAMP)
	"$(BIN)/shoal" soak $(ARGS)

clean:
	rm -rf "$(VENV)" .typing .mypy_cache .pytest_cache .ruff_cache build dist shoal.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

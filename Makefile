# Every target works in a fresh clone; what it needs is installed on the way. `make help` lists them.

VENV    := .venv
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.installed
FOLDERS := $(wildcard arc_bus arc_store arc_telemetry plugins tests examples)
# Nothing is built on the way in, but for nkeys, which is pure Python and published as source only.
WHEELS  := --only-binary :all: --no-binary nkeys
COMPILE := $(VENV)/bin/uv pip compile pyproject.toml --all-extras --group dev --group bench --group docs \
           --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
           --no-emit-find-links --no-header --quiet --output-file requirements-dev.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test test-unit conformance chaos hazards overload fuzz lint format types docs bench kill-nats kill-pulsar kill-store servers package sbom audit lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13

install: $(STAMP) ## make .venv from the locked requirements, once

# pip's own stamp: renewed when the lock or what the project declares changes.
$(STAMP): requirements-dev.txt pyproject.toml
	@test -x $(PY) || for python in $(PYTHON) python3.11 python3 python3.12 python3.13; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "making $(VENV) with $$python" && exec $$python -m venv $(VENV); fi; done; \
	  test -x $(PY) || { echo "Python 3.11 or newer is needed, with venv: none found as python3.11 or python3." \
	    "Install one (Debian: apt-get install python3.11-venv) or say make install PYTHON=/path/to/python" >&2; exit 1; }
	@echo "installing the locked requirements: about a minute"
	@$(PY) -m pip install --quiet --disable-pip-version-check $(WHEELS) --require-hashes -r requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

demo: install servers ## a voice turn through four services; SAY="..." for your own words
	$(PY) examples/voice_turn.py $${SAY:+--say "$$SAY"}

test: install servers ## every test, on real servers; fails too if docs/conformance.md is out of date
	$(PY) -m pytest -n 2 --dist loadfile --arc-conformance-page docs/conformance.md

test-unit: install ## the tests that need no server
	$(PY) -m pytest -m "not server"

conformance: install servers ## the conformance kit on every transport; writes docs/conformance.md
	$(PY) -m arc_bus.testing.report tests/conformance

chaos: install servers ## break every transport under load and judge; MINUTES=3 SEED=7 ON="nats jetstream"
	$(PY) -m arc_bus.testing.chaos --minutes $(or $(MINUTES),1) $(if $(SEED),--seed $(SEED)) $(ON)

hazards: install servers ## take away what handles each hazard and see its test fail; ONLY="5 17"
	$(PY) tests/faults/remove.py $(ONLY)

overload: install servers ## ten times what handlers can do; MINUTES=10 ON="memory nats"
	$(PY) -m arc_bus.testing.overload --minutes $(or $(MINUTES),1) $(ON)

fuzz: install ## N inputs through each parser and decoder, guided by coverage; N=1000000 SEED=7
	$(PY) tests/fuzz/fuzz.py -n $(or $(N),100000) $(if $(SEED),--seed $(SEED))

lint: install ## ruff: rules and format, changing nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: install ## ruff: mend what it can, and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

types: install ## mypy and pyright, both strict
	$(VENV)/bin/mypy $(FOLDERS)
	$(VENV)/bin/pyright

docs: install ## the documentation as a site, in site/; a broken link or a warning fails it
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet && echo "site/index.html"

bench: install servers ## ratios to the bare clients, with the budgets; QUICK=1 for less than a minute, FULL=1 for all
	$(PY) tests/bench/run.py $(if $(QUICK),--quick)

kill-nats: install ## kill nats-server KILLS times (30), alone and the leader of three, under load; SEED=7
	ARC_KILLS=$(or $(KILLS),30) ARC_SEED=$(SEED) $(PY) -m pytest -q tests/plugins/arc_nats/test_cluster.py

kill-pulsar: install servers ## kill Apache Pulsar KILLS times (30) under load; SEED=7
	KILLS=$(or $(KILLS),30) SEED=$(SEED) $(PY) -m pytest -q -s tests/plugins/arc_pulsar/test_kills.py

kill-store: install ## kill PostgreSQL and the outbox's relays KILLS times (30) each, under load
	ARC_STORE_KILLS=$(or $(KILLS),30) $(PY) -m pytest -q tests/arc_store/test_postgres_killed.py \
	    tests/arc_store/test_relay_killed.py

# Without Java or Maven the Pulsar tests run on pulsar-lite. CI must have the real one.
servers: install ## fetch Apache Pulsar's jars, where java and mvn are there
	@$(PY) -m arc_bus.servers fetch-pulsar || test "$(CI)" != true

package: install ## build the wheel and the sdist into dist/
	$(PY) -m build --no-isolation --outdir dist

sbom: install ## dist/sbom.json: CycloneDX of the library and of all that its extras install
	@mkdir -p dist
	$(VENV)/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --quiet \
	  --generate-hashes --no-header --no-emit-index-url --constraint requirements-dev.txt --output-file dist/requirements.txt
	$(VENV)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.json dist/requirements.txt

audit: install ## known weaknesses in the locked requirements; needs the advisory data of the package index
	$(VENV)/bin/pip-audit --disable-pip --require-hashes --strict -r requirements-dev.txt

lock: install ## renew requirements-dev.txt from pyproject.toml; UPGRADE=1 to move to the newest releases
	$(COMPILE) $(if $(UPGRADE),--upgrade)

clean: ## remove all that the targets made, .venv too
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

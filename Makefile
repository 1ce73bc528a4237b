# The commands of the house. `make` alone lists them.
PYTHON ?= python3
PY := .venv/bin/python
# Peers listen on every address; in a namespace of its own nobody outside reaches them.
ALONE := $(PY) tools/loopback_only.py
SECONDS ?= 60
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup setup-peers setup-rivals run demo test check fuzz abuse bench edge-soak fleet deb deb-test windows-wheels windows-bundle windows-test lock sbom release interoperability clean soak

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with everything that pyproject.toml names (fast when done)
	@tools/setup.sh

setup-peers: ## the same, and the real peers of the tests: Debian packages (as root) and dcmjs-dimse
	@tools/setup.sh peers

run: setup ## the gateway on loopback in front of an archive, with real images; keeps running
	@$(PY) demo/demo.py

demo: setup ## the same on free ports; ends by itself, exit 0 only if every line held
	@$(PY) demo/demo.py --once

test: setup-peers check ## everything that this machine can test
	@# Real peers share two cores here: what failed beside others is run again alone, and what fails alone fails.
	$(ALONE) $(PY) -m pytest -n 2 --dist loadfile $(PYTEST_OPTIONS) \
	    || $(ALONE) $(PY) -m pytest --last-failed --last-failed-no-failures none $(PYTEST_OPTIONS)

check: setup ## format, lint, strict types, import contracts, docs
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) tools/check_docs.py

setup-rivals:
	@tools/setup.sh rivals

fuzz: setup ## a fuzz run of each decoder, SECONDS each (default 60)
	$(PY) fuzz/run.py --seconds $(SECONDS)

abuse: setup-peers ## all cases of abuse, against the gateway and archives without it; writes docs/abuse.md
	$(ALONE) $(PY) -m tests.abuse.report $(TARGETS)

interoperability: setup-peers ## seven client stacks against five servers, four ways each; writes docs/interoperability.md
	$(ALONE) $(PY) -m tests.real.interoperability
	DICOMWARD_EDGE_MATRIX=every $(ALONE) $(PY) -m pytest -n 0 tests/real/test_edge_services.py

soak: setup-peers ## mixed traffic for SECONDS while everything around the gateway fails at random
	$(ALONE) $(PY) -m tests.soak.soak --seconds $(SECONDS)

bench: setup-rivals ## the measured targets, with rivals in the same run
	$(PY) bench/run.py

edge-soak: setup ## 10,000 objects through an edge agent, its line cut 20 times and itself killed 20 times
	DICOMWARD_EDGE_OBJECTS=10000 DICOMWARD_EDGE_ROUNDS=20 $(PY) tools/loopback_only.py $(PY) -m pytest -n 0 -s --timeout 3600 \
	    -k cuts_and_kills tests/real/test_edge_spool.py

fleet: setup ## the research of 2023 on simulated servers: 3,806 of them, every figure exact; FLEET_OPTIONS
	$(ALONE) $(PY) -m fleet.run $(FLEET_OPTIONS)

deb: setup ## a Debian package in dist/ (needs pip's index while it builds)
	@packaging/debian/build.sh dist

deb-test: deb ## install that package below a directory, run it, upgrade, remove and purge it
	DICOMWARD_DEB=$$(ls -t dist/dicomward_*.deb | head -1) $(ALONE) $(PY) -m pytest -n 0 tests/packaging/test_deb.py

windows-wheels: setup ## every locked dependency has a wheel for Windows (downloads them from an index)
	@$(PY) tools/windows.py wheels

windows-bundle: setup ## the edge agent for Windows in dist/: its wheels unpacked, and the installer of its service
	@$(PY) tools/windows.py bundle

windows-test: setup-peers ## that bundle by Windows' own Python in Wine, which must be installed: its service, and the tests of the agent
	$(PY) tools/windows.py prepare
	DICOMWARD_WINDOWS=$(CURDIR)/build/windows $(ALONE) $(PY) -m pytest -n 0 --timeout 600 tests/packaging/test_windows_in_wine.py
	DICOMWARD_EDGE_COMMAND='$(CURDIR)/build/windows/python -m dicomward.cli.main' $(ALONE) $(PY) -m pytest -n 0 --timeout 600 \
	    tests/real/test_edge.py tests/real/test_edge_spool.py tests/real/test_edge_commitment.py tests/real/test_edge_key.py \
	    tests/real/test_edge_mixed.py tests/real/test_edge_reverse.py tests/real/test_edge_services.py \
	    tests/real/test_edge_enrolment.py $(PYTEST_OPTIONS)

lock: setup ## lock all dependencies with hashes, in requirements/ (needs an index)
	$(PY) -m pip install --quiet 'uv>=0.5' && $(PY) tools/lock.py

sbom: setup ## the SBOM (CycloneDX) and the licences of what is locked, in dist/
	@mkdir -p dist && $(PY) tools/sbom.py >dist/sbom.cdx.json && $(PY) tools/sbom.py --licences >dist/licences.md

release: setup ## the wheel (built twice, and equal), SBOM, licences and SHA256SUMS in dist/; signed by tools/release.py
	@$(PY) tools/release.py build

clean: ## remove what the commands above made
	rm -rf .venv .setup-done run build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find src tests demo tools -name __pycache__ -type d -prune -exec rm -rf {} +

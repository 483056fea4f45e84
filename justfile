# Everything a person or CI does with this project. `just` alone lists it.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

export PATH := justfile_directory() / ".venv/bin" + ":" + justfile_directory() / ".tools/bin" + ":" + env("PATH")
export VIRTUAL_ENV := justfile_directory() / ".venv"

_list:
    @just --list --unsorted

# Make .venv and put exactly the locked packages into it
setup:
    @test -x .venv/bin/python || uv venv --quiet --python "$(command -v python3)" .venv
    @uv pip sync --quiet --require-hashes requirements.txt
    @uv pip install --quiet --no-deps --editable .

# The whole thing with simulated providers: no key, no Redis
[no-exit-message]
@demo *ARGS: setup
    weir demo "$@"

# Run the service with the providers whose keys are in the environment
[no-exit-message]
@serve *ARGS: setup
    weir serve "$@"

# The command line itself: weir check, weir simulate --help
[no-exit-message]
@weir *ARGS: setup
    weir "$@"

# The simulated providers alone
[no-exit-message]
@simulate *ARGS: setup
    weir simulate "$@"

# The tests, with branch coverage
test *ARGS: setup
    pytest --cov --cov-report=term:skip-covered "$@"

# What CI runs: lint, format, types, import rules, tests
check: setup
    ruff check
    ruff format --check
    mypy
    lint-imports
    pytest --numprocesses 3 --no-loadscope-reorder

# Measure, and print a table of ratios
bench *ARGS: setup
    python -m perf "$@"

# Put the code into its one format, and mend what ruff can
fmt: setup
    ruff check --fix-only
    ruff format

# Resolve the newest allowed packages again
lock:
    uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --group dev --output-file requirements.txt --custom-compile-command "just lock" pyproject.toml

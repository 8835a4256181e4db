#!/usr/bin/env bash
# Installs the project and the packages of the tests into .venv, then runs the tests. Arguments go
# to pytest.
#
#   launch/test.sh                 all tests
#   launch/test.sh -m "not slow"   only the quick tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
environment "[dev]"

.venv/bin/python -m pytest -n 2 --dist worksteal "$@"

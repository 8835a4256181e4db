#!/usr/bin/env bash
# Installs into .venv with what tests need, then runs them; arguments go to pytest.
#
#   launch/test.sh                 all tests
#   launch/test.sh -m "not slow"   those that take seconds
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
environment "[dev]"

.venv/bin/python -m pytest -n 2 --dist worksteal "$@"

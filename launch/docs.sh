#!/usr/bin/env bash
# Installs the project and Sphinx into .venv, then makes the pages of docs/ in build/docs. A warning,
# such as a dead link, is an error. Arguments go to Sphinx.
#
#   launch/docs.sh                 then open build/docs/index.html
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
environment "[docs]"

JAX_PLATFORMS=cpu .venv/bin/python -m sphinx --fail-on-warning --quiet "$@" docs build/docs
echo "build/docs/index.html"

#!/usr/bin/env bash
# Two and four processes on this machine that form one run: equal to one process, and what happens
# when one is killed, receives SIGTERM, has another workdir or never comes.
#
#   launch/drills/hosts.sh             all cases
#   launch/drills/hosts.sh --quick     those of CI, about a minute
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec "${PYTHON:-.venv/bin/python}" -m launch.drills.hosts "$@"

#!/usr/bin/env bash
# Installs the project into .venv, then makes a model forget footwear and bags and writes
# runs/demo/report.html.
#
#   launch/demo.sh                 the whole demo
#   launch/demo.sh --short         a few steps on few images, into runs/demo-short (for CI)
#   launch/demo.sh --config.seed=1 --workdir runs/seed1       with any flags of l2l_jax.main
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
environment "[tensorboard]"

config=configs/fashion_mnist.py workdir=runs/demo
if [ "${1:-}" = --short ]; then
    shift
    config=configs/fashion_mnist.py:smoke workdir=runs/demo-short
fi
# Arrays in huge pages: a step of the demo takes 0.8 times the CPU time (docs/performance.md).
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
.venv/bin/python -m l2l_jax.main --config "$config" --workdir "$workdir" "$@"

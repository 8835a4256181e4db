#!/usr/bin/env bash
# Installs into .venv, then forgets footwear and bags: the page is runs/demo/report.html.
#
#   launch/demo.sh                 the whole demo
#   launch/demo.sh --short         a few steps on few images, into runs/demo-short (for CI)
#   launch/demo.sh --config.seed=1 --workdir runs/seed1       any further flags of l2l_jax.main
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
environment ""

config=configs/fashion_mnist.py workdir=runs/demo
if [ "${1:-}" = --short ]; then
    shift
    config=configs/fashion_mnist.py:smoke workdir=runs/demo-short
fi
.venv/bin/python -m l2l_jax.main --config "$config" --workdir "$workdir" "$@"

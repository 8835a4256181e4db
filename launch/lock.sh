#!/usr/bin/env bash
# Writes launch/locks/PYTHON-PLATFORM/*.txt: the version and the SHA-256 of every package that
# launch/environment.sh installs for the interpreter and the platform below. Run it after a change
# of setup.cfg or launch/constraints.txt, which fixes the versions. It needs the network, and uv,
# which it installs into a temporary folder.
#
#   launch/lock.sh
#
#   build.txt    setuptools, which builds packages that are published as source only
#   base.txt     what the project needs
#   tensorboard.txt  what the extra [tensorboard] needs beyond that: TensorFlow
#   dev.txt      what the extra [dev] needs beyond base.txt, without PyTorch
#   torch.txt    PyTorch for CPUs, from its own index: that of PyPI would bring 3 GB of CUDA
#   gpu.txt      what the extra [gpu] needs beyond base.txt
#   docs.txt     what the extra [docs] needs beyond base.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=3.11 tag=cp311-linux-x86_64 platform=x86_64-manylinux_2_28
torch_index=https://download.pytorch.org/whl/cpu/torch/
target=launch/locks/$tag
tools="$(mktemp -d)"
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools/venv"
"$tools/venv/bin/pip" install -q --disable-pip-version-check uv
mkdir -p "$target"

# compiled NAME ARGUMENTS: the lock of setup.cfg with these arguments of uv.
compiled() {
    local name="$1"
    shift
    SSL_CERT_FILE="${SSL_CERT_FILE:-${PIP_CERT:-}}" "$tools/venv/bin/uv" pip compile --quiet \
        --no-annotate --no-header --generate-hashes --python-version "$python" \
        --python-platform "$platform" --constraint launch/constraints.txt "$@" \
        --output-file "$tools/$name.txt"
}

# names FILE [PATTERN]: arguments that leave the packages of a lock out of another one.
names() {
    grep -oE "^${2:-[A-Za-z0-9]}[A-Za-z0-9._-]*" "$1" | sed 's/^/--no-emit-package=/' || true
}

echo "setuptools>=77" >"$tools/build.in"
compiled build "$tools/build.in"
compiled base setup.cfg
compiled all setup.cfg --extra dev
compiled dev setup.cfg --extra dev $(names "$tools/base.txt") $(names "$tools/build.txt") \
    $(names "$tools/all.txt" '(torch|triton|nvidia-|cuda-)')
compiled tensorboard setup.cfg --extra tensorboard $(names "$tools/base.txt") \
    $(names "$tools/build.txt")
for extra in gpu docs; do
    compiled $extra setup.cfg --extra $extra $(names "$tools/base.txt") $(names "$tools/build.txt")
done
compiled base setup.cfg $(names "$tools/build.txt")

version="$(sed -n 's/^torch==//p' launch/constraints.txt)"
"$tools/venv/bin/pip" download -q --disable-pip-version-check --no-deps --retries 1 \
    --find-links "$torch_index" --dest "$tools/torch" "torch==$version+cpu"
sha256="$(sha256sum "$tools"/torch/torch-*.whl | cut -d ' ' -f 1)"
printf -- '--find-links %s\ntorch==%s+cpu \\\n    --hash=sha256:%s\n' \
    "$torch_index" "$version" "$sha256" >"$tools/torch.txt"

for name in build base tensorboard dev torch gpu docs; do
    {
        echo "# Written by launch/lock.sh for $tag; do not edit."
        cat "$tools/$name.txt"
    } >"$target/$name.txt"
    echo "$target/$name.txt: $(grep -cE '^[A-Za-z0-9]' "$target/$name.txt") packages"
done

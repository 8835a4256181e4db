#!/usr/bin/env bash
# The startup script of every host of a TPU that launch/tpu.sh asks for: runs at every start of the
# host, so that a run goes on by itself after a restart. As root.
#
# It ends what a former start has left, mounts the bucket, installs the code from it, and runs one
# process. Exit codes 75 (another host was lost) and 143 (SIGTERM) are followed by another try; any
# other is written to /tmp/l2l_jax.exit, for which launch/tpu.sh waits.
set -uo pipefail

RETRY_SECONDS="${L2L_POLL_SECONDS:-20}" # tests set it to 0
root="${L2L_ROOT:-}"                    # tests set it: the folder that stands for /
log="$root/tmp/l2l_jax.log" ended="$root/tmp/l2l_jax.exit" code_folder="$root/opt/l2l_jax"
bucket_folder="$root/mnt/l2l_jax"

value() {
    curl -sSf -H "Metadata-Flavor: Google" \
        "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

# stop_stale: a TPU belongs to one process, and a killed one leaves its lock.
stop_stale() {
    pkill -9 -f 'python -m l2l_jax[.]main'
    rm -f "$root/tmp/libtpu_lockfile"
}

mount_bucket() {
    command -v gcsfuse >/dev/null || {
        local from=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
        echo "deb [signed-by=$key] $from gcsfuse-$(lsb_release -cs) main" \
            >"$root/etc/apt/sources.list.d/gcsfuse.list"
        curl -sSf "$from/doc/apt-key.gpg" >"$root$key"
        apt-get update -qq && apt-get install -y -qq gcsfuse
    } || return 1
    mkdir -p "$bucket_folder"
    mountpoint -q "$bucket_folder" ||
        gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 \
            "$bucket" "$bucket_folder"
}

install_code() {
    rm -rf "$code_folder"
    mkdir -p "$code_folder"
    tar -xzf "$bucket_folder/code/$name.tar.gz" -C "$code_folder" || return 1
    cd "$code_folder" || return 1
    # shellcheck source=/dev/null
    source launch/environment.sh
    find_python 2>/dev/null || apt-get install -y -qq python3.11 python3.11-venv || return 1
    "$(find_python)" -m venv .venv && .venv/bin/python -m pip install -q \
        --constraint launch/constraints.txt --editable ".[tpu,tensorboard]"
}

main() {
    local name bucket flags result
    name="$(value l2l-name)" && bucket="$(value l2l-bucket)" &&
        mapfile -t flags < <(value l2l-flags) || return 1
    rm -f "$ended"
    stop_stale
    mount_bucket || return 1
    install_code || return 1
    while true; do
        .venv/bin/python -m l2l_jax.main "${flags[@]}" --workdir "$bucket_folder/runs/$name" \
            --distributed=auto --require=tpu
        result=$?
        case "$result" in
            75 | 143) echo "exit code $result: once more in $RETRY_SECONDS s" ;;
            *) return "$result" ;;
        esac
        stop_stale
        sleep "$RETRY_SECONDS"
    done
}

main >>"$log" 2>&1
echo "$?" >"$ended"

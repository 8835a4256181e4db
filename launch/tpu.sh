#!/usr/bin/env bash
# Runs an experiment on a TPU, of one host or many, and sees it through to its end.
#
#   launch/tpu.sh run NAME --zone=Z --type=v5litepod-64 --bucket=B -- --config configs/mae_imagenet.py
#   launch/tpu.sh status NAME --zone=Z      the state of the TPU, in one word
#   launch/tpu.sh log NAME --zone=Z         what process 0 says, from now on
#   launch/tpu.sh stop NAME --zone=Z        deletes the TPU; the bucket keeps the workdir
#
# `run` packs the committed files into the bucket, asks for a queued resource, waits until it is
# there, and follows the log of process 0. The TPU runs launch/tpu_worker.sh whenever a host starts,
# so that it goes on by itself after a restart. When it is preempted it is deleted and asked for
# again. When the run ends the TPU is deleted, and the exit code is that of the run.
#
#   --spot              cheaper, and can be preempted; else on demand
#   --runtime=IMAGE     software of the hosts (v2-alpha-tpuv5-lite, v2-alpha-tpuv6e, ...);
#                       default: chosen by --type
#   --project=P         of Google Cloud; default: that of gcloud
#   --wait=MINUTES      how long a TPU may take to come; default 720
#   --attempts=N        how many TPUs may be preempted before this gives up; default 100
#   --dry-run           prints the commands that change something, and runs none
set -euo pipefail

POLL_SECONDS="${L2L_POLL_SECONDS:-30}" # tests set it to 0
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

fail() {
    echo "error: $*" >&2
    exit 2
}

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

# parse WORD...: sets the variables of the options, and `flags`, the words after --.
parse() {
    zone="" type="" bucket="" runtime="" project="" wait=720 attempts=100 spot="" dry="" flags=()
    while [ $# -gt 0 ]; do
        case "$1" in
            --zone=*) zone="${1#*=}" ;;
            --type=*) type="${1#*=}" ;;
            --bucket=*) bucket="${1#*=}" ;;
            --runtime=*) runtime="${1#*=}" ;;
            --project=*) project="${1#*=}" ;;
            --wait=*) wait="${1#*=}" ;;
            --attempts=*) attempts="${1#*=}" ;;
            --spot) spot=--spot ;;
            --dry-run) dry=yes ;;
            --)
                shift
                flags=("$@")
                break
                ;;
            *) fail "launch/tpu.sh does not know $1; --help lists the options." ;;
        esac
        shift
    done
    [ -n "$zone" ] || fail "--zone is missing, such as --zone=us-central1-a."
    bucket="${bucket#gs://}"
    [[ "$wait$attempts" =~ ^[0-9]+$ ]] || fail "--wait and --attempts are whole numbers."
    where=("--zone=$zone" ${project:+"--project=$project"})
}

# change COMMAND...: runs a command that changes something, or prints it.
change() {
    if [ -n "$dry" ]; then
        printf 'would run:'
        printf ' %q' "$@"
        printf '\n'
    else
        "$@"
    fi
}

# image: the runtime for a type of TPU.
image() {
    case "$type" in
        v6e-*) echo v2-alpha-tpuv6e ;;
        v5p-*) echo v2-alpha-tpuv5 ;;
        v5litepod-*) echo v2-alpha-tpuv5-lite ;;
        *) echo tpu-ubuntu2204-base ;;
    esac
}

# state: of the TPU, in one word; ABSENT if there is none.
state() {
    local queue node
    queue="$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
        --format='value(state.state)' 2>/dev/null)" || {
        echo ABSENT
        return
    }
    if [ "$queue" = ACTIVE ]; then # the queue can be late
        node="$(gcloud compute tpus tpu-vm describe "$name" "${where[@]}" \
            --format='value(state)' 2>/dev/null)" || node=READY
        case "$node" in PREEMPTED | TERMINATED) queue="$node" ;; esac
    fi
    echo "${queue:-ABSENT}"
}

delete() {
    change gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

# prepare_bucket: a bucket in which folders can be renamed, with the code in it.
prepare_bucket() {
    local found archive
    found="$(gcloud storage buckets describe "gs://$bucket" \
        --format='value(hierarchical_namespace.enabled)' 2>/dev/null)" || found=absent
    case "$found" in
        True | true) ;;
        absent)
            change gcloud storage buckets create "gs://$bucket" ${project:+"--project=$project"} \
                --location="${zone%-*}" --uniform-bucket-level-access \
                --enable-hierarchical-namespace
            ;;
        *) fail "gs://$bucket has no hierarchical namespace, so that no folder in it can be" \
            "renamed. Name a new bucket: it is made with one." ;;
    esac
    archive="$(mktemp -d)/$name.tar.gz"
    git -C "$here/.." archive --format=tar.gz --output="$archive" HEAD
    change gcloud storage cp "$archive" "gs://$bucket/code/$name.tar.gz"
    rm -r "${archive%/*}"
}

# create: asks for the TPU.
create() {
    local words
    words="$(mktemp)"
    printf '%s\n' "${flags[@]}" >"$words"
    change gcloud alpha compute tpus queued-resources create "$name" "${where[@]}" \
        --node-id="$name" --accelerator-type="$type" --runtime-version="${runtime:-$(image)}" \
        --autocheckpoint-enabled $spot --scopes=cloud-platform \
        --metadata="l2l-name=$name,l2l-bucket=$bucket" \
        --metadata-from-file="startup-script=$here/tpu_worker.sh,l2l-flags=$words"
    rm "$words"
}

# wait_until_active: returns 1 if the TPU was preempted meanwhile.
wait_until_active() {
    local end now before=""
    end=$((SECONDS + 60 * wait))
    while now="$(state)"; do
        [ "$now" = "$before" ] || echo "$name: $now"
        before="$now"
        case "$now" in
            ACTIVE) return 0 ;;
            SUSPENDING | SUSPENDED | PREEMPTED | TERMINATED) return 1 ;;
            FAILED)
                gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
                    --format='value(state.failedData.error.message)' >&2 || true
                delete
                fail "the request for $name failed, for the reason above."
                ;;
        esac
        if [ "$SECONDS" -ge "$end" ]; then
            delete
            fail "no TPU within --wait=$wait minutes; the request is deleted. Try another zone."
        fi
        sleep "$POLL_SECONDS"
    done
}

# on_process_0 COMMAND: runs it on the host of process 0.
on_process_0() {
    gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=0 --command="$1"
}

# follow: shows the log of process 0 until the run ends. Sets `code`; returns 1 after a preemption.
follow() {
    local script now
    script="touch /tmp/l2l_jax.log; tail -n +1 -F /tmp/l2l_jax.log & \
until [ -s /tmp/l2l_jax.exit ]; do sleep 5; done; sleep 2; kill %1; \
echo; echo exit code \$(cat /tmp/l2l_jax.exit)"
    while true; do
        on_process_0 "$script" | tee "$seen" || true
        code="$(sed -n 's/^exit code \([0-9]*\)$/\1/p' "$seen" | tail -n 1)"
        [ -z "$code" ] || return 0
        now="$(state)"
        [ "$now" = ACTIVE ] || return 1
        sleep "$POLL_SECONDS" # the connection broke, or the host restarts
    done
}

run() {
    [ -n "$type" ] || fail "--type is missing, such as --type=v5litepod-16."
    [ -n "$bucket" ] || fail "--bucket is missing: workdir and code are kept in it."
    [ ${#flags[@]} -gt 0 ] || fail "the flags of l2l_jax.main are missing: after --."
    prepare_bucket
    if [ -n "$dry" ]; then
        create
        delete
        return
    fi
    seen="$(mktemp)"
    trap 'rm -f "$seen"' EXIT
    local attempt
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        case "$(state)" in
            ABSENT) create ;;
            SUSPENDING | SUSPENDED | PREEMPTED | TERMINATED | FAILED) # must go before a new one
                delete
                create
                ;;
        esac
        if wait_until_active && follow; then
            delete
            echo "$name: the run ended with exit code $code; its workdir is gs://$bucket/runs/$name"
            exit "$code"
        fi
        echo "$name: preempted; it is deleted and asked for again"
        delete
    done
    fail "$name was preempted $attempts times (--attempts). The same command continues the run."
}

command="${1:-}"
case "$command" in
    run | status | log | stop) ;;
    "" | -h | --help)
        usage
        exit 0
        ;;
    *) fail "launch/tpu.sh takes run, status, log or stop, not $command." ;;
esac
name="${2:-}"
[[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || fail "NAME is of small letters, digits and hyphens, not '$name'."
shift 2
parse "$@"
case "$command" in
    run) run ;;
    status) state ;;
    log) on_process_0 "tail -n 100 -F /tmp/l2l_jax.log" ;;
    stop) delete ;;
esac

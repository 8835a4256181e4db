#!/usr/bin/env bash
# launch/slurm.sh in a real Slurm: a job on two nodes is requeued while it trains, continues, and
# ends with the same parameters, bit for bit, as a job that was left alone.
#
#   launch/drills/slurm.sh              about two minutes on two idle cores
#
# Needs root and Debian's packages slurm-wlm and munge. One slurmctld and two slurmd run in a
# temporary folder, with names, processes and mounts of their own (unshare), so that nothing is left
# and nothing else is touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON="$(realpath -s "${PYTHON:-.venv/bin/python}")"
export PYTHON

MIN_STEP=20 # of training, after which the job is requeued
STEPS=400
WAIT_SECONDS="${WAIT_SECONDS:-600}" # for each step of the drill

if [ -z "${L2L_SLURM_DRILL:-}" ]; then
    for tool in slurmctld slurmd munged sbatch; do
        command -v "$tool" >/dev/null ||
            { echo "error: $tool is missing: apt-get install slurm-wlm munge" >&2 && exit 2; }
    done
    L2L_SLURM_DRILL="$(mktemp -d /tmp/l2l_slurm_XXXXXX)"
    export L2L_SLURM_DRILL
    trap 'rm -rf "$L2L_SLURM_DRILL"' EXIT
    unshare --mount --pid --fork --kill-child --mount-proc bash launch/drills/slurm.sh "$@"
    exit
fi

folder="$L2L_SLURM_DRILL"
export SLURM_CONF="$folder/slurm.conf" L2L_CACHE="$folder/cache" JAX_PLATFORMS=cpu
export JAX_COMPILATION_CACHE_DIR="$folder/programs" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export JAX_DISABLE_MOST_OPTIMIZATIONS=1

fail() {
    echo "error: $*" >&2
    tail -n 40 "$folder"/*.log >&2
    exit 1
}

# until_true SECONDS COMMAND...: waits until a command succeeds.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || fail "in vain: $*"
        sleep 0.5
    done
}

start_slurm() {
    local host node
    host="$(hostname -s)"
    mkdir -p "$folder"/{state,spooln1,spooln2}
    printf '127.0.0.1 localhost n1 n2 %s\n' "$host" >"$folder/hosts"
    mount --bind "$folder/hosts" /etc/hosts
    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
    chmod 0400 "$folder/munge.key"
    chmod 0755 "$folder"
    munged --force --socket="$folder/munge" --key-file="$folder/munge.key" \
        --log-file="$folder/munge.log" --pid-file="$folder/munge.pid" \
        --seed-file="$folder/munge.seed"
    cat >"$SLURM_CONF" <<EOF
ClusterName=drill
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=17000
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=30
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,sched_min_interval=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=1
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
EOF
    case "$(slurmctld -V)" in # where Slurm would ask for cgroups
        *" 2"[0-2].*) ;;
        *) echo "CgroupPlugin=disabled" >"$folder/cgroup.conf" ;;
    esac
    slurmctld || fail "slurmctld does not start"
    for node in n1 n2; do
        slurmd -N "$node" || fail "slurmd does not start"
    done
    until_true 30 nodes_are_idle
}

nodes_are_idle() {
    [ "$(sinfo --noheader --format=%D --states=idle)" = 2 ]
}

# submit NAME: a job on both nodes; sets `job`.
submit() {
    job="$(sbatch --parsable --nodes=2 --export=ALL --output="$folder/$1.log" launch/slurm.sh \
        --config tests/configs/small.py --workdir "$folder/$1" --config.runtime.log_every=0.0 \
        --config.unlearn.steps="$STEPS" --config.runtime.save_every=100000)"
}

has() {
    grep -q "$2" "$folder/$1.log" 2>/dev/null
}

state_of_job() {
    scontrol show job "$job" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'
}

state_is() {
    [ "$(state_of_job)" = "$1" ]
}

ended() {
    case "$(state_of_job)" in
        PENDING | RUNNING | COMPLETING | CONFIGURING) return 1 ;;
    esac
}

start_slurm
echo "Slurm $(sinfo --version | cut -d' ' -f2) runs with $(sinfo --noheader --format='%D nodes')"
submit requeued
until_true "$WAIT_SECONDS" has requeued "unlearn $MIN_STEP/"
began=$SECONDS
scontrol requeue "$job"
until_true 60 state_is PENDING
echo "job $job is pending again after $((SECONDS - began)) s"
has requeued "stopped by SIGTERM: unlearn is saved up to step" || fail "nothing was saved"
scontrol update "JobId=$job" StartTime=now # Slurm waits two minutes by default
until_true "$WAIT_SECONDS" ended
state_is COMPLETED || fail "job $job ended as $(state_of_job)"
has requeued "unlearn: continuing from step" || fail "the job did not continue"
grep -E "process 0 of|stopped by|continuing from" "$folder/requeued.log"
submit whole
until_true "$WAIT_SECONDS" ended
"$PYTHON" - "$folder/requeued" "$folder/whole" <<'EOF'
import sys
import pathlib
import numpy as np
from l2l_jax.engine.outcome import final_weights
from l2l_jax.lib import trees

one, other = (trees.flatten(final_weights(pathlib.Path(path)).params) for path in sys.argv[1:])
different = [name for name in one if not np.array_equal(one[name], other[name])]
print(f"{len(one)} arrays, {len(different)} differ from those of the job that was left alone")
sys.exit(bool(different) or one.keys() != other.keys())
EOF
echo "good, $SECONDS s"

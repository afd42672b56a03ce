#!/usr/bin/env bash
# one_machine.sh COMMAND…: run a command beside a real Slurm of one machine, then take the Slurm down again.
#
# Needs root and Debian's packages: apt-get install slurm-wlm munge. Everything it makes lies in one temporary
# folder; the machine's own Slurm, if there is one, is not touched. Exit code: the command's, 77 where it
# cannot run here (with the reason).
set -euo pipefail

skip() { echo "skipped: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "a Slurm of one's own needs root"
for program in munged slurmctld slurmd sbatch; do
    command -v "$program" > /dev/null || PATH="$PATH:/usr/sbin" command -v "$program" > /dev/null || skip "no $program (apt-get install slurm-wlm munge)"
done
[ -d /sys/fs/cgroup/freezer ] && [ -d /sys/fs/cgroup/memory ] || skip "no cgroup v1, which holds a job's memory to its limit here"
export PATH="$PATH:/usr/sbin"
# Two at a time would give their jobs the same cgroups, and end each other's.
exec 9> /tmp/one-slurm.lock
flock 9

here=$(mktemp -d /tmp/one-slurm.XXXXXX)
chmod 755 "$here"
mkdir -p "$here"/{munge,state,spool}
pids=()
stop() {
    # Jobs first: their keepers would wait for ever for a controller that is gone.
    if [ -n "${SLURM_CONF:-}" ]; then
        timeout 10 scancel --me --signal=KILL --full 2> /dev/null || true
        for _ in $(seq 50); do timeout 5 squeue --noheader 2> /dev/null | grep -q . || break; sleep 0.2; done
    fi
    for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2> /dev/null || true; done
    rm -rf "$here"
}
trap stop EXIT

head -c 1024 /dev/urandom > "$here/munge/key"
chmod 700 "$here/munge"
chmod 400 "$here/munge/key"
munged --foreground --force --key-file "$here/munge/key" --socket "$here/munge.socket" --pid-file "$here/munge/pid" \
    --log-file "$here/munge/log" --seed-file "$here/munge/seed" 2> "$here/munged.log" 9>&- &
pids+=($!)

name=$(hostname -s)
cores=$(nproc)
memory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }
cat > "$here/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=$(port)
SlurmdPort=$(port)
AuthType=auth/munge
AuthInfo=socket=$here/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/spool
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/slurmd.log
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=5
MpiDefault=none
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=$name Default=YES MaxTime=60 State=UP
CONF
cat > "$here/cgroup.conf" <<CONF
CgroupPlugin=cgroup/v1
CgroupAutomount=yes
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
CONF
export SLURM_CONF="$here/slurm.conf"
for _ in $(seq 100); do [ -S "$here/munge.socket" ] && break; sleep 0.1; done
slurmctld -D 2> /dev/null 9>&- &
pids+=($!)
slurmd -D 2> /dev/null 9>&- &
pids+=($!)
for _ in $(seq 300); do
    sinfo --noheader --format=%T 2> /dev/null | grep -q idle && break
    sleep 0.1
done
if ! sinfo --noheader --format=%T 2> /dev/null | grep -q idle; then
    tail -n 20 "$here"/slurmctld.log "$here"/slurmd.log
    skip "Slurm did not come up on this machine"
fi
"$@"

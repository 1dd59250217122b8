#!/usr/bin/env bash
# A SLURM cluster of two nodes, d1 and d2, on this one machine, for the tests of this folder.
#
#   sudo apt install slurm-wlm munge
#   sudo bash tests/cluster/cluster.sh start DIR    two slurmd and a slurmctld, files in DIR; waits until both are idle
#   sudo bash tests/cluster/cluster.sh stop DIR     ends them
#   SLURM_CONF=DIR/slurm.conf python -m pytest -m long tests/cluster
#
# Needs root: munged has a user of its own, and the names d1 and d2 are written to /etc/hosts, where ranks look for
# each other; `stop` takes them out again.
set -euo pipefail
MARK='# audiodiff test cluster'

usage() { sed -n '/^# A SLURM/,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 2; }
[ $# -eq 2 ] || usage
command=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)

stop() {
  for daemon in slurmctld d1 d2 munged; do
    if [ -f "$folder/$daemon.pid" ]; then kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true; fi
  done
  # Written in place: where /etc/hosts is a mount, it cannot be replaced.
  others=$(grep -v "$MARK" /etc/hosts)
  printf '%s\n' "$others" > /etc/hosts
}

configure() {
  mkdir -p "$folder/state" "$folder/d1" "$folder/d2"
  cores=$(nproc)
  cat > "$folder/slurm.conf" <<CONF
ClusterName=audiodiff
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPort=17000
MpiDefault=none
KillWait=30
NodeName=d1 NodeAddr=127.0.0.1 Port=17001 CPUs=$cores State=UNKNOWN
NodeName=d2 NodeAddr=127.0.0.1 Port=17002 CPUs=$cores State=UNKNOWN
PartitionName=test Nodes=d1,d2 Default=YES MaxTime=60 State=UP
CONF
  dd if=/dev/urandom of="$folder/munge.key" bs=1 count=1024 status=none
  chown munge "$folder/munge.key"
  chmod 400 "$folder/munge.key"
}

start() {
  for program in munged slurmctld slurmd; do
    command -v $program > /dev/null || { echo "cluster: no $program; apt install slurm-wlm munge" >&2; exit 1; }
  done
  configure
  echo "127.0.0.1 d1 d2 $MARK" >> /etc/hosts
  # munge refuses folders that others may write to; the socket and key are its own.
  chmod 755 "$folder"
  chown munge "$folder"
  setpriv --reuid=munge --regid=munge --clear-groups munged --force --key-file="$folder/munge.key" \
    --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
  export SLURM_CONF="$folder/slurm.conf"
  slurmctld -c
  slurmd -N d1
  slurmd -N d2
  for _ in $(seq 60); do
    if [ "$(sinfo --noheader --format=%T | sort -u)" = idle ]; then
      echo "export SLURM_CONF=$SLURM_CONF"
      return
    fi
    sleep 1
  done
  echo "cluster: the nodes did not come up; see $folder/*.log" >&2
  exit 1
}

case $command in
  start) stop; start ;;
  stop) stop ;;
  *) usage ;;
esac

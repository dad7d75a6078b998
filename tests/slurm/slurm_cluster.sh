#!/bin/bash
# A real, private SLURM cluster on loopback: no systemd, no cgroups, nothing in /etc, none of the default ports.
#   slurm_cluster.sh start DIR [NODES=2] [GPUS_PER_NODE=2] [ACCT=yes]   prints "export SLURM_CONF=..."; may be repeated
#   slurm_cluster.sh stop DIR               ends every process of that cluster by pid; leaves DIR with its logs
#   slurm_cluster.sh kill-node|start-node DIR NODE     NODE (127.0.0.2, ...) dies with all its tasks / comes back
#   slurm_cluster.sh kill-slurmd DIR NODE              its slurmd dies alone, and its tasks live on; start-node as above
#   slurm_cluster.sh kill-controller|stop-controller|start-controller DIR      stopped, it saves its state
# ACCT=yes runs slurmdbd on a private mariadbd, so that sacct answers (submitit follows its jobs through sacct).
set -u; PATH=$PATH:/usr/sbin; cmd=${1:-}
die() { echo "slurm_cluster: $*" >&2; exit 1; }
[ -n "${2:-}" ] || die "usage: start DIR [NODES] [GPUS_PER_NODE] [yes|no] | stop DIR | kill-node|start-node|kill-slurmd DIR NODE | kill-controller|stop-controller|start-controller DIR"
DIR=$(realpath -m "$2"); NODES=${3:-2} GPUS=${4:-2} ACCT=${5:-yes} CPUS=${CPUS:-4} MEM=${MEM:-8000} ME=$(id -un)
for v in ${!SLURM_@} ${!SBATCH_@}; do unset "$v"; done            # nothing of an outer cluster may leak in
export SLURM_CONF=$DIR/slurm.conf; NAME=$(cat "$DIR/name" 2>/dev/null)
# Daemons and tasks carry the cluster's unique name in their environment. A slurmstepd has overwritten its environment
# with its title; it is known by the unix socket DIR/spool.NODE/... on which it listens.
ours()  { [ -n "$NAME" ] && grep -qzxs "SLURM_CLUSTER_NAME=$NAME" "/proc/$1/environ"; }   # so a reused pid is no risk
named() { [ -n "$NAME" ] && grep -lzxs "SLURM_CLUSTER_NAME=$NAME" /proc/[0-9]*/environ | cut -d/ -f3; }
steps() { local i; for i in $(awk -v d="$DIR/spool.$1" 'index($8, d) == 1 {print $7}' /proc/net/unix); do
              find /proc/[0-9]*/fd -lname "socket:?$i?" 2>/dev/null | cut -d/ -f3; done; }
pids()  { awk -v n="^$1" '$1 ~ n {print $2}' "$DIR/pids" 2>/dev/null; }
kill9() { local p; for p; do kill -9 "$p" 2>/dev/null; done; }
end()   { local p i; for p; do ours "$p" && kill "$p"; done      # TERM, up to 10 s of grace, then KILL
          for p; do for i in {1..100}; do ours "$p" || continue 2; sleep 0.1; done; kill9 "$p"; done; }
stop()  { local d p; [ -n "$NAME" ] || return 0; end $(pids slurmctld); end $(pids slurmd:); kill9 $(steps "")
          for p in $(named); do grep -q " $p\$" "$DIR/pids" || kill9 "$p"; done          # tasks of jobs
          for d in slurmdbd mariadbd munged; do end $(pids $d); done; kill9 $(named); rm -f "$DIR/name" "$DIR/pids"; }
run()   { local n=$1; shift                                       # in a session of its own: no ^C reaches it
          SLURM_CLUSTER_NAME=$NAME setsid "$@" </dev/null >>"$DIR/log/$n.out" 2>&1 9>&- & echo "$n $!" >>"$DIR/pids"; }
node()  { run "slurmd:$1" slurmd -D -N "$1"; }
await() { local what=$1 i p; shift                                # await WHAT COMMAND: 60 s, while all daemons live
          for i in {1..600}; do "$@" >/dev/null 2>&1 && return; sleep 0.1
              [ "$i" -lt 10 ] || for p in $(pids .); do ours "$p" || break 2; done; done
          tail -n 8 "$DIR"/log/* >&2; stop; die "no $what; logs in $DIR/log"; }
idle()  { [ "$(sinfo -h -N -p main -o %T | grep -cx idle)" = "$NODES" ]; }
open_() { (exec 3<>"/dev/tcp/$ADDR/$1") 2>/dev/null; }
case $cmd in
    stop) stop; exit ;;
    kill-node) all="$(pids "slurmd:$3\$") $(steps "$3/")"          # at once: nobody lives to tell of the others' death
        for p in $(named); do grep -qzxs "SLURMD_NODENAME=$3" "/proc/$p/environ" && all+=" $p"; done
        kill -9 $all 2>/dev/null; kill9 $(steps "$3/"); exit 0 ;;
    kill-slurmd) kill9 $(pids "slurmd:$3\$"); exit ;;
    kill-controller) kill9 $(pids slurmctld); exit 0 ;;
    stop-controller) end $(pids slurmctld); exit 0 ;;
    start-controller) sed -i "/^slurmctld /d" "$DIR/pids"; run slurmctld slurmctld -D; exit ;;
    start-node) sed -i "/^slurmd:$3 /d" "$DIR/pids"; node "$3"; exit ;;
    start) ;; *) die "unknown command $cmd" ;;
esac
need="munged:munge slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client"; miss=
[ "$ACCT" != yes ] || need+=" slurmdbd:slurmdbd mariadbd:mariadb-server-core mysql:mariadb-client-core"
for n in $need; do command -v "${n%:*}" >/dev/null || miss+=" ${n#*:}"; done
[ -z "$miss" ] || die "missing packages: apt-get install -y --no-install-recommends$miss"
[ ${#DIR} -le 75 ] || die "too long for the unix sockets in it: $DIR"
[ -e "$SLURM_CONF" ] || [ -z "$(ls -A "$DIR" 2>/dev/null)" ] || die "$DIR is neither empty nor a cluster of this script"
mkdir -p "$DIR" && exec 9>"$DIR/lock" && flock 9 || die "cannot use $DIR"; NAME=$(cat "$DIR/name" 2>/dev/null)
if [ -n "$NAME" ]; then up=yes                                    # started before: keep it if whole, else start afresh
    for p in $(pids .); do ours "$p" || up=no; done
    [ $up$(timeout 10 sinfo -h -o up 2>/dev/null | head -1) != yesup ] || { echo "export SLURM_CONF=$SLURM_CONF"; exit; }
    stop
fi
rm -rf "$DIR"/{state,db,log,gpu*,spool.*,munge*}; mkdir -p "$DIR"/{state,log}; mkdir -m 700 "$DIR/db"; : >"$DIR/pids"
# With NoInAddrAny the daemons bind the address of the host's name only (127.0.x.x as a rule), not every address.
HOST=$(hostname -s) ADDR=$(getent ahostsv4 "$(hostname)" | awk '{print $1; exit}') BIND=NoCtldInAddrAny,NoInAddrAny
[ -n "$ADDR" ] || { ADDR=127.0.0.1 BIND=NoAddrCache; }
while B=$((10000 + RANDOM % 9000)); do for ((p = B; p < B + NODES + 2; p++)); do open_ $p && continue 2; done; break; done
NAME=t$B-$$-$(date +%s); echo "$NAME" >"$DIR/name"; trap 'stop; exit 130' INT TERM HUP
AUTH=socket=$DIR/munge.sock,cred_expire=5                         # the least; also the wait before a requeued job runs
ACC=("AccountingStorageType=accounting_storage/none")
[ "$ACCT" != yes ] || ACC=("AccountingStorageType=accounting_storage/slurmdbd" "AccountingStorageHost=$ADDR" \
    "AccountingStoragePort=$((B + 1))" "AccountingStoragePass=$DIR/munge.sock" AccountingStorageEnforce=associations,limits,qos)
printf '%s\n' "ClusterName=$NAME" "SlurmctldHost=$HOST($ADDR)" "SlurmctldPort=$B" "CommunicationParameters=$BIND" \
    "SlurmUser=$ME" "SlurmdUser=$ME" "AuthType=auth/munge" "CredType=cred/munge" "AuthInfo=$AUTH" "${ACC[@]}" \
    "StateSaveLocation=$DIR/state" "SlurmdSpoolDir=$DIR/spool.%n" "SlurmctldPidFile=$DIR/state/slurmctld.pid" \
    "SlurmdPidFile=$DIR/state/slurmd.%n.pid" "SlurmctldSyslogDebug=quiet" "SlurmdSyslogDebug=quiet" \
    "ProctrackType=proctrack/linuxproc" "TaskPlugin=task/none" "JobAcctGatherType=jobacct_gather/none" \
    "MpiDefault=none" "SelectType=select/cons_tres" "SelectTypeParameters=CR_CPU_Memory" "DefMemPerCPU=100" \
    "GresTypes=gpu" "SlurmdParameters=config_overrides" "SchedulerParameters=sched_interval=1,bf_interval=1" \
    "SlurmdTimeout=60" "ReturnToService=1" "KillWait=5" "JobRequeue=1" "MaxArraySize=${ARRAY:-1001}" "PreemptType=preempt/partition_prio" \
    "PreemptMode=REQUEUE" "SlurmctldParameters=preempt_send_user_signal" \
    "PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=10" \
    "PartitionName=urgent Nodes=ALL State=UP PriorityTier=10" `# its jobs preempt those of main` \
    "PartitionName=short Nodes=ALL State=UP MaxTime=10" "EnforcePartLimits=ALL" >"$SLURM_CONF"
echo AutoDetect=off >"$DIR/gres.conf"; GRES=; [ "$GPUS" -eq 0 ] || GRES=Gres=gpu:$GPUS
for ((i = 0; i < GPUS; i++)); do ln -s /dev/null "$DIR/gpu$i"; echo "Name=gpu File=$DIR/gpu$i" >>"$DIR/gres.conf"; done
# A node is named like a loopback address, so that its name resolves in MASTER_ADDR of torch.distributed.
for ((i = 0; i < NODES; i++)); do echo "NodeName=127.0.0.$((i + 2)) NodeAddr=$ADDR Port=$((B + 2 + i)) CPUs=$CPUS" \
    "RealMemory=$MEM Feature=a100,nvme $GRES" >>"$SLURM_CONF"; done
(umask 077; head -c 128 /dev/urandom >"$DIR/munge.key")
run munged munged -F --force --key-file="$DIR/munge.key" --socket="$DIR/munge.sock" --pid-file="$DIR/munge.pid" \
    --log-file="$DIR/log/munged.log" --seed-file="$DIR/munge.seed"
await munged munge -n -S "$DIR/munge.sock"
if [ "$ACCT" = yes ]; then
    db="--no-defaults --user=$ME --datadir=$DIR/db --innodb-log-file-size=4M --innodb-buffer-pool-size=16M"
    mariadb-install-db $db --auth-root-authentication-method=normal --skip-test-db >"$DIR/log/install.out" 2>&1 9>&-
    run mariadbd mariadbd $db --socket="$DIR/db/sock" --pid-file="$DIR/db/pid" --skip-networking
    await mariadbd mysql --no-defaults -u root -S "$DIR/db/sock" -e "select 1"
    (umask 077; printf '%s\n' "AuthType=auth/munge" "AuthInfo=$AUTH" "DbdHost=$HOST" "DbdAddr=$ADDR" "DbdPort=$((B + 1))" \
        "SlurmUser=$ME" "StorageType=accounting_storage/mysql" "StorageHost=localhost" "StorageUser=root" \
        "StorageLoc=slurm" "PidFile=$DIR/state/slurmdbd.pid" >"$DIR/slurmdbd.conf")
    MYSQL_UNIX_PORT=$DIR/db/sock run slurmdbd slurmdbd -D; await slurmdbd open_ $((B + 1))
    sacctmgr -i add cluster "$NAME" >"$DIR/log/sacctmgr.out" 2>&1
fi
run slurmctld slurmctld -D; await slurmctld open_ "$B"
# So that a requeued job waits no longer than it must: a node refuses one that starts in the second in which it has
# ended the last one ("Job credential revoked"), so only jobs that no node cleans up after (CG), and in the next second.
run hurry bash -c 'while sleep 1; do squeue -h -t PD -o "%t %i %r" | grep "^PD .* BeginTime" | while read -r _ job _; do
    scontrol update jobid="$job" starttime=now+1; done; done'
for ((i = 0; i < NODES; i++)); do node "127.0.0.$((i + 2))"; done; await "idle nodes" idle
echo "export SLURM_CONF=$SLURM_CONF"

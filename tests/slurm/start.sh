#!/bin/bash
# Start a SLURM cluster with two nodes on this machine, as root, without systemd or cgroups (Debian 13, SLURM 24.11):
#   apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
#   bash tests/slurm/start.sh DIR; export SLURM_CONF=DIR/slurm.conf
# The process IDs are in DIR/run/*.pid.
set -e
here=$(dirname "$(readlink -f "$0")")
dir=$1
mkdir -p "$dir"/{state,log,run}
chmod 755 "$dir" "$dir/run" "$dir/log"
head -c 128 /dev/urandom >"$dir/munge.key"
chmod 400 "$dir/munge.key"
sed "s#@DIR@#$dir#g; s#@HOST@#$(hostname -s)#g" "$here/slurm.conf" >"$dir/slurm.conf"
export SLURM_CONF=$dir/slurm.conf
munged --force --key-file="$dir/munge.key" --socket="$dir/run/munge.socket" --pid-file="$dir/run/munged.pid" \
  --log-file="$dir/log/munged.log" --seed-file="$dir/run/munge.seed"
slurmctld -f "$SLURM_CONF"
for node in n1 n2; do slurmd -N "$node" -f "$SLURM_CONF"; done
for _ in $(seq 100); do
  [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && exit
  sleep 0.2
done
echo "the nodes did not start" >&2
exit 1

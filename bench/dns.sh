#!/bin/bash
# dnsperf against sealane's resolver and aardvark-dns, in one run, over a veth and a bridge: server on CPU 0, load on CPU 1.
# Run it as:  unshare -n -m -p -f --mount-proc bash bench/dns.sh [SECONDS]
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-4}
work=$(mktemp -d)
mount -t tmpfs tmpfs "$work"
mkdir "$work/aardvark"
ip link set lo up
ip link add br0 type bridge && ip addr add 10.66.0.1/24 dev br0 && ip link set br0 up
unshare -n sleep 300 &
client=$!
sleep 0.3
ip link add v0 type veth peer name v1 netns $client
ip link set v0 master br0 up
nsenter -t $client -n sh -c "ip link set lo up; ip addr add 10.66.0.2/24 dev v1; ip link set v1 up"

load() { # NAME QUERIES
    nsenter -t $client -n taskset -c 1 dnsperf -s 10.66.0.1 -d "$2" -l "$seconds" -c 4 -q 200 |
        awk -v name="$1" '/Queries lost/ {lost=$3} /Response codes/ {codes=$3" "$4} /Queries per second/ {qps=$4}
            /Average Latency/ {lat=$4} END {printf "%-28s %8.0f qps   lost %s   %s   mean %.3f ms\n", name, qps, lost, codes, lat*1000}'
}

{
    echo "10.66.0.1"
    for i in $(seq 0 99); do printf '%064x 10.66.1.%d  w%d,x%d\n' "$i" $((i + 1)) "$i" "$i"; done
    printf '%064x 10.66.0.2  asker\n' 999
} > "$work/aardvark/bench"
for i in $(seq 0 99); do echo "w$i A"; done > "$work/one"
for i in $(seq 0 99); do echo "w$i.dns.podman A"; done > "$work/aardvark.q"

run_sealane() {
    coproc SERVER { PYTHONPATH=src exec taskset -c 0 .venv/bin/python bench/dns_serve.py 10.66.0.1 53 100; }
    local input=${SERVER[1]} pid=$SERVER_PID
    sleep 1
    load "sealane" "$work/one"
    exec {input}>&-
    wait "$pid"
}

run_aardvark() {
    taskset -c 0 /usr/lib/podman/aardvark-dns --config "$work/aardvark" -p 53 run 2>/dev/null &
    sleep 1
    load "aardvark-dns" "$work/aardvark.q"
    kill "$(cat "$work/aardvark/aardvark.pid")"
    sleep 0.3
}

for _ in 1 2; do
    run_sealane
    run_aardvark
done
kill $client
umount "$work" && rmdir "$work"

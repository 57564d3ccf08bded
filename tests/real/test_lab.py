"""`sealane lab`: hosts on both underlays, with real daemons and a real etcd; faults; and that nothing is left."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from harness.lab import ROOT_DIR, Lab, lab_file
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

PATH = "/usr/sbin:/sbin:/usr/bin:/usr/local/bin"
missing = [name for name in ("etcd", "ip", "nft", "ping") if shutil.which(name, path=PATH) is None]
if missing:
    pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)

HOSTS = {"h1": {}, "h2": {"mtu": 1400}, "h3": {"loss": "50%"}}


@pytest.fixture(scope="module", params=["segment", "routed"])
def cluster(request: pytest.FixtureRequest, lab: Callable[..., Lab]) -> Lab:
    """Three hosts, a narrow uplink and a lossy one among them."""
    return lab(hosts=HOSTS, etcd=1 if request.param == "segment" else 3, underlay=request.param)


@pytest.fixture
def healed(cluster: Lab) -> Iterator[Lab]:
    yield cluster
    cluster.cli("heal", "--all")


def outside() -> tuple[str, str, str]:
    """Links, addresses and rules of the namespace that the lab is called in."""
    commands = (["ip", "-d", "address"], ["ip", "route", "show", "table", "all"], ["nft", "list", "ruleset"])
    links, routes, rules = (
        subprocess.run(words, capture_output=True, text=True, check=True, env={"PATH": PATH}).stdout
        for words in commands
    )
    return re.sub(r"\d+sec", "N", links), routes, rules


def groups() -> list[str]:
    """Control groups of labs, in every hierarchy."""
    found = []
    for base, folders, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(base, name) for name in folders if name.startswith("sealane-lab-")]
        if base.count("/") >= 5:
            folders.clear()
    return found


def groups_of(lab: Lab) -> list[str]:
    with open(f"{lab.dir}/token", encoding="ascii") as file:
        token = file.read()
    return [group for group in groups() if group.endswith(token)]


# --- what is up


def test_every_daemon_and_member_runs(cluster: Lab) -> None:
    assert set(cluster.states().values()) == {"running"}
    assert cluster.api("h2").status()["state"] == "ready"


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_hosts_reach_each_other_and_etcd_by_name(cluster: Lab, family: str) -> None:
    for source, target in (("h1", "h2"), ("h2", "h1"), ("h1", "etcd1"), ("etcd1", "h2")):
        assert cluster.pings(source, target, family), (source, target)


def test_a_host_has_namespaces_of_its_own(cluster: Lab) -> None:
    words = ("sh", "-c", "hostname; readlink /proc/self/ns/net /proc/self/ns/mnt; ls /sys/class/net; ls /run")
    seen = {name: cluster.exec(name, *words).stdout.split() for name in ("h1", "h2", "underlay")}
    assert [seen[name][0] for name in ("h1", "h2", "underlay")] == ["h1", "h2", "underlay"]
    for column in (1, 2):
        own = os.readlink(f"/proc/self/ns/{('net', 'mnt')[column - 1]}")
        assert len({seen[name][column] for name in seen} | {own}) == 4
    assert {"eth0", "lo"} <= set(seen["h1"][3:])
    assert {"lab", "sealane"} <= set(seen["h1"][3:])
    assert "sealane-lab" not in seen["h1"]


def test_each_daemon_has_its_own_store_and_socket(cluster: Lab) -> None:
    cluster.sealane("h1", "network", "create", "--subnet", "10.77.0.0/24", "front")
    try:
        assert cluster.sealane("h1", "network", "ls", "-q").stdout == "front\n"
        assert cluster.sealane("h2", "network", "ls", "-q").stdout == ""
        instances = {cluster.api(host).status()["instance"] for host in HOSTS}
        assert len(instances) == len(HOSTS)
    finally:
        cluster.sealane("h1", "network", "rm", "front")


def test_etcd_answers_from_each_host_in_both_families(cluster: Lab) -> None:
    member = cluster.status()["etcd1"]
    for host in ("h1", "h2"):
        for address in (member["ipv4"], f"[{member['ipv6']}]"):
            answer = cluster.exec(host, "curl", "-sS", "-m", "20", f"http://{address}:2379/health").stdout
            assert json.loads(answer) == {"health": "true"}


def test_a_narrow_uplink_passes_no_wide_packet(cluster: Lab) -> None:
    target = cluster.status()["h2"]["ipv4"]
    links = json.loads(cluster.exec("h2", "ip", "-j", "link", "show", "eth0").stdout)
    assert links[0]["mtu"] == 1400
    # 28 bytes of headers. A bridge and a veth let four more through, room for a VLAN tag (is_skb_forwardable).
    assert cluster.pings("h1", target, "-M", "do", "-s", "1372")
    assert not cluster.pings("h1", target, "-M", "do", "-s", "1377")


def test_a_lossy_uplink_loses_about_its_share(cluster: Lab) -> None:
    target = cluster.status()["h3"]["ipv4"]
    # Neighbours are learnt through the same loss.
    eventually(lambda: cluster.pings("h1", target))
    words = ("ping", "-n", "-q", "-c", "400", "-i", "0.002", "-W", "1", target)
    said = cluster.exec("h1", *words, check=False).stdout
    answered = re.search(r"(\d+) received", said)
    assert answered is not None
    # Half of the half: 100, and 30 to 200 in all but one of 10^14 runs; none is lost on the other uplinks.
    assert 30 < int(answered[1]) < 200, said
    assert ", 0% packet loss" in cluster.exec("h1", "ping", "-n", "-q", "-c", "20", "-i", "0.01", "h2").stdout


def test_daemon_arguments_are_given_with_their_placeholders(lab: Callable[..., Lab]) -> None:
    one = lab(hosts={"a": {"daemon_arguments": ["--store", "sqlite:///run/lab/{host}-{ipv4}"]}}, etcd=0)
    assert os.listdir(f"{one.dir}/nodes/a/a-192.0.2.11")
    one.down()


# --- faults


def test_a_host_that_is_cut_off_reaches_nobody(healed: Lab) -> None:
    healed.cli("cut", "h1")
    assert healed.status()["h1"]["cut_from"] == ["all"]
    for target in ("h2", "etcd1"):
        assert not healed.pings("h1", target, "-4")
        assert not healed.pings(target, "h1", "-6")
    assert healed.pings("h2", "etcd1")
    healed.cli("heal", "h1")
    eventually(lambda: healed.pings("h1", "h2", "-4") and healed.pings("h2", "h1", "-6"))


def test_a_link_is_cut_between_two_and_nowhere_else(healed: Lab) -> None:
    healed.cli("cut", "h1:h2", "h1:etcd")
    for family in ("-4", "-6"):
        assert not healed.pings("h1", "h2", family)
        assert not healed.pings("h2", "h1", family)
        assert not healed.pings("h1", "etcd1", family)
        assert healed.pings("h2", "etcd1", family)
    assert "h2" in healed.status()["h1"]["cut_from"]
    healed.cli("heal", "h1:h2")
    eventually(lambda: healed.pings("h1", "h2"))
    assert not healed.pings("h1", "etcd1")
    healed.cli("heal", "--all")
    eventually(lambda: healed.pings("h1", "etcd1"))


def test_a_cut_host_keeps_its_carrier(healed: Lab) -> None:
    healed.cli("cut", "h1")
    links = json.loads(healed.exec("h1", "ip", "-j", "link", "show", "eth0").stdout)
    assert "LOWER_UP" in links[0]["flags"]


def test_a_killed_daemon_is_started_again_with_its_state(cluster: Lab) -> None:
    cluster.sealane("h1", "network", "create", "--subnet", "10.78.0.0/24", "kept")
    instance = cluster.api("h1").status()["instance"]
    assert cluster.cli("kill", "h1").stdout == "h1\n"
    assert (cluster.status()["h1"]["state"], cluster.status()["h1"]["exit_code"]) == ("exited", -9)
    assert cluster.sealane("h1", "network", "ls", check=False).returncode == 3
    # The host itself lives on.
    assert cluster.pings("h2", "h1")
    assert cluster.cli("start", "h1").stdout == "h1\n"
    assert cluster.api("h1").status()["instance"] == instance
    assert cluster.sealane("h1", "network", "ls", "-q").stdout == "kept\n"
    cluster.sealane("h1", "network", "rm", "kept")


def test_a_daemon_that_is_asked_to_end_ends_well(cluster: Lab) -> None:
    cluster.cli("kill", "--signal", "TERM", "h2")
    assert cluster.status()["h2"]["exit_code"] == 0
    cluster.cli("start", "h2")
    cluster.cli("start", "h2")
    assert cluster.states()["h2"] == "running"


def test_a_paused_member_is_silent_and_goes_on(cluster: Lab) -> None:
    address = f"http://{cluster.status()['etcd1']['ipv4']}:2379/health"
    cluster.cli("pause", "etcd1")
    try:
        assert cluster.states()["etcd1"] == "paused"
        # The kernel takes the connection; nobody answers (28: operation timed out).
        assert cluster.exec("h1", "curl", "-sS", "-m", "2", address, check=False).returncode == 28
        refused = cluster.cli("start", "etcd1", check=False)
        assert (refused.returncode, "sealane lab resume etcd1" in refused.stderr) == (1, True)
    finally:
        cluster.cli("resume", "etcd1")
    assert cluster.states()["etcd1"] == "running"
    eventually(lambda: "true" in cluster.exec("h1", "curl", "-sS", "-m", "20", address, check=False).stdout)


def test_a_killed_member_comes_back_with_its_data(cluster: Lab) -> None:
    base = f"http://{cluster.status()['etcd1']['ipv4']}:2379/v3/kv"
    curl = ("curl", "-sS", "-m", "20", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-d")
    cluster.exec("h1", *curl, '{"key": "YQ==", "value": "Yg=="}', f"{base}/put")
    cluster.cli("kill", "etcd1")
    cluster.cli("start", "etcd1")
    answer = json.loads(cluster.exec("h1", *curl, '{"key": "YQ=="}', f"{base}/range").stdout)
    assert answer["kvs"][0]["value"] == "Yg=="


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("kill", "h9"), "no host or etcd member 'h9'"),
        (("cut", "h1:h9"), "no host or etcd member 'h9'"),
        (("exec", "h9", "--", "true"), "no host or etcd member 'h9'"),
    ],
)
def test_a_node_that_is_not_there_is_an_error(cluster: Lab, words: tuple[str, ...], said: str) -> None:
    done = cluster.cli(*words, check=False)
    assert (done.returncode, said in done.stderr) == (125 if words[0] == "exec" else 1, True), done.stderr
    assert "hint: use one of: " in done.stderr


# --- exec


def test_exec_passes_input_output_and_the_exit_code(cluster: Lab) -> None:
    assert cluster.exec("h1", "cat", text="through\n").stdout == "through\n"
    assert cluster.exec("h1", "sh", "-c", "exit 7", check=False).returncode == 7
    assert cluster.exec("h1", "sh", "-c", "kill -9 $$", check=False).returncode == 137
    missing = cluster.exec("h1", "no-such-program", check=False)
    assert (missing.returncode, "no-such-program" in missing.stderr) == (127, True)
    assert cluster.exec("h1", "/etc/passwd", check=False).returncode == 126


def test_exec_knows_where_it_is(cluster: Lab) -> None:
    said = cluster.exec("h1", "sh", "-c", "echo $SEALANE_LAB $SEALANE_LAB_NODE $SEALANE_SOCKET; pwd").stdout
    assert said.split() == [cluster.name, "h1", "/run/sealane/sealane.sock", os.getcwd()]
    assert "SEALANE_SOCKET" not in cluster.exec("etcd1", "env").stdout


def test_what_exec_runs_dies_with_it(cluster: Lab) -> None:
    from harness.lab import SEALANE, environment

    words = [
        *SEALANE,
        "lab",
        "exec",
        "--name",
        cluster.name,
        "h1",
        "--",
        "sh",
        "-c",
        "echo on; exec sleep 1000",
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.kill()
    process.wait()
    process.stdout.close()
    eventually(lambda: "sleep 1000" not in cluster.exec("h1", "ps", "-eo", "args").stdout)


# --- up again, and down


def test_up_again_starts_what_has_ended_and_refuses_another_file(cluster: Lab) -> None:
    cluster.cli("kill", "h1")
    cluster.cli("pause", "h2")
    assert "host h1  running" in cluster.up().stdout
    assert set(cluster.states().values()) == {"running"}
    other = Lab(lab_file(hosts=1, etcd=0), cluster.name).up(check=False)
    assert (other.returncode, "is up with another plan" in other.stderr) == (1, True)
    assert set(cluster.states().values()) == {"running"}


def test_containers_of_a_lab_are_of_its_control_group(cluster: Lab) -> None:
    assert groups_of(cluster)


def test_nothing_outside_changes_and_nothing_is_left() -> None:
    before = outside(), groups()
    one = Lab(lab_file(hosts={"a": {"loss": "1%"}, "b": {}}, etcd=1))
    with one:
        assert outside() == before[0]
        inside = one.inhabitants()
        namespaces = {
            os.readlink(f"/proc/{pid}/ns/{kind}") for pid in inside for kind in ("net", "mnt", "uts")
        }
        # Two hosts and a member, and the holder's.
        assert len(namespaces) == 3 * 4
        assert len(groups_of(one)) > 0
    assert (outside(), groups()) == before
    check_nothing_left(one, inside, namespaces)


def check_nothing_left(one: Lab, inside: list[int], namespaces: set[str]) -> None:
    assert one.processes() == []
    assert not os.path.exists(one.dir)
    assert not [pid for pid in inside if os.path.exists(f"/proc/{pid}/ns") and "sealane" in _name(pid)]
    held = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            for kind in ("net", "mnt", "uts"):
                try:
                    held.add(os.readlink(f"/proc/{entry}/ns/{kind}"))
                except OSError:
                    continue
    assert not held & namespaces


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("victim", ["warden", "holder"])
def test_a_killed_lab_leaves_nothing(victim: str) -> None:
    before = outside(), groups()
    with Lab(lab_file(hosts=1, etcd=1)) as one:
        inside = one.inhabitants()
        namespaces = {
            os.readlink(f"/proc/{pid}/ns/{kind}") for pid in inside for kind in ("net", "mnt", "uts")
        }
        warden, holder = one.processes()
        os.kill(warden if victim == "warden" else holder, signal.SIGKILL)
        eventually(lambda: one.processes() == [] and not os.path.exists(one.dir))
        check_nothing_left(one, inside, namespaces)
        assert (outside(), groups()) == before


def test_what_a_dead_lab_has_left_is_listed_cleared_and_no_obstacle() -> None:
    before = groups()
    with Lab(lab_file(hosts=1, etcd=0)) as one:
        kill_both(one)
        assert os.path.exists(one.dir)
        assert groups_of(one)
        listed = json.loads(one.lab("ls", "--json").stdout)
        assert {"name": one.name, "state": "dead", "folder": one.dir} in listed
        assert "hint: sealane lab up" in one.cli("status", check=False).stderr
        one.up()
        assert one.states() == {"h1": "running"}
        kill_both(one)
        one.down()
        assert not os.path.exists(one.dir)
    assert groups() == before


def kill_both(one: Lab) -> None:
    """At once, so that nobody is left who could clear up."""
    both = one.processes()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in both:
            os.kill(pid, number)
    eventually(lambda: one.processes() == [])


def test_a_holder_that_hangs_is_no_obstacle_to_down() -> None:
    with Lab(lab_file(hosts=1, etcd=0)) as one:
        os.kill(one.processes()[-1], signal.SIGSTOP)
        one.down()
        assert one.processes() == []
        assert not os.path.exists(one.dir)


def test_a_lab_that_is_not_up_is_down_already() -> None:
    done = Lab("", "no-such-lab").down()
    assert (done.returncode, done.stderr) == (0, "lab no-such-lab is not up\n")


# --- what is refused


def test_a_daemon_that_does_not_start_is_told_with_its_last_words() -> None:
    with_typo = lab_file(hosts={"a": {"daemon_arguments": ["--no-such-flag"]}}, etcd=0)
    one = Lab(with_typo)
    try:
        done = one.up(check=False)
        assert done.returncode == 1
        assert "a exited with 2" in done.stderr
        assert "--no-such-flag" in done.stderr
        assert one.states() == {"a": "exited"}
    finally:
        one.close()


def test_latency_without_netem_is_refused_with_its_reason() -> None:
    trial = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    has_netem = subprocess.run(trial, capture_output=True, env={"PATH": PATH}).returncode == 0
    one = Lab(lab_file(hosts={"a": {"latency": "30ms"}, "b": {}}, etcd=0))
    try:
        done = one.up(check=False)
        if has_netem:
            said = one.exec("b", "ping", "-n", "-c", "3", "a").stdout
            assert float(re.findall(r"time=([\d.]+)", said)[-1]) >= 30
            return
        assert done.returncode == 1
        assert "latency of a: the kernel has no netem (CONFIG_NET_SCH_NETEM)" in done.stderr
        assert "hint: remove latency from the lab file" in done.stderr
        assert not os.path.exists(one.dir)
    finally:
        one.close()


def test_a_wrong_file_is_told_completely_and_begins_nothing() -> None:
    one = Lab("hosts:\n  A:\n  b: {mtu: 3}\n", "wrong")
    done = one.up(check=False)
    assert done.returncode == 2
    assert "line 2: hosts.A: 'A' is not a host's name" in done.stderr
    assert "line 3: hosts.b.mtu: 3 is out of range" in done.stderr
    assert not os.path.exists(f"{ROOT_DIR}/wrong")

"""The daemon as a service: readiness, an inherited socket, one daemon a namespace, facts that change, two networks."""

import os
import signal
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from harness.api import Api, ApiError
from harness.audit import audit, settle
from harness.host import Host, Lan, Workload
from harness.netns import eventually
from harness.scene import ANY

pytestmark = pytest.mark.kernel

UPLINK_MTU = 1380
RULE_PRIORITY = 24225
"""Of our routing rules inside sandboxes."""

# Hands itself a socket as systemd does (sd_listen_fds(3)), and then becomes the daemon.
ACTIVATED = """
import os, socket, sys
path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(8)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_the_service_manager_is_told_when_it_is_ready(host_machine: Host, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(100)
        host_machine.start(wait=False, wrapper=("env", f"NOTIFY_SOCKET={tmp_path / 'notify'}"))
        assert manager.recv(64) == b"READY=1"
        assert host_machine.api.status()["state"] == "ready", "ready means that it answers"
        host_machine.stop()
        assert manager.recv(64) == b"STOPPING=1"


def test_who_is_told_to_stop_as_soon_as_it_is_ready_stops_in_order(
    host_machine: Host, tmp_path: Path
) -> None:
    """systemctl restart; systemctl stop. By default SIGTERM would end it with all it has under way."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(100)
        for _ in range(5):
            host_machine.start(wait=False, wrapper=("env", f"NOTIFY_SOCKET={tmp_path / 'notify'}"))
            assert host_machine.daemon is not None
            assert manager.recv(64) == b"READY=1"
            host_machine.daemon.terminate()
            assert host_machine.daemon.wait(100) == 0
            assert manager.recv(64) == b"STOPPING=1"
            host_machine.daemon = None


def test_one_that_crashes_says_where_it_was(host_machine: Host) -> None:
    host_machine.start()
    assert host_machine.daemon is not None
    host_machine.daemon.send_signal(signal.SIGSEGV)
    assert host_machine.daemon.wait(100) == -signal.SIGSEGV
    host_machine.daemon = None
    assert "Fatal Python error: Segmentation fault" in host_machine.stderr()
    assert "run_forever" in host_machine.stderr()


def test_a_socket_that_is_handed_over_is_served_and_left_in_place(host_machine: Host, tmp_path: Path) -> None:
    path = str(tmp_path / "activated.sock")
    host_machine.start(wait=False, wrapper=(sys.executable, "-c", ACTIVATED, path))
    api = Api(path)
    eventually(
        lambda: os.path.exists(path) and api.status()["state"] == "ready", what="the handed socket answers"
    )
    host_machine.stop()
    assert os.path.exists(path), "it is the service manager's, for the next start"


def test_a_namespace_has_one_daemon(host_machine: Host, tmp_path: Path) -> None:
    host_machine.start()
    other = Host(None, number=21, state_dir=str(tmp_path / "other"))
    try:
        own, other.ns = other.ns, host_machine.ns
        other.start(wait=False)
        assert other.daemon is not None
        assert other.daemon.wait(100) == 1
        assert "another sealane daemon runs in this network namespace" in other.stderr()
    finally:
        other.daemon, other.ns = None, own
        other.close()
    assert host_machine.api.status()["state"] == "ready"


@pytest.mark.parametrize("driver", ["bridge", "routed"])
def test_an_uplink_may_be_too_small_for_ipv6(host_machine: Host, driver: str) -> None:
    """Below 1280 bytes a link has no IPv6, and no setting of it: a network without IPv6 follows, one with it does not."""
    host_machine.start()
    api = host_machine.api
    api.network("four", "10.91.0.0/24", driver=driver)
    api.network("both", "10.92.0.0/24", "fd92::/64", driver=driver)
    names = [(network, f"{network}{number}") for network in ("four", "both") for number in (1, 2)]
    with ExitStack() as stack:
        box = {name: stack.enter_context(closing(Workload(host_machine, name))) for _, name in names}
        for network, name in names:
            box[name].attach(network)
        servers = {
            (n, f): box[f"{n}2"].ns.listen("udp", ANY[f], 7000)
            for n, f in (("four", 4), ("both", 4), ("both", 6))
        }

        def ills() -> list[str]:
            return audit(host_machine) + [
                f"{network} over IPv{family}"
                for (network, family), server in servers.items()
                if not box[f"{network}1"].ns.reaches(server, box[f"{network}2"].address(family))
            ]

        for size, four, both in ((1000, 1000, 1280), (1500, 1500, 1500), (1279, 1279, 1280)):
            host_machine.ns.ip("link", "set", api.status()["uplink"], "mtu", str(size))
            for name, expected in (("four1", four), ("both1", both)):
                inner = box[name].ns
                eventually(
                    lambda i=inner, e=expected: i.json("ip", "link", "show", "eth0")[0]["mtu"] == e,
                    what=f"{name} of {size}",
                )
            settle(host_machine, 5.0)
            assert ills() == [], size
        api.network("late", "10.93.0.0/24", driver=driver, options={"mtu": "576"})
        host_machine.stop()
        host_machine.start()
        assert (api.status()["writes"], api.status()["state"]) == (0, "ready")
        assert ills() == []


def test_networks_follow_the_mtu_of_the_uplink(host_machine: Host) -> None:
    host_machine.start()
    api = host_machine.api
    bridge = api.network("front", "10.61.0.0/24")["link"]
    with closing(Workload(host_machine, "web")) as web:
        web.attach("front")
        uplink = api.status()["uplink"]
        host_machine.ns.ip("link", "set", uplink, "mtu", str(UPLINK_MTU))

        def is_followed() -> bool:
            outer = host_machine.ns.json("ip", "-j", "link", "show", bridge)[0]["mtu"]
            inner = web.ns.json("ip", "-j", "link", "show", "eth0")[0]["mtu"]
            return outer == inner == UPLINK_MTU

        eventually(is_followed, what="bridge and sandbox have the uplink's MTU")
        assert api.audit() == []


@pytest.mark.parametrize("icc", ["true", "false"])
def test_ports_follow_br_netfilter(host_machine: Host, icc: str) -> None:
    """Docker switches it on; a publish must go on working, and `icc` off must go on keeping apart."""
    setting = "net/bridge/bridge-nf-call-iptables"
    for other in ("ip6tables", "iptables"):
        host_machine.ns.sysctl(f"net/bridge/bridge-nf-call-{other}", "0")
    host_machine.start()
    api = host_machine.api
    api.network("front", "10.66.0.0/24", options={"icc": icc})
    with closing(Workload(host_machine, "a")) as a, closing(Workload(host_machine, "b")) as b:
        a.attach("front")
        b.attach("front", publish=[{"host_first": 8080, "port": 80}])
        server = b.ns.listen("tcp", "0.0.0.0", 80)

        def is_right() -> bool:
            published = a.ns.reaches(server, host_machine.address(4), 8080)
            return published and a.ns.reaches(server, b.address(4), 80) is (icc == "true")

        assert is_right()
        host_machine.ns.sysctl(setting, "1")
        eventually(is_right, what="ports work under br_netfilter")
        assert api.audit() == []
        host_machine.ns.sysctl(setting, "0")
        eventually(lambda: api.audit() == [] and is_right(), what="and without it again")


@pytest.mark.parametrize("driver", ["bridge", "routed"])
def test_a_port_on_the_second_network_answers_through_the_second_network(
    host_machine: Host, lan: Lan, driver: str
) -> None:
    """Docker answers through the default route, whatever network was asked, and loses the connection there."""
    host_machine.start()
    api = host_machine.api
    api.network("aaa", "10.62.0.0/24", "fd62::/64", driver=driver)
    api.network("zzz", "10.63.0.0/24", "fd63::/64", driver=driver)
    with closing(Workload(host_machine, "web")) as web:
        web.attach("aaa")
        web.attach(
            "zzz",
            publish=[{"host_first": 8080, "port": 80}, {"proto": "udp", "host_first": 8080, "port": 80}],
        )
        for family in (4, 6):
            for proto in ("tcp", "udp"):
                # At the address: a UDP socket that is bound to none answers from wherever the default route leads.
                server = web.ns.listen(proto, web.address(family, "zzz"), 80)
                assert lan.ext.reaches(server, host_machine.address(family), 8080), (proto, family)
                server.close()
        assert api.audit() == []
        assert audit(host_machine) == []
        web.detach("zzz")
        assert not [r for r in web.ns.json("ip", "-j", "rule") if r["priority"] == RULE_PRIORITY]
        assert api.audit() == []


def test_an_adopted_bridge_is_used_and_survives(host_machine: Host) -> None:
    host_machine.start()
    api = host_machine.api
    host_machine.ns.batch(
        "link add br-lan type bridge", "addr add 10.64.0.1/24 dev br-lan", "link set br-lan up"
    )
    api.network("lan", "10.64.0.0/24", options={"bridge": "br-lan"})
    with closing(Workload(host_machine, "a")) as a, closing(Workload(host_machine, "b")) as b:
        a.attach("lan")
        b.attach("lan")
        server = b.ns.listen("tcp", "0.0.0.0", 80)
        assert a.ns.reaches(server, b.address(4), 80)
        assert host_machine.ns.reaches(server, b.address(4), 80)
        assert api.audit() == []
    api.remove_network("lan", force=True)
    assert host_machine.ns.json("ip", "-j", "link", "show", "br-lan")[0]["ifname"] == "br-lan"


def test_a_namespace_of_nobody_is_refused_by_name(host_machine: Host, tmp_path: Path) -> None:
    host_machine.start()
    api = host_machine.api
    api.network("front", "10.65.0.0/24")
    plain = tmp_path / "plain"
    plain.write_text("")
    for where, code in (
        (str(plain), "invalid"),
        ("/nowhere/ns", "not_found"),
        ("4194303", "not_found"),
        ("/proc/self/ns/pid", "invalid"),
    ):
        with pytest.raises(ApiError) as refusal:
            api.attach(where, "front")
        assert (refusal.value.code, refusal.value.field) == (code, "sandbox"), where
    assert api.audit() == []


@pytest.fixture
def host_machine(lan: Lan):
    with Host(lan, number=20) as machine:
        yield machine

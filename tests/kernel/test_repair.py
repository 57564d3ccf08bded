"""Somebody else deletes, edits or flushes what is ours: it is seen and put right, and nothing of theirs is touched."""

import re
import time
from collections.abc import Callable, Iterator

import pytest

from harness.audit import audit, settle
from harness.foreign import changes, foreign
from harness.host import EXT4, EXT6, Host, Lan, Workload
from harness.marks import host_link
from harness.netns import Netns, eventually
from harness.patience import Watch, pause
from harness.scene import ANY

pytestmark = pytest.mark.kernel

REPAIR_S = 1.0
"""What `docs/reliability` promises (DR1 to DR7); sysctls have no notification and are polled every 5 s."""
SYSCTL_S = 6.0
BUSY = 3.0
"""On a shared machine a promise may take so many times longer to be seen."""
EXT = {4: EXT4, 6: EXT6}
PORT = 8080


class Home:
    """One network, two workloads, of which `web` publishes a port."""

    def __init__(self, lan: Lan, driver: str) -> None:
        self.machine = Host(lan, number=7).start()
        self.driver = driver
        self.network = self.machine.api.network("front", "10.75.0.0/24", "fd75::/64", driver=driver)
        self.bridge = str(self.network["link"])
        self.web, self.client = Workload(self.machine, "web"), Workload(self.machine, "client")
        self.web.attach(
            "front", publish=[{"proto": p, "host_first": PORT, "port": 80} for p in ("tcp", "udp")]
        )
        self.client.attach("front")
        self.servers = {f: self.web.ns.listen("udp", ANY[f], 80) for f in (4, 6)}
        self.ns = self.machine.ns

    @property
    def lan(self) -> Lan:
        assert self.machine.lan is not None
        return self.machine.lan

    def broken(self) -> list[str]:
        """What does not work, by packets and by the auditor."""
        found = []
        for family, server in self.servers.items():
            ways = {
                "client": (self.client.ns, self.web.address(family), 80),
                "published": (self.lan.ext, self.machine.address(family), PORT),
                "hairpin": (self.client.ns, self.machine.address(family), PORT),
            }
            for name, (where, address, port) in ways.items():
                if not where.reaches(server, address, port, timeout=0.2):
                    found.append(f"{name} over IPv{family}")
        return found + audit(self.machine)

    def heals(self, within_s: float) -> float:
        """Wait for the repair, after which packets pass; return the seconds it took."""
        took = settle(self.machine, within_s * BUSY)
        assert self.broken() == []
        return took

    def repairs(self) -> int:
        return int(self.machine.api.status()["repairs"])

    def close(self) -> None:
        self.web.close()
        self.client.close()
        self.machine.close()


@pytest.fixture(scope="module", params=["bridge", "routed"])
def home(request: pytest.FixtureRequest, lan: Lan) -> Iterator[Home]:
    made = Home(lan, request.param)
    assert made.broken() == []
    yield made
    made.close()


Damage = Callable[[Home], None]


# --- nftables (DR1, DR2) --------------------------------------------------------------------------------------------


def flush_ruleset(home: Home) -> None:
    home.ns.sh("nft", "flush", "ruleset")


def delete_table(home: Home) -> None:
    home.ns.sh("nft", "delete", "table", "ip", "sealane")


def delete_guards(home: Home) -> None:
    home.ns.sh("nft", "delete", "table", "bridge", "sealane")


def flush_chain(home: Home) -> None:
    home.ns.sh("nft", "flush", "chain", "ip6", "sealane", "forward")


def delete_rule(home: Home) -> None:
    home.ns.sh(
        "nft",
        "delete",
        "rule",
        "ip",
        "sealane",
        "prerouting_raw",
        "handle",
        rule_handle(home, "prerouting_raw"),
    )


def rule_handle(home: Home, chain: str) -> str:
    listing = home.ns.sh("nft", "-a", "list", "chain", "ip", "sealane", chain)
    return re.findall(r"# handle (\d+)", listing)[-1]


def forge_rule(home: Home) -> None:
    """Under our own comment."""
    listing = home.ns.sh("nft", "-a", "list", "chain", "ip", "sealane", "prerouting_raw").splitlines()
    text, _, handle = next(line for line in listing if " drop " in line).strip().partition(" # handle ")
    forged = re.sub(r"counter packets \d+ bytes \d+ drop", "accept", text)
    home.ns.sh("nft", f"replace rule ip sealane prerouting_raw handle {handle} {forged}")


def restore_ruleset(home: Home) -> None:
    """As it was, after somebody has changed a word in the file: nothing tells that it was one of ours."""
    saved = home.ns.sh("nft", "list", "ruleset")
    home.ns.sh("nft", "-f", "-", text="flush ruleset\n" + saved.replace("ct direction reply ", "", 1))


def add_rule(home: Home) -> None:
    home.ns.sh("nft", "insert", "rule", "ip", "sealane", "forward", "accept")


def delete_element(home: Home) -> None:
    home.ns.sh("nft", "delete", "element", "ip", "sealane", "publish", f"{{ udp . {PORT} }}")


def add_element(home: Home) -> None:
    home.ns.sh("nft", "add", "element", "ip", "sealane", "publish", f"{{ udp . 1 : {home.web.v4} . 22 }}")


def flush_set(home: Home) -> None:
    home.ns.sh("nft", "flush", "set", "ip", "sealane", "private")


def add_chain(home: Home) -> None:
    home.ns.sh("nft", "add", "chain", "ip", "sealane", "n_00000000_from")


# --- links, addresses, routes, neighbours (DR4 to DR7) --------------------------------------------------------------


def delete_bridge(home: Home) -> None:
    home.ns.ip("link", "del", home.bridge)


def bridge_down(home: Home) -> None:
    home.ns.ip("link", "set", home.bridge, "down")


def port_down(home: Home) -> None:
    home.ns.ip("link", "set", home.web.host_link, "down")


def rename_port(home: Home) -> None:
    home.ns.ip("link", "set", home.web.host_link, "down")
    home.ns.ip("link", "set", home.web.host_link, "name", "mine0")


def strip_alias(home: Home) -> None:
    home.ns.ip("link", "set", home.web.host_link, "alias", "")


def change_port(home: Home) -> None:
    home.ns.ip("link", "set", home.web.host_link, "mtu", "1300")
    home.ns.ip("link", "set", home.web.host_link, "address", "02:00:00:00:13:37")


def change_group(home: Home) -> None:
    """By its group a link is known to be of its network."""
    for link in (home.bridge, home.web.host_link):
        home.ns.ip("link", "set", link, "group", "7")


def leave_bridge(home: Home) -> None:
    if home.driver == "bridge":
        home.ns.ip("link", "set", home.web.host_link, "nomaster")
    else:
        home.ns.ip("link", "set", home.web.host_link, "master", home.bridge)


def loosen_port(home: Home) -> None:
    port = ("link", "set", home.web.host_link, "type", "bridge_slave")
    home.ns.ip(*port, "learning", "on", "flood", "on", "guard", "off")


def silence_port(home: Home) -> None:
    """Nobody finds it by ARP any more."""
    port = ("link", "set", home.web.host_link, "type", "bridge_slave")
    home.ns.ip(*port, "bcast_flood", "off", "mcast_flood", "off")


def switch_port_off(home: Home) -> None:
    home.ns.sh("bridge", "link", "set", "dev", home.web.host_link, "state", "0")


def watch_bridge(home: Home) -> None:
    home.ns.ip("link", "set", home.bridge, "type", "bridge", "stp_state", "1", "mcast_snooping", "1")


def mute_links(home: Home) -> None:
    for link in (home.bridge, home.web.host_link):
        home.ns.ip("link", "set", link, "arp", "off")


def flush_routes(home: Home) -> None:
    home.ns.ip("route", "flush", "proto", "94")
    home.ns.ip("-6", "route", "flush", "proto", "94")


def lose_prefix_routes(home: Home) -> None:
    """The kernel made them with the gateways' addresses, and does not make them again."""
    home.ns.ip("route", "del", "10.75.0.0/24", "dev", home.bridge)
    home.ns.ip("-6", "route", "del", "fd75::/64", "dev", home.bridge)


def delete_gateway(home: Home) -> None:
    length = {"bridge": ("24", "64"), "routed": ("32", "128")}[home.driver]
    home.ns.ip("addr", "del", f"10.75.0.1/{length[0]}", "dev", home.bridge)
    home.ns.ip("addr", "del", f"fd75::1/{length[1]}", "dev", home.bridge)


def add_address(home: Home) -> None:
    home.ns.ip("addr", "add", "10.99.0.1/24", "dev", home.bridge)


def flush_neighbours(home: Home) -> None:
    for family in ("-4", "-6"):
        home.ns.ip(family, "neigh", "flush", "nud", "permanent")


def flush_fdb(home: Home) -> None:
    home.ns.sh("bridge", "fdb", "del", home.web.mac, "dev", home.web.host_link, "master", "static")


def flush_whole_fdb(home: Home) -> None:
    """The bridge's own entry goes as well, by which frames to the gateway's MAC go up to the host."""
    home.ns.sh("bridge", "fdb", "flush", "dev", home.bridge)


def take_for_the_bridge(home: Home) -> None:
    """A workload's MAC becomes the bridge's own: what is for it goes up to the host."""
    home.ns.sh("bridge", "fdb", "replace", home.web.mac, "dev", home.bridge, "self", "permanent")


def forget_flows(home: Home) -> None:
    home.ns.sh("conntrack", "-F")


DAMAGES = [
    flush_ruleset,
    delete_table,
    delete_guards,
    flush_chain,
    delete_rule,
    forge_rule,
    restore_ruleset,
    add_rule,
    delete_element,
    add_element,
    flush_set,
    add_chain,
    delete_bridge,
    bridge_down,
    port_down,
    rename_port,
    strip_alias,
    change_port,
    change_group,
    mute_links,
    watch_bridge,
    leave_bridge,
    delete_gateway,
    add_address,
    flush_neighbours,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_damage_is_repaired(home: Home, damage: Damage) -> None:
    """Within a second, counted as a repair, with everything working as before."""
    repaired(home, damage)


@pytest.mark.parametrize(
    ("home", "damage"),
    [
        ("bridge", loosen_port),
        ("bridge", silence_port),
        ("bridge", switch_port_off),
        ("bridge", flush_fdb),
        ("bridge", flush_whole_fdb),
        ("bridge", take_for_the_bridge),
        ("bridge", lose_prefix_routes),
        ("routed", flush_routes),
    ],
    indirect=["home"],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_damage_to_what_one_driver_alone_has_is_repaired(home: Home, damage: Damage) -> None:
    """Ports and forwarding entries of a bridge; routes to each endpoint."""
    repaired(home, damage)


def repaired(home: Home, damage: Damage) -> None:
    before, count = foreign(home.ns), home.repairs()
    damage(home)
    home.heals(REPAIR_S)
    assert home.repairs() > count
    assert changes(before, foreign(home.ns)) == []


@pytest.mark.parametrize("verb", ["made", "removed"])
def test_a_rule_is_not_believed_because_others_were_written(home: Home, verb: str) -> None:
    """What somebody changes behind a change of ours, before anybody looks."""
    home.machine.api.network("more", "10.76.0.0/24", "fd76::/64", driver=home.driver)
    if verb == "removed":
        home.machine.sealane("network", "rm", "more")
    before = home.repairs()
    forge_rule(home)
    eventually(lambda: home.repairs() > before, timeout_s=REPAIR_S * BUSY, what="its repair")
    home.heals(REPAIR_S)
    if verb == "made":
        home.machine.sealane("network", "rm", "more")


def test_forgotten_flows_do_no_harm(home: Home) -> None:
    """DR7: `conntrack -F`."""
    forget_flows(home)
    assert home.broken() == []


def test_a_remade_bridge_is_the_same_to_its_workloads(home: Home) -> None:
    """DR4: same MAC, same addresses; they need not notice."""
    before = home.ns.json("ip", "link", "show", home.bridge)[0]["address"]
    home.ns.ip("link", "del", home.bridge)
    home.heals(REPAIR_S)
    assert home.ns.json("ip", "link", "show", home.bridge)[0]["address"] == before


def test_a_deleted_link_is_plugged_again(home: Home) -> None:
    """DR5: the workload's own end goes with it; both come back as they were."""
    home.ns.ip("link", "del", home.web.host_link)
    home.heals(2 * REPAIR_S)
    link = home.web.ns.json("ip", "link", "show", home.web.ifname)[0]
    assert link["address"] == home.web.mac


def test_a_link_moved_away_is_told_and_then_replaced(home: Home) -> None:
    """DR5: somebody takes the host's end into a namespace of theirs. It cannot be taken back without consent; the
    endpoint is no longer called up, and whole again when the thief is gone."""
    with Netns("thief") as thief:
        home.ns.ip("link", "set", home.web.host_link, "netns", str(thief.pid))
        eventually(lambda: whole_or_told(home), REPAIR_S * BUSY)
    home.heals(2 * REPAIR_S)


def whole_or_told(home: Home) -> bool:
    endpoint = home.machine.api.get(f"/endpoints/{home.web.endpoint}")
    return endpoint["state"] == "error" and endpoint["error"] != "" or audit(home.machine) == []


SYSCTLS = {
    "net/ipv4/ip_forward": ("0", "1"),
    "net/ipv6/conf/all/forwarding": ("0", "1"),
    "net/ipv4/conf/{bridge}/forwarding": ("0", "1"),
    "net/ipv4/conf/{bridge}/route_localnet": ("1", "0"),
    "net/ipv6/conf/{bridge}/accept_ra": ("2", "0"),
    "net/ipv4/conf/{bridge}/accept_redirects": ("1", "0"),
}


def test_sysctls_are_put_back(home: Home) -> None:
    """DR6."""
    right = {path.format(bridge=home.bridge): values[1] for path, values in SYSCTLS.items()}
    for path, (wrong, _) in SYSCTLS.items():
        home.ns.sysctl(path.format(bridge=home.bridge), wrong)
    eventually(lambda: {path: home.ns.sysctl(path) for path in right} == right, SYSCTL_S * BUSY)


def test_damage_of_a_dead_daemons_time_is_repaired_at_its_start(home: Home) -> None:
    home.machine.kill9()
    for damage in (flush_ruleset, delete_gateway, flush_neighbours, port_down):
        damage(home)
    home.machine.start()
    home.heals(REPAIR_S)


@pytest.mark.parametrize("damage", [forge_rule, restore_ruleset])
def test_a_rule_changed_under_our_comment_is_not_believed_because_the_daemon_was_away(
    home: Home, damage: Damage
) -> None:
    listing = home.ns.sh("nft", "list", "chain", "ip", "sealane", "prerouting_raw")
    home.machine.kill9()
    damage(home)
    home.machine.start()
    home.heals(REPAIR_S)
    assert home.machine.api.status()["writes"] > 0
    found = home.ns.sh("nft", "list", "chain", "ip", "sealane", "prerouting_raw")
    assert without_counts(found) == without_counts(listing)


def without_counts(listing: str) -> str:
    return re.sub(r"packets \d+ bytes \d+", "", listing)


def test_a_restart_writes_nothing(home: Home) -> None:
    """LD14: nothing changed, so nothing is written; and no packet is lost on the way."""
    home.client.ns("stream_start", name="steady", address=home.web.v4, port=80, interval=0.001)
    home.servers[4].peers(clear=True)
    begin = home.client.ns("stream_count", name="steady")
    for end in (home.machine.stop, home.machine.kill9):
        end()
        home.machine.start()
        assert home.machine.api.status()["writes"] == 0
    sent = home.client.ns("stream_stop", name="steady")
    arrived: set[int] = set()

    def missing() -> set[int]:
        peers = home.servers[4].peers(clear=True)
        arrived.update(int(p.split()[1]) for _, _, p in peers if p.startswith("steady"))
        return set(range(begin + 10, sent + 1)) - arrived

    eventually(lambda: not missing(), 5.0, f"all of {sent} arrive")
    assert home.broken() == []


def test_nothing_leaks_while_rules_are_gone(lan: Lan) -> None:
    """DR1: in the gap that a flush leaves, forwarding between networks is the one thing that must not happen for long.
    Packets that got through are counted; the bar is the promise of a second."""
    with Host(lan, number=8).start() as host:
        for name, prefix in (("left", "10.76.0.0/24"), ("right", "10.77.0.0/24")):
            host.api.network(name, prefix)
        with host.workload("left", "l") as left, host.workload("right", "r") as right:
            server = right.ns.listen("udp", "0.0.0.0", 7000)
            left.ns("stream_start", name="denied", address=right.v4, port=7000, interval=0.001)
            pause(0.2)
            assert server.peers() == []
            host.ns.sh("nft", "flush", "ruleset")
            watch = Watch()
            settle(host, REPAIR_S * BUSY)
            others_s = watch.wall_s() - watch.elapsed_s()
            leaked = len(server.peers())
            pause(0.2)
            assert len(server.peers()) == leaked, "it goes on after the repair"
            left.ns("stream_stop", name="denied")
            assert leaked < 1000 * (REPAIR_S + others_s)


def test_a_fight_is_not_fought_for_ever(lan: Lan) -> None:
    """DR11: somebody undoes a repair again and again: the daemon backs off, says so, and wins when they stop."""
    with Host(lan, number=8).start() as host:
        host.api.network("front", "10.78.0.0/24")
        with host.workload("front", "w"):
            flush = "import subprocess, time\nfor _ in range(200):\n    subprocess.run(['nft', 'flush', 'ruleset'], check=False)\n    time.sleep(0.02)"
            before = cpu_seconds(host)
            begun = time.monotonic()
            host.ns.python(flush)
            spent, wall = cpu_seconds(host) - before, time.monotonic() - begun
            assert spent < wall / 2, f"{spent:.1f} s of CPU in {wall:.1f} s"
            assert host.api.status()["repairs"] < 200 * 200
            settle(host, 15.0)


def cpu_seconds(host: Host) -> float:
    with open(f"/proc/{host.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_foreign_objects_are_never_touched(lan: Lan) -> None:
    """Links, addresses, routes, neighbours and rules of others, on the same host, with names like ours among them,
    through a whole life: networks come and go, the daemon is killed, its rules are flushed, it starts again."""
    with Host(lan, number=8).start() as host:
        host.ns.batch(
            "link add docker0 type bridge",
            "link set docker0 up",
            "addr add 172.17.0.1/16 dev docker0",
            "link add slbogus type bridge",
            "link add theirs type veth peer name theirs-peer",
            "link set theirs master docker0",
            "link set theirs up",
            "link set theirs alias not-sealane/000000/n/x",
            "route add 198.51.100.0/24 via 192.0.2.1",
            "route add blackhole 203.0.113.0/24 proto 93",
            "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent",
        )
        host.ns.ip("-6", "route", "add", "2001:db8:7::/48", "via", "2001:db8::1")
        host.ns.sh("nft", "-f", "-", text=FOREIGN_RULES)
        before = foreign(host.ns)
        for round_number in range(2):
            for driver in ("bridge", "routed"):
                host.api.network(driver, driver=driver, ipv6=True)
                with host.workload(driver, f"w-{driver}", publish=[{"port": 80}]):
                    host.kill9()
                    for family in ("ip", "bridge"):
                        host.ns.sh("nft", "delete", "table", family, "sealane")
                    host.start()
                    settle(host, 5.0)
                    assert changes(before, foreign(host.ns)) == [], (round_number, driver)
                host.api.remove_network(driver)
        assert changes(before, foreign(host.ns)) == []
        assert audit(host) == []


FOREIGN_RULES = """
table ip sealane_not { map m { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop }; }
  chain c { type filter hook forward priority 10; policy accept; counter comment "theirs"; ip daddr vmap @m; }; }
table inet filter { chain input { type filter hook input priority 0; policy accept; tcp dport 22 accept; }; }
table bridge theirs { chain c { type filter hook forward priority 0; ether type 0x1234 drop; }; }
"""


def test_the_last_network_takes_everything_with_it(lan: Lan) -> None:
    """I1: of a host that once had networks nothing is left, except that it forwards."""
    with Host(lan, number=8).start() as host:
        before = foreign(host.ns)
        host.api.network("one", "10.79.0.0/24", "fd79::/64")
        with host.workload("one", "w", publish=[{"port": 80}]) as w:
            assert host_link({"id": w.endpoint}) == w.host_link
        host.api.remove_network("one")
        assert host.ns.sh("nft", "list", "ruleset") == ""
        assert changes(before, foreign(host.ns)) == []
        assert audit(host) == []


def test_a_bridge_that_comes_back_under_its_name_is_guarded_at_once(lan: Lan) -> None:
    """podman's networks go with their last container and come with the next, and their bridges have fixed names."""
    guards = (
        "ipv4/conf/podman1/accept_redirects",
        "ipv4/conf/podman1/send_redirects",
        "ipv6/conf/podman1/accept_ra",
    )
    with Host(lan, number=8).start() as host:
        for round_number in range(2):
            host.api.network("one", "10.79.0.0/24", "fd79::/64", options={"bridge": "podman1"})
            found = [host.ns.sh("cat", f"/proc/sys/net/{path}").strip() for path in guards]
            assert found == ["0", "0", "0"], round_number
            host.api.remove_network("one")

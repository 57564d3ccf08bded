"""Debian's firewalld beside our networks: what it rejects of strangers it lets through of ours, whatever happens to it."""

import json
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from harness.firewalld import Firewalld, why_not
from harness.host import EXT4, EXT6, Host, Lan, Workload
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if why_not():
    pytest.skip(why_not(), allow_module_level=True)

HOST_NUMBER = 63
SUBNETS = ("10.90.0.0/24", "fd90::/64")
GATEWAY4, GATEWAY6 = "10.90.0.1", "fd90::1"


class Place:
    """A host with firewalld, our daemon, and a network with two workloads."""

    def __init__(self, lan: Lan, host: Host, firewalld: Firewalld) -> None:
        self.lan, self.host, self.firewalld = lan, host, firewalld
        host.api.network("front", *SUBNETS)
        self.link = host.api.get("/networks/front")["link"]
        self.web, self.db = Workload(host, "web"), Workload(host, "db")
        for box in (self.web, self.db):
            box.attach(
                "front",
                **(
                    {"publish": [{"proto": "tcp", "host_first": 8080, "port": 80}]} if box is self.web else {}
                ),
            )
        self.outside = {4: lan.ext.listen("tcp", EXT4), 6: lan.ext.listen("tcp", EXT6)}
        self.inside = {4: self.web.ns.listen("tcp", "0.0.0.0", 80), 6: self.web.ns.listen("tcp", "::", 80)}

    def way_out(self, family: int) -> bool:
        return bool(self.db.ns.reaches(self.outside[family], EXT4 if family == 4 else EXT6))

    def peer(self, family: int) -> bool:
        return bool(self.db.ns.reaches(self.inside[family], self.web.address(family)))

    def published(self, family: int) -> bool:
        return bool(self.lan.ext.reaches(self.inside[family], self.host.address(family), 8080))

    def name(self, family: int) -> bool:
        server = GATEWAY4 if family == 4 else GATEWAY6
        done = self.db.ns.run("dig", "+short", "+tries=1", "+time=1", f"@{server}", "web", "A")
        return done.stdout.strip() == self.web.v4

    def works(self) -> None:
        for family in (4, 6):
            for what in (self.way_out, self.peer, self.published, self.name):
                eventually(
                    lambda what=what, family=family: what(family), what=f"{what.__name__} over IPv{family}"
                )

    def close(self) -> None:
        self.web.close()
        self.db.close()
        self.host.api.remove_network("front")


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[tuple[Host, Firewalld]]:
    with Host(lan, number=HOST_NUMBER) as host:
        firewalld = Firewalld(host)
        try:
            firewalld.start()
            assert firewalld.is_rejecting()
            host.start()
            yield host, firewalld
        finally:
            firewalld.close()


@pytest.fixture
def place(lan: Lan, machine: tuple[Host, Firewalld]) -> Iterator[Place]:
    host, firewalld = machine
    with closing(Place(lan, host, firewalld)) as built:
        yield built
    eventually(lambda: firewalld.trusted() == [], what="firewalld forgets the link with its network")


def findings(host: Host) -> list[dict[str, str]]:
    view = json.loads(host.sealane("doctor", "--json", check=False).stdout)
    # Where the host's own nameserver is does not matter here.
    return [f for f in view["findings"] if f["level"] != "note" and f["cause"] != "silent-upstream"]


def test_everything_passes_and_what_firewalld_guards_stays_guarded(place: Place) -> None:
    place.works()
    assert place.firewalld.trusted() == [place.link]
    server = place.host.ns.listen("tcp", "0.0.0.0")
    assert not place.lan.ext.reaches(server, place.host.address(4)), (
        "the host's own ports are firewalld's to guard"
    )
    assert "firewalld.trusted" in place.host.sealane("events").stdout
    assert all(c["subject"] != "firewalld" for c in place.host.api.status()["conditions"])


def test_without_it_firewalld_rejects_all_of_it(place: Place) -> None:
    """The control: our daemon is stopped in its tracks, and the link is taken out of the zone."""
    place.works()
    place.host.daemon.send_signal(signal.SIGSTOP)
    try:
        place.firewalld("--zone=trusted", f"--remove-interface={place.link}")
        for family in (4, 6):
            eventually(lambda family=family: not place.way_out(family), what="nothing gets out")
    finally:
        place.host.daemon.send_signal(signal.SIGCONT)
    place.works()


def test_inside_with_br_netfilter(place: Place) -> None:
    """Frames between two ports of the bridge pass firewalld's forward chain then."""
    for name in ("iptables", "ip6tables"):
        place.host.ns.sysctl(f"net/bridge/bridge-nf-call-{name}", "1")
    try:
        place.works()
        place.firewalld("--reload")
        place.works()
    finally:
        for name in ("iptables", "ip6tables"):
            place.host.ns.sysctl(f"net/bridge/bridge-nf-call-{name}", "0")


@pytest.mark.parametrize("how", ["--reload", "--complete-reload", "restart", "kill"])
def test_firewalld_is_followed(place: Place, how: str) -> None:
    if how.startswith("--"):
        place.firewalld(how)
    elif how == "restart":
        place.firewalld.restart()
    else:
        place.firewalld.kill9()
        place.firewalld.start()
    eventually(lambda: place.firewalld.trusted() == [place.link], what="it is told again")
    place.works()


def test_firewalld_comes_later_and_goes(place: Place) -> None:
    place.firewalld.stop()
    assert not place.firewalld.is_rejecting()
    place.works()
    place.host.api.network("late", "10.91.0.0/24")
    late = place.host.api.get("/networks/late")["link"]
    place.firewalld.start()
    eventually(lambda: set(place.firewalld.trusted()) == {place.link, late}, what="all of them are told")
    place.works()
    place.host.api.remove_network("late")
    eventually(lambda: place.firewalld.trusted() == [place.link], what="it forgets the one")


@pytest.mark.parametrize("removed", [False, True], ids=["kept", "network removed"])
def test_our_daemon_is_killed(place: Place, removed: bool) -> None:
    place.host.api.network("gone", "10.92.0.0/24")
    gone = place.host.api.get("/networks/gone")["link"]
    eventually(lambda: set(place.firewalld.trusted()) == {place.link, gone}, what="both are told")
    if removed:
        # Killed between the network's end and what firewalld is told of it.
        place.firewalld._firewalld.send_signal(signal.SIGSTOP)
        place.host.api.remove_network("gone")
    place.host.kill9()
    if removed:
        place.firewalld._firewalld.send_signal(signal.SIGCONT)
    assert place.way_out(4), "traffic goes on"
    place.host.start()
    if not removed:
        place.host.api.remove_network("gone")
    eventually(lambda: place.firewalld.trusted() == [place.link], what="what is left behind is taken away")
    place.works()


def test_what_administrators_have_put_there_is_theirs(place: Place) -> None:
    """Links of theirs stay, and a link of ours that they have put into another zone stays in that."""
    firewalld = place.firewalld
    firewalld("--zone=trusted", "--add-interface=theirs0")
    eventually(lambda: set(firewalld.trusted()) == {place.link, "theirs0"}, what="both are there")
    firewalld("--zone=work", f"--change-interface={place.link}")
    eventually(
        lambda: (
            [c["message"] for c in place.host.api.status()["conditions"] if c["subject"] == "firewalld"]
            == [
                f"link {place.link} is in zone work, where somebody has put it: its network has what that zone allows"
            ]
        ),
        what="status tells",
    )
    assert firewalld.trusted() == ["theirs0"]
    firewalld("--zone=work", f"--remove-interface={place.link}")
    eventually(lambda: set(firewalld.trusted()) == {place.link, "theirs0"}, what="it is back")
    firewalld("--zone=trusted", "--remove-interface=theirs0")


def test_routed_networks_and_bridges_with_names(place: Place) -> None:
    host = place.host
    host.api.post(
        "/networks", {"name": "routed", "driver": "routed", "subnets": [{"prefix": "10.93.0.0/24"}]}
    )
    host.api.post(
        "/networks",
        {"name": "named", "options": {"bridge": "br-named"}, "subnets": [{"prefix": "10.94.0.0/24"}]},
    )
    eventually(
        lambda: set(place.firewalld.trusted()) == {place.link, "sle+", "br-named"}, what="all are told"
    )
    with host.workload("routed", "lone") as lone:
        eventually(lambda: lone.ns.reaches(place.outside[4], EXT4), what="a routed network gets out")
    host.api.remove_network("routed")
    host.api.remove_network("named")
    eventually(lambda: place.firewalld.trusted() == [place.link], what="it forgets them")


def test_an_adopted_bridge_is_not_ours_to_trust(place: Place) -> None:
    place.host.ns.batch("link add lanbr type bridge", "link set lanbr up")
    place.host.api.post(
        "/networks",
        {"name": "guest", "options": {"bridge": "lanbr"}, "subnets": [{"prefix": "10.95.0.0/24"}]},
    )
    place.host.api.network("marker", "10.96.0.0/24")
    marker = place.host.api.get("/networks/marker")["link"]
    eventually(lambda: set(place.firewalld.trusted()) == {place.link, marker}, what="all but the adopted one")
    place.host.api.remove_network("guest")
    place.host.api.remove_network("marker")
    place.host.ns.ip("link", "del", "lanbr")


def test_doctor_accuses_firewalld_only_when_it_is_in_the_way(place: Place) -> None:
    place.works()
    assert findings(place.host) == []
    place.host.daemon.send_signal(signal.SIGSTOP)
    place.firewalld("--zone=work", f"--change-interface={place.link}")
    place.host.daemon.send_signal(signal.SIGCONT)
    eventually(lambda: findings(place.host) != [], what="it is found")
    found = [f for f in findings(place.host) if f["cause"] in ("foreign-drop", "foreign-input")]
    assert found, findings(place.host)
    for finding in found:
        assert f"firewall-cmd --permanent --zone=trusted --change-interface={place.link}" in finding["hint"]
        assert "firewall-cmd --reload" in finding["hint"]
        assert "nft insert" not in finding["hint"]
    # It is what it says: this survives a reload without us.
    place.host.daemon.send_signal(signal.SIGSTOP)
    place.firewalld("--permanent", "--zone=trusted", f"--change-interface={place.link}")
    place.firewalld("--reload")
    place.firewalld("--reload")
    assert place.way_out(4)
    place.host.daemon.send_signal(signal.SIGCONT)
    eventually(lambda: findings(place.host) == [], what="nothing is found")
    place.firewalld("--permanent", "--zone=trusted", f"--remove-interface={place.link}")
    place.firewalld("--reload")


def test_a_refusal_is_told(lan: Lan) -> None:
    with Host(lan, number=HOST_NUMBER + 1) as host:
        firewalld = Firewalld(host, denied=True)
        try:
            firewalld.start()
            host.start()
            host.api.network("front", *SUBNETS)

            def told() -> bool:
                found = [c for c in host.api.status()["conditions"] if c["subject"] == "firewalld"]
                return [c["level"] for c in found] == ["warning"] and "--permanent --zone=trusted" in found[
                    0
                ]["hint"]

            eventually(told, what="status tells")
            assert "firewalld.failed" in host.sealane("events").stdout
            assert host.api.get("/networks/front")["name"] == "front", "and all else works"
            firewalld.stop()
            eventually(lambda: not told(), what="without firewalld there is nothing to tell")
        finally:
            firewalld.close()


def test_firewalld_hangs(lan: Lan, machine: tuple[Host, Firewalld]) -> None:
    """Our daemon does not: it answers and attaches meanwhile."""
    host, firewalld = machine
    firewalld._firewalld.send_signal(signal.SIGSTOP)
    try:
        host.api.network("front", *SUBNETS)
        with host.workload("front", "web"), host.workload("front", "db"):
            assert len(host.api.get("/endpoints")) == 2
            assert host.sealane("status", check=False).stdout
        assert host.restart() is None
    finally:
        firewalld._firewalld.send_signal(signal.SIGCONT)
    link = host.api.get("/networks/front")["link"]
    eventually(lambda: firewalld.trusted() == [link], 30, "it is told when it listens again")
    host.api.remove_network("front")
    eventually(lambda: firewalld.trusted() == [], what="and of the end")

"""Our rules in iptables' FORWARD: they let ours through where its policy drops, and iptables goes on reading its table."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from harness.host import Host, Lan, Workload
from harness.netns import eventually

pytestmark = pytest.mark.kernel


@pytest.fixture
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=23) as fresh:
        yield fresh


def drop(machine: Host, policy: str = "DROP", program: str = "iptables") -> None:
    machine.ns.sh(program, "-P", "FORWARD", policy)


def listed(machine: Host, program: str = "iptables") -> list[str]:
    return [line for line in machine.ns.sh(program, "-S", "FORWARD").splitlines() if "sealane/" in line]


def frames_pass_iptables(machine: Host) -> None:
    """As dockerd has it."""
    machine.ns.sysctl("net/bridge/bridge-nf-call-iptables", "1")


def test_without_a_policy_of_drop_nothing_is_put_there(machine: Host) -> None:
    drop(machine, "ACCEPT")
    machine.start()
    machine.api.network("front", "10.66.0.0/24")
    assert listed(machine) == []


@pytest.mark.parametrize("family", [4, 6])
def test_workloads_reach_each_other_and_the_world_under_it(machine: Host, lan: Lan, family: int) -> None:
    """The same packets are lost without: the daemon is away while the policy is set."""
    program = "iptables" if family == 4 else "ip6tables"
    machine.start()
    machine.api.network("front", "10.66.0.0/24", "fd66::/64")
    frames_pass_iptables(machine)
    machine.ns.sysctl("net/bridge/bridge-nf-call-ip6tables", "1")
    outside = lan.ext.listen("tcp", "0.0.0.0" if family == 4 else "::")
    target = "192.0.2.200" if family == 4 else "2001:db8::200"
    with closing(Workload(machine, "a")) as a, closing(Workload(machine, "b")) as b:
        a.attach("front")
        b.attach("front", publish=[{"host_first": 8080, "port": 7001}])
        inside = b.ns.listen("tcp", "0.0.0.0" if family == 4 else "::", 7001)

        def reached() -> list[bool]:
            return [
                a.ns.reaches(inside, b.address(family)),
                a.ns.reaches(outside, target),
                lan.ext.reaches(inside, machine.address(family), 8080),
            ]

        assert reached() == [True, True, True]
        # Ended, not killed: then nobody would close the fast path, and neighbours would reach each other still.
        machine.stop()
        drop(machine, program=program)
        assert reached() == [False, False, False]
        machine.start()
        assert reached() == [True, True, True]
        assert len(listed(machine, program)) == 2
        assert machine.api.audit() == []
        outside.close()


def test_they_come_and_go_with_the_policy_and_stand_last(machine: Host) -> None:
    machine.start()
    machine.api.network("front", "10.66.0.0/24")
    machine.ns.sh("iptables", "-A", "FORWARD", "-p", "icmp", "-j", "RETURN")
    drop(machine)
    eventually(lambda: len(listed(machine)) == 2, what="the policy is seen")
    everything = machine.ns.sh("iptables", "-S", "FORWARD").splitlines()
    assert [line in listed(machine) for line in everything] == [False, False, True, True]
    assert "-i sl+" in everything[2]
    assert "-o sl+" in everything[3]
    drop(machine, "ACCEPT")
    eventually(lambda: listed(machine) == [], what="they are taken away")
    assert machine.ns.sh("iptables", "-S", "FORWARD").splitlines()[-1] == "-A FORWARD -p icmp -j RETURN"


@pytest.mark.parametrize(
    "damage",
    [
        ("iptables", "-F", "FORWARD"),
        ("iptables", "-D", "FORWARD", "1"),
        ("nft", "flush", "table", "ip", "filter"),
    ],
    ids=lambda words: " ".join(words),
)
def test_somebody_who_makes_his_rules_anew_gets_them_again(machine: Host, damage: tuple[str, ...]) -> None:
    machine.start()
    machine.api.network("front", "10.66.0.0/24")
    drop(machine)
    eventually(lambda: len(listed(machine)) == 2)
    machine.ns.sh(*damage)
    eventually(lambda: len(listed(machine)) == 2, what="they are put back")
    assert machine.api.audit() == []


def test_a_table_that_goes_takes_them_along(machine: Host) -> None:
    machine.start()
    machine.api.network("front", "10.66.0.0/24")
    drop(machine)
    eventually(lambda: len(listed(machine)) == 2)
    machine.ns.sh("nft", "delete", "table", "ip", "filter")
    eventually(lambda: machine.api.audit() == [], what="there is nothing to be let through")
    machine.api.network("back", "10.67.0.0/24")
    assert "table ip filter" not in machine.ns.sh("nft", "list", "tables")


def test_the_last_network_takes_them_along(machine: Host) -> None:
    machine.start()
    drop(machine)
    machine.api.network("front", "10.66.0.0/24")
    eventually(lambda: len(listed(machine)) == 2)
    machine.api.remove_network("front")
    assert listed(machine) == []


def test_a_bridge_of_another_name_has_its_own(machine: Host) -> None:
    drop(machine)
    machine.start()
    machine.api.network("front", "10.66.0.0/24", options={"bridge": "br-front"})
    assert any("-i br-front" in line for line in listed(machine))
    machine.api.remove_network("front")
    assert listed(machine) == []


def test_what_an_earlier_rule_drops_is_dropped(machine: Host) -> None:
    """Ours stand last: who has said no has said it."""
    machine.start()
    machine.api.network("front", "10.66.0.0/24")
    frames_pass_iptables(machine)
    with closing(Workload(machine, "a")) as a, closing(Workload(machine, "b")) as b:
        a.attach("front")
        b.attach("front")
        server = b.ns.listen("tcp", "0.0.0.0", 7000)
        drop(machine)
        eventually(lambda: a.ns.reaches(server, b.address(4)))
        machine.ns.sh("iptables", "-I", "FORWARD", "-s", a.address(4), "-j", "DROP")
        eventually(lambda: not a.ns.reaches(server, b.address(4)), what="the rule is heeded")
        assert not a.ns.reaches(server, b.address(4))


def forward(machine: Host) -> list[str]:
    """FORWARD's rules, ours as `ours`."""
    rules = machine.ns.sh("iptables", "-S", "FORWARD").splitlines()[1:]
    return ["ours" if "sealane/" in rule else rule for rule in rules]


def test_what_an_administrator_adds_later_is_heeded_too(machine: Host) -> None:
    """A rule at the end of the chain would be behind our accepts: these go behind it."""
    drop(machine)
    machine.start()
    machine.api.network("front", "10.66.0.0/24")
    eventually(lambda: forward(machine) == ["ours"] * 2)
    machine.ns.sh("iptables", "-A", "FORWARD", "-s", "192.0.2.200/32", "-j", "DROP")
    desired = ["-A FORWARD -s 192.0.2.200/32 -j DROP", "ours", "ours"]
    eventually(lambda: forward(machine) == desired, what="ours are behind it")
    assert machine.api.audit() == []


def test_saved_and_restored_they_are_the_same_two(machine: Host) -> None:
    """iptables-restore makes the comment a match, where ours stands beside the rule's expressions."""
    drop(machine)
    machine.start()
    machine.api.network("front", "10.66.0.0/24")
    eventually(lambda: forward(machine) == ["ours"] * 2)
    for _ in range(3):
        saved = machine.ns.sh("iptables-save")
        machine.ns.sh("iptables-restore", text=saved)
        eventually(lambda: forward(machine) == ["ours"] * 2 and machine.api.audit() == [])
    machine.stop()
    machine.ns.sh("iptables-restore", "-n", text=saved)
    assert len(forward(machine)) == 4
    machine.start()
    eventually(lambda: forward(machine) == ["ours"] * 2, what="doubled ones are two again")
    drop(machine, "ACCEPT")
    eventually(lambda: forward(machine) == [], what="they go with the policy")
    assert machine.api.audit() == []

"""`sealane trace` where eBPF is not to be had: one packet of ours, followed by a tracefs instance."""

import os
from collections.abc import Iterator

import pytest

from harness.host import Host, Lan
from harness.netns import eventually
from kernel.trace_town import Town

pytestmark = pytest.mark.kernel

TRACING = "/sys/kernel/tracing"
BTF = "/sys/kernel/btf/vmlinux"


@pytest.fixture(scope="module")
def town(lan: Lan) -> Iterator[Town]:
    """On a host whose kernel tells nothing of its types."""
    if not os.path.isdir(TRACING):
        pytest.skip("this kernel has no tracefs")
    with Host(lan, number=8) as host:
        host.ns.sh("mount", "-t", "tracefs", "tracefs", TRACING)
        host.ns.sh("mount", "--bind", "/dev/null", BTF)
        host.start()
        yield Town(host)


def instances(town: Town) -> list[str]:
    return [
        name for name in town.host.ns.sh("ls", f"{TRACING}/instances").split() if name.startswith("sealane-")
    ]


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_packet_is_followed_from_end_to_end(town: Town, proto: str, family: str) -> None:
    code, (observed_path,), notes = town.trace("web", "api:9", "--proto", proto, family)
    observed = observed_path["observed"]
    assert (code, observed_path["outcome"], observed_path["agrees"]) == (0, "delivered", True)
    assert [hop["name"] for hop in observed["hops"]] == [town.names["web"], "host", town.names["api"]]
    links = [[s["text"] for s in hop["steps"] if s["kind"] == "link"] for hop in observed["hops"]]
    web, api = town.boxes["web"].host_link, town.boxes["api"].host_link
    assert links == [["out by eth0"], [f"in by {web}", f"out by {api}"], ["in by eth0"]]
    assert any(note.startswith("not seen: addresses, and so translations") for note in notes)


def test_a_drop_has_the_kernels_reason_and_its_rule(town: Town) -> None:
    code, (observed_path,), _ = town.trace("web", "db:5432")
    assert (code, observed_path["outcome"], observed_path["agrees"]) == (1, "dropped", True)
    assert (
        observed_path["observed"]["reason"]
        == "network back takes nothing from outside but answers and published ports"
    )


@pytest.mark.parametrize(("source", "target", "end"), [("near", "far:9", "far"), ("host", "web:9", "web")])
def test_other_ways(town: Town, source: str, target: str, end: str) -> None:
    code, (observed_path,), _ = town.trace(source, target)
    assert (code, observed_path["agrees"], observed_path["observed"]["where"]) == (0, True, town.names[end])


def test_packets_of_others_cannot_be_followed(town: Town) -> None:
    done = town.host.sealane("trace", *town.words("web", "api:9"), "--live", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: packets cannot be followed: ")


def test_nothing_stays_on(town: Town) -> None:
    town.trace("web", "api:9")
    assert instances(town) == []


def test_what_a_killed_daemon_left_is_swept(town: Town) -> None:
    left = f"sealane-{town.host.pid}-dead"
    town.host.ns.sh("mkdir", f"{TRACING}/instances/{left}")
    town.host.ns.sh("sh", "-c", f"echo 1 > {TRACING}/instances/{left}/events/skb/kfree_skb/enable")
    town.host.kill9()
    town.host.start()
    eventually(lambda: instances(town) == [], what="the instance is gone")

"""Which links firewalld is to trust, and what is remembered of it."""

from pathlib import Path

import pytest

from harness.engines import Bench
from sealane.compile.names import network_link
from sealane.daemon.zones import ROUTED, Record, trusted_links
from sealane.model.network import Network


def networks(bench: Bench) -> list[Network]:
    return list(bench.engine.intent.networks.values())


def test_links_of_networks_with_packets() -> None:
    bench = Bench()
    assert trusted_links(networks(bench)) == set()
    bench.network("front")
    bench.network("named", options={"bridge": "br-named"})
    bench.network("inner", internal=True)
    bench.network("nothing", driver="none", ipv4=False)
    links = {network_link(n) for n in networks(bench) if n.driver == "bridge"}
    assert trusted_links(networks(bench)) == links
    assert "br-named" in links
    bench.network("r1", driver="routed")
    bench.network("r2", driver="routed")
    assert trusted_links(networks(bench)) == {*links, ROUTED}


def test_a_record_outlives_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "firewalld"
    assert Record(str(path)).read() == set()
    Record(str(path)).write({"slb1", "sle+"})
    assert Record(str(path)).read() == {"slb1", "sle+"}
    Record(str(path)).write(set())
    assert Record(str(path)).read() == set()
    assert [found.name for found in tmp_path.iterdir()] == ["firewalld"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n", b"slb1"])
def test_a_damaged_record_is_no_reason_to_fail(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "firewalld"
    path.write_bytes(content)
    assert len(Record(str(path)).read()) <= 1

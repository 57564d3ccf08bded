"""What can be set of a sandbox as a whole."""

import pytest

from sealane.engine.endpoints import sandbox_sysctls
from sealane.engine.errors import InvalidError


def test_settings_of_the_namespace_are_paths_in_their_order():
    given = {
        "net.ipv4.tcp_syncookies": "0",
        "net.core.somaxconn": "1024",
        "net.ipv4.conf.all.rp_filter": "1",
        "net.ipv6.conf.default.accept_ra": "0",
        "net.ipv4.conf.lo.forwarding": "1",
    }
    assert sandbox_sysctls(given) == (
        ("net/core/somaxconn", "1024"),
        ("net/ipv4/conf/all/rp_filter", "1"),
        ("net/ipv4/conf/lo/forwarding", "1"),
        ("net/ipv4/tcp_syncookies", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
    )


@pytest.mark.parametrize("key", ["net.ipv6.conf.eth0.accept_ra", "net.ipv4.neigh.eth1.retrans_time_ms"])
def test_those_of_a_link_are_its_networks_for_it_is_not_there_yet(key):
    with pytest.raises(InvalidError) as caught:
        sandbox_sysctls({key: "1"})
    assert caught.value.field == f"sysctls.{key}"
    assert "com.docker.network.endpoint.sysctls=net." in caught.value.hint
    assert "IFNAME" in caught.value.hint


@pytest.mark.parametrize(("key", "value"), [("kernel.shmmax", "1"), ("net.core.somaxconn", "a;b")])
def test_others_are_refused(key, value):
    with pytest.raises(InvalidError) as caught:
        sandbox_sysctls({key: value})
    assert caught.value.field == f"sysctls.{key}"

"""Token buckets on the real kernel: what is put is read back, held, and put right."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.host import Host, Workload
from harness.netns import eventually
from kernel.rtnl_support import BOX, PORT, endpoint, rig, run
from sealane.compile.endpoint import BUCKET_S_MAX
from sealane.kernel.objects import Qdisc
from sealane.kernel.state import HOST

pytestmark = pytest.mark.kernel

SLOW = Qdisc(link=PORT, rate=1_000_000, burst=20_000, limit=70_000)


@pytest.fixture(scope="module")
def made():
    with rig(BOX) as it:
        it.make(endpoint())
        yield it


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1_000, 10**11), st.integers(1_518, 1 << 31), st.integers(15_000, 1 << 31))
def test_what_is_put_is_read_back(made, rate, burst, limit):
    burst = min(burst, rate * BUCKET_S_MAX)
    for netns, name in ((HOST, PORT), (BOX, "eth0")):
        item = Qdisc(link=name, rate=rate, burst=burst, limit=limit)
        assert made.do(("create", netns, item)) == []
        desired = {key: [*items, item] if key == netns else items for key, items in endpoint().items()}
        assert made.drift({netns: desired[netns]}) == []


def test_another_programs_sees_the_same():
    with rig(BOX) as it:
        it.make(endpoint())
        assert it.do(("create", HOST, SLOW)) == []
        (found,) = [q for q in qdiscs() if q["kind"] == "tbf"]
        assert (found["handle"], found["root"]) == ("5ea1:", True)
        assert (found["options"]["rate"], found["options"]["burst"]) == (1_000_000, 20_000)


def qdiscs():
    import json

    return json.loads(run("tc", "-j", "qdisc", "show", "dev", PORT))


def test_one_that_differs_is_changed_and_one_that_is_gone_is_no_error():
    with rig(BOX) as it:
        it.make(endpoint())
        it.do(("create", HOST, SLOW))
        fast = msgspec.structs.replace(SLOW, rate=2_000_000)
        assert it.do(("change", HOST, fast, SLOW)) == []
        assert [i for i in it.observed() if isinstance(i, Qdisc)] == [fast]
        for _ in range(2):
            assert it.do(("delete", HOST, fast, fast)) == []
        assert [i for i in it.observed() if isinstance(i, Qdisc)] == []


def test_somebody_elses_is_not_seen_and_not_deleted():
    with rig(BOX) as it:
        it.make(endpoint())
        run(
            "tc",
            "qdisc",
            "add",
            "dev",
            PORT,
            "root",
            "handle",
            "1:",
            "tbf",
            "rate",
            "1mbit",
            "burst",
            "9kb",
            "limit",
            "9kb",
        )
        assert [i for i in it.observed() if isinstance(i, Qdisc)] == []
        assert it.do(("delete", HOST, SLOW, SLOW)) == []
        assert [q["handle"] for q in qdiscs()] == ["1:"]
        assert it.do(("create", HOST, SLOW)) == [], "what is wanted takes its place"
        assert [q["handle"] for q in qdiscs()] == ["5ea1:"]


def test_a_limit_that_somebody_lifts_is_back_at_once(host: Host) -> None:
    host.api.network("front", "10.61.0.0/24")
    web = Workload(host, "web")
    try:
        web.attach("front", ingress={"rate": 8_000_000})
        rate = host.ns.sh("tc", "qdisc", "show", "dev", web.host_link)
        assert "tbf 5ea1: root" in rate
        assert "rate 8Mbit burst 10000b" in rate
        host.ns.sh("tc", "qdisc", "del", "dev", web.host_link, "root")
        eventually(
            lambda: host.ns.sh("tc", "qdisc", "show", "dev", web.host_link) == rate, what="the bucket is back"
        )
        host.ns.sh("tc", "qdisc", "replace", "dev", web.host_link, "root", "pfifo", "limit", "9")
        eventually(
            lambda: host.ns.sh("tc", "qdisc", "show", "dev", web.host_link) == rate, what="the bucket is back"
        )
    finally:
        web.close()

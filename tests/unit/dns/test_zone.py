"""Who sees which names."""

import dns.message
import dns.name
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealane.dns import wire
from sealane.dns.index import SubnetTable
from sealane.dns.limits import ANSWER_RECORDS
from sealane.dns.records import ZoneError, ZoneMember, ZoneNetwork
from sealane.dns.zone import Finding, Verdict, View, Zone


def member(endpoint: str, names: str, *addresses: str, sandbox: str = "") -> ZoneMember:
    return ZoneMember(endpoint, sandbox, tuple(names.split()), addresses)


def network(
    name: str, *members: ZoneMember, subnets: str = "10.1.0.0/24 fd01::/64", **fields: object
) -> ZoneNetwork:
    return ZoneNetwork(
        id=f"id-{name}",
        name=name,
        listen=("10.1.0.1",),
        subnets=tuple(subnets.split()),
        members=members,
        **fields,
    )


WEB = member("e1", "web www", "10.1.0.2", "fd01::2", sandbox="s1")
DB = member("e2", "db", "10.1.0.3", sandbox="s2")
FRONT = network("front", WEB, DB)
BACK = network("back", member("e3", "web-back", "10.2.0.2", sandbox="s1"), member("e4", "store", "10.2.0.4", sandbox="s4"),
               subnets="10.2.0.0/24")  # fmt: skip


def zone_of(*networks: ZoneNetwork, search: str = "") -> Zone:
    zone = Zone([search] if search else [])
    zone.update(networks)
    return zone


def view(zone: Zone, source: str, name: str = "front") -> View:
    found = zone.view((f"id-{name}",), source)
    assert found is not None
    return found


def find(zone: Zone, source: str, name: str, rrtype: str = "A", arrival: str = "front") -> Finding:
    wired = wire.wire_name(name)
    assert wired is not None
    return zone.find(view(zone, source, arrival), wired, int(dns.rdatatype.from_text(rrtype)))


def values(zone: Zone, source: str, name: str, rrtype: str = "A", arrival: str = "front") -> list[str]:
    """The data of the answer as text; fails on any other verdict."""
    finding = find(zone, source, name, rrtype, arrival)
    assert finding.verdict is Verdict.ANSWER
    asked = wire.read_question(dns.message.make_query("q.", rrtype).to_wire())
    assert isinstance(asked, wire.Question)
    answer = dns.message.from_wire(b"\0\0" + wire.answer_tail(asked, 0, finding.records, stream=True))
    return [data.to_text() for rrset in answer.answer for data in rrset]


def test_names_and_aliases_lead_to_the_addresses_of_the_asked_family() -> None:
    zone = zone_of(FRONT)
    assert values(zone, "10.1.0.3", "web") == ["10.1.0.2"]
    assert values(zone, "10.1.0.3", "www") == ["10.1.0.2"]
    assert values(zone, "10.1.0.3", "web", "AAAA") == ["fd01::2"]
    assert values(zone, "10.1.0.3", "web.front") == ["10.1.0.2"]
    assert values(zone, "10.1.0.3", "www.front", "AAAA") == ["fd01::2"]
    assert sorted(values(zone, "10.1.0.3", "web", "ANY")) == ["10.1.0.2", "fd01::2"]


def pod(endpoint: str, name: str, namespace: str, address: str) -> ZoneMember:
    return ZoneMember(endpoint, endpoint, (f"{name}.{namespace}",), (address,), short=name)


def test_a_short_name_leads_to_the_only_one_that_has_it() -> None:
    shop, blog = pod("e1", "web-0", "shop", "10.1.0.2"), pod("e2", "web-0", "blog", "10.1.0.3")
    zone = zone_of(network("pods", shop))
    for name in ("web-0", "web-0.shop", "web-0.pods", "web-0.shop.pods"):
        assert values(zone, "10.1.0.9", name, arrival="pods") == ["10.1.0.2"]
    zone.update([network("pods", shop, blog)])
    for name in ("web-0", "web-0.pods"):
        assert find(zone, "10.1.0.9", name, arrival="pods").verdict is Verdict.NO_SUCH_NAME
    assert values(zone, "10.1.0.9", "web-0.shop", arrival="pods") == ["10.1.0.2"]
    assert values(zone, "10.1.0.9", "web-0.blog.pods", arrival="pods") == ["10.1.0.3"]
    zone.update([network("pods", blog)])
    assert values(zone, "10.1.0.9", "web-0", arrival="pods") == ["10.1.0.3"]


def test_two_endpoints_of_one_pod_share_their_short_name() -> None:
    zone = zone_of(
        network("pods", pod("e1", "web-0", "shop", "10.1.0.2"), pod("e2", "web-0", "shop", "10.1.0.3"))
    )
    assert values(zone, "10.1.0.9", "web-0", arrival="pods") == ["10.1.0.2", "10.1.0.3"]


def test_a_whole_name_goes_before_a_short_one_and_a_short_one_is_never_forwarded() -> None:
    dotted = [pod("e1", "a.b", "shop", "10.1.0.2"), pod("e2", "a.b", "blog", "10.1.0.3")]
    zone = zone_of(
        network("pods", pod("e3", "web", "shop", "10.1.0.4"), member("e4", "web", "10.1.0.5"), *dotted)
    )
    assert values(zone, "10.1.0.9", "web", arrival="pods") == ["10.1.0.5"]
    assert find(zone, "10.1.0.9", "a.b", arrival="pods").verdict is not Verdict.FORWARD


def test_a_pods_address_has_its_name_and_namespace() -> None:
    zone = zone_of(network("pods", pod("e1", "web-0", "shop", "10.1.0.2")))
    assert values(zone, "10.1.0.9", "2.0.1.10.in-addr.arpa", "PTR", arrival="pods") == ["web-0.shop.pods."]


@pytest.mark.parametrize("rrtype", ["AAAA", "MX", "TXT", "SRV", "HTTPS", "PTR", "NS", "SOA"])
def test_a_known_name_of_another_type_is_empty_and_not_forwarded(rrtype: str) -> None:
    for name in ("db", "db.front"):
        assert find(zone_of(FRONT), "10.1.0.2", name, rrtype) == Finding(Verdict.ANSWER, ())


def test_a_sandbox_on_two_networks_sees_both_from_either() -> None:
    zone = zone_of(FRONT, BACK)
    for source, arrival in (("10.1.0.2", "front"), ("10.2.0.2", "back")):
        assert values(zone, source, "store", arrival=arrival) == ["10.2.0.4"]
        assert values(zone, source, "db", arrival=arrival) == ["10.1.0.3"]
        assert values(zone, source, "store.back", arrival=arrival) == ["10.2.0.4"]


def test_others_do_not_see_names_of_networks_they_are_not_on() -> None:
    zone = zone_of(FRONT, BACK)
    assert find(zone, "10.1.0.3", "store").verdict is Verdict.NO_SUCH_NAME
    assert find(zone, "10.1.0.3", "4.0.2.10.in-addr.arpa", "PTR").verdict is Verdict.NO_SUCH_NAME
    assert find(zone, "10.2.0.4", "db", arrival="back").verdict is Verdict.NO_SUCH_NAME


def test_two_tenants_with_the_same_names_and_subnets_never_see_each_other() -> None:
    """E8: views follow the network a question arrived on, not its address alone."""
    red = network("red", *(member(f"r{n}", f"web{n} all", f"10.1.0.{n}") for n in range(2, 50)))
    blue = network("blue", *(member(f"b{n}", f"web{n} all", f"10.1.0.{n + 100}") for n in range(2, 50)))
    zone = zone_of(red, blue)
    for name in [f"web{n}" for n in range(2, 50)] + ["all"]:
        assert all(int(value.split(".")[3]) < 100 for value in values(zone, "10.1.0.2", name, arrival="red"))
        assert all(
            int(value.split(".")[3]) >= 100 for value in values(zone, "10.1.0.102", name, arrival="blue")
        )
    assert values(zone, "10.1.0.2", "2.0.1.10.in-addr.arpa", "PTR", "red") == ["web2.red."]
    assert find(zone, "10.1.0.2", "102.0.1.10.in-addr.arpa", "PTR", "red").verdict is Verdict.NO_SUCH_NAME
    assert find(zone, "10.1.0.2", "web2.blue", arrival="red").verdict is Verdict.FORWARD


def test_an_unknown_asker_of_the_subnet_sees_that_network_only() -> None:
    zone = zone_of(FRONT, BACK)
    assert values(zone, "10.1.0.99", "db") == ["10.1.0.3"]
    assert find(zone, "10.1.0.99", "store").verdict is Verdict.NO_SUCH_NAME


@pytest.mark.parametrize(
    "source", ["10.2.0.2", "192.0.2.1", "127.0.0.1", "fd02::1", "::ffff:10.1.0.2", "nonsense", ""]
)
def test_strangers_are_not_answered(source: str) -> None:
    """E10: not even members of another network, when they ask at this one's address."""
    assert zone_of(FRONT, BACK).view(("id-front",), source) is None


def test_networks_that_share_an_address_are_told_apart_by_the_asker() -> None:
    """Routed networks listen at one address; the asker's own network comes first."""
    zone = zone_of(FRONT, BACK)
    shared = ("id-front", "id-back")
    for source, first in (("10.1.0.3", "front"), ("10.2.0.4", "back"), ("10.2.0.77", "back")):
        found = zone.view(shared, source)
        assert found is not None
        assert [each.record.name for each in found.networks] == [first]


def test_an_alias_of_several_endpoints_gives_all_and_each_once() -> None:
    both = network(
        "front", member("e1", "a all all", "10.1.0.2"), member("e2", "b all", "10.1.0.3", "10.1.0.2")
    )
    assert sorted(values(zone_of(both), "10.1.0.9", "all")) == ["10.1.0.2", "10.1.0.3"]


def test_an_alias_cannot_stand_in_for_a_name_of_another_network() -> None:
    """E8: a neighbour on ``back`` calls itself ``db.front``; the qualified name keeps its meaning."""
    squatter = network("back", member("e3", "x", "10.2.0.2", sandbox="s2"), member("e6", "db.front", "10.2.0.6"),
                       subnets="10.2.0.0/24")  # fmt: skip
    zone = zone_of(FRONT, squatter)
    assert values(zone, "10.1.0.3", "db.front") == ["10.1.0.3"]


def test_names_may_contain_dots() -> None:
    zone = zone_of(network("my.net", member("e1", "a.b", "10.1.0.2")))
    assert values(zone, "10.1.0.9", "a.b", arrival="my.net") == ["10.1.0.2"]
    assert values(zone, "10.1.0.9", "a.b.my.net", arrival="my.net") == ["10.1.0.2"]


@pytest.mark.parametrize("name", ["nobody", "com", "nobody.front", "a.b.front", "front", "localhost"])
def test_single_labels_and_names_under_the_own_network_are_never_forwarded(name: str) -> None:
    """E7: the search domain or a hostile wildcard upstream cannot take over a local name."""
    assert find(zone_of(FRONT), "10.1.0.3", name).verdict is Verdict.NO_SUCH_NAME


@pytest.mark.parametrize("name", ["example.com", "db.front.com", "dbfront.xfront", "front.com"])
def test_other_names_are_forwarded(name: str) -> None:
    assert find(zone_of(FRONT), "10.1.0.3", name).verdict is Verdict.FORWARD


def test_network_names_match_at_label_boundaries_only() -> None:
    """E11 (CVE-2026-33489): ``\\x03net`` may be the tail of a label's bytes without being a label."""
    zone = zone_of(network("net", member("e1", "db", "10.1.0.2")))
    asker = zone.view(("id-net",), "10.1.0.9")
    assert asker is not None
    assert zone.find(asker, b"\x02db\x04\x03net\x00", 1).verdict is Verdict.FORWARD
    assert zone.find(asker, b"\x02db\x04xnet\x00", 1).verdict is Verdict.FORWARD
    assert (
        zone.find(asker, b"\x06db.net\x00", 1).verdict is Verdict.NO_SUCH_NAME
    )  # One label with a dot in it.
    assert zone.find(asker, b"\x02db\x03net\x00", 1).verdict is Verdict.ANSWER


def test_five_hundred_spellings_of_one_name_get_one_decision() -> None:
    """E11: letters' case, escapes and the trailing dot meet one decision."""
    zone = zone_of(FRONT)
    spellings = set()
    for bits in range(256):
        text = "".join(c.upper() if bits >> i & 1 else c for i, c in enumerate("webfront"))
        plain = f"{text[:3]}.{text[3:]}"
        escaped = "".join(f"\\{ord(c):03d}" if c != "." else c for c in plain)
        spellings.update({plain, plain + ".", escaped})
    assert len(spellings) >= 500
    found = set()
    for spelling in spellings:
        query = dns.message.make_query(dns.name.from_text(spelling), "A").to_wire()
        read = wire.read_question(query)
        assert isinstance(read, wire.Question)
        found.add(zone.find(view(zone, "10.1.0.3"), read.name, 1).records)
    assert len(found) == 1
    assert len(next(iter(found))) == 1


def test_reverse_names_of_our_subnets_stay_here() -> None:
    zone = zone_of(FRONT)
    assert values(zone, "10.1.0.3", "2.0.1.10.in-addr.arpa", "PTR") == ["web.front."]
    ipv6 = dns.reversename.from_address("fd01::2").to_text()
    assert values(zone, "10.1.0.3", ipv6, "PTR") == ["web.front."]
    assert find(zone, "10.1.0.3", "77.0.1.10.in-addr.arpa", "PTR").verdict is Verdict.NO_SUCH_NAME
    assert find(zone, "10.1.0.3", "02.000.1.10.in-addr.arpa", "PTR").verdict is Verdict.ANSWER
    assert find(zone, "10.1.0.3", "2.0.1.10.in-addr.arpa", "A") == Finding(Verdict.ANSWER, ())
    assert find(zone, "10.1.0.3", "8.8.8.8.in-addr.arpa", "PTR").verdict is Verdict.FORWARD


def test_reverse_names_are_given_back_when_a_network_goes() -> None:
    zone = zone_of(FRONT, BACK)
    assert find(zone, "10.1.0.3", "9.0.2.10.in-addr.arpa", "PTR").verdict is Verdict.NO_SUCH_NAME
    zone.update([], ["id-back"])
    assert find(zone, "10.1.0.3", "9.0.2.10.in-addr.arpa", "PTR").verdict is Verdict.FORWARD


def test_internal_networks_refuse_what_is_not_local() -> None:
    """E1 (CVE-2024-29018)."""
    inner = network("front", WEB, DB, internal=True)
    zone = zone_of(inner)
    assert find(zone, "10.1.0.3", "example.com").verdict is Verdict.REFUSE
    assert not view(zone, "10.1.0.3").forwards
    assert values(zone, "10.1.0.3", "web") == ["10.1.0.2"]


def test_a_sandbox_forwards_if_one_of_its_networks_may() -> None:
    zone = zone_of(network("front", WEB, DB, internal=True), BACK)
    assert find(zone, "10.1.0.2", "example.com").verdict is Verdict.FORWARD
    assert find(zone, "10.1.0.3", "example.com").verdict is Verdict.REFUSE
    assert find(zone, "10.1.0.99", "example.com").verdict is Verdict.REFUSE


def test_upstreams_come_from_networks_that_may_forward() -> None:
    inner = network("front", WEB, internal=True, upstreams=("192.0.2.1",))
    outer = network("back", *BACK.members, subnets="10.2.0.0/24", upstreams=("192.0.2.2", "2001:DB8::0:2"))
    assert view(zone_of(inner, outer), "10.1.0.2").upstreams == ("192.0.2.2", "2001:db8::2")


def test_an_askers_own_upstreams_go_before_its_networks_and_are_its_alone() -> None:
    own = ZoneMember("e9", "s9", ("own",), ("10.1.0.9",), upstreams=("2001:DB8::0:9",))
    zone = zone_of(network("front", WEB, own, upstreams=("192.0.2.1",)))
    assert view(zone, "10.1.0.9").upstreams == ("2001:db8::9",)
    assert view(zone, "10.1.0.2").upstreams == ("192.0.2.1",)
    zone.update(
        [network("front", WEB, ZoneMember("e9", "s9", ("own",), ("10.1.0.9",)), upstreams=("192.0.2.1",))]
    )
    assert view(zone, "10.1.0.9").upstreams == ("192.0.2.1",)


def test_an_upstream_that_is_no_address_is_told() -> None:
    with pytest.raises(ZoneError, match="network front: member e9: upstreams: "):
        zone_of(network("front", ZoneMember("e9", "s9", ("own",), ("10.1.0.9",), upstreams=("dns.example",))))


def test_there_may_be_several_search_domains() -> None:
    zone = Zone(["dns.podman", "corp"])
    zone.update([FRONT])
    for name in ("web.dns.podman", "web.front.dns.podman", "web.corp"):
        assert values(zone, "10.1.0.3", name) == ["10.1.0.2"]
    assert find(zone, "10.1.0.3", "nobody.dns.podman").verdict is Verdict.NO_SUCH_NAME
    assert find(zone, "10.1.0.3", "web.dns").verdict is Verdict.FORWARD


def test_the_search_domain_is_taken_off_and_never_forwarded() -> None:
    zone = zone_of(FRONT, search="dns.sealane")
    assert values(zone, "10.1.0.3", "web.dns.sealane") == ["10.1.0.2"]
    assert values(zone, "10.1.0.3", "web.front.dns.sealane") == ["10.1.0.2"]
    for name in ("nobody.dns.sealane", "a.b.dns.sealane", "dns.sealane"):
        assert find(zone, "10.1.0.3", name).verdict is Verdict.NO_SUCH_NAME
    assert find(zone, "10.1.0.3", "web.xdns.sealane").verdict is Verdict.FORWARD


def test_what_is_removed_is_gone_at_once() -> None:
    """E5."""
    zone = zone_of(FRONT)
    before = view(zone, "10.1.0.3")
    zone.update([network("front", DB)])
    assert view(zone, "10.1.0.3") is not before
    assert find(zone, "10.1.0.3", "web").verdict is Verdict.NO_SUCH_NAME
    assert find(zone, "10.1.0.3", "2.0.1.10.in-addr.arpa", "PTR").verdict is Verdict.NO_SUCH_NAME
    zone.update([], ["id-front", "id-unknown"])
    assert zone.view(("id-front",), "10.1.0.3") is None


def test_views_of_other_networks_outlive_a_change() -> None:
    zone = zone_of(FRONT, BACK)
    front, both = view(zone, "10.1.0.3"), view(zone, "10.1.0.2")
    zone.update([network("back", subnets="10.2.0.0/24")])
    assert view(zone, "10.1.0.3") is front
    assert view(zone, "10.1.0.2") is not both


def test_askers_of_the_same_networks_share_a_view() -> None:
    zone = zone_of(FRONT)
    assert view(zone, "10.1.0.2") is view(zone, "10.1.0.3") is view(zone, "10.1.0.250")


def test_a_moved_address_belongs_to_its_new_owner() -> None:
    zone = zone_of(FRONT)
    zone.update([network("front", member("e9", "late", "10.1.0.2", sandbox="s9"), DB)])
    assert values(zone, "10.1.0.3", "2.0.1.10.in-addr.arpa", "PTR") == ["late.front."]


def test_a_renamed_network_renames_its_members() -> None:
    zone = zone_of(FRONT)
    zone.update([ZoneNetwork(**{**{f: getattr(FRONT, f) for f in FRONT.__struct_fields__}, "name": "new"})])
    assert values(zone, "10.1.0.3", "web.new") == ["10.1.0.2"]
    assert values(zone, "10.1.0.3", "2.0.1.10.in-addr.arpa", "PTR") == ["web.new."]


def test_a_network_removed_and_added_in_one_update_is_whole() -> None:
    zone = zone_of(FRONT)
    zone.update([FRONT], ["id-front"])
    assert values(zone, "10.1.0.3", "web") == ["10.1.0.2"]


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (network("bad", subnets="10.0.0.0/33"), "network bad: subnets: "),
        (network("bad", member("e1", "x", "10.0.0.256")), "network bad: member e1: addresses: "),
        (network("bad", upstreams=("dns.example",)), "network bad: upstreams: "),
        (ZoneNetwork("bad", "bad", ("localhost",), ()), "network bad: listen: "),
        (network("bad", DB, DB), "network bad: members: "),
    ],
)
def test_bad_input_names_the_field_and_changes_nothing(bad: ZoneNetwork, text: str) -> None:
    zone = zone_of(FRONT)
    with pytest.raises(ZoneError, match=text):
        zone.update([network("front"), bad], ["id-front"])
    assert values(zone, "10.1.0.3", "web") == ["10.1.0.2"]


def test_a_bad_search_domain_is_told() -> None:
    with pytest.raises(ZoneError, match="search: "):
        Zone(["a..b"])


def test_names_that_dns_cannot_carry_are_left_out_and_the_others_served() -> None:
    zone = zone_of(network("front", member("e1", f"{'x' * 64} a..b ok", "10.1.0.2")))
    assert values(zone, "10.1.0.3", "ok") == ["10.1.0.2"]
    assert find(zone, "10.1.0.3", "2.0.1.10.in-addr.arpa", "PTR") == Finding(Verdict.ANSWER, ())


def test_an_answer_has_a_bounded_number_of_records() -> None:
    crowd = [member(f"e{n}", "all", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(ANSWER_RECORDS + 1)]
    zone = zone_of(network("front", *crowd, subnets="10.1.0.0/16"))
    assert len(find(zone, "10.1.0.3", "all").records) == ANSWER_RECORDS
    zone.update([network("front", *crowd[:-1], subnets="10.1.0.0/16")])
    assert len(find(zone, "10.1.0.3", "all").records) == ANSWER_RECORDS


tiny_members = st.builds(
    ZoneMember,
    endpoint=st.sampled_from(["e1", "e2", "e3", "e4"]),
    sandbox=st.sampled_from(["", "s1", "s2"]),
    names=st.lists(st.sampled_from(["a", "b", "c", "a.n1"]), max_size=3).map(tuple),
    addresses=st.lists(st.sampled_from(["10.1.0.2", "10.1.0.3", "fd01::2"]), max_size=2).map(tuple),
)
tiny_networks = st.builds(
    ZoneNetwork,
    id=st.sampled_from(["n1", "n2"]),
    name=st.sampled_from(["n1", "n2"]),
    listen=st.just(()),
    subnets=st.sampled_from([("10.1.0.0/24",), ("10.1.0.0/24", "fd01::/64"), ()]),
    internal=st.booleans(),
    members=st.lists(tiny_members, max_size=4, unique_by=lambda each: each.endpoint).map(tuple),
)


@given(
    st.lists(
        st.tuples(st.lists(tiny_networks, max_size=2), st.sets(st.sampled_from(["n1", "n2"]))), max_size=5
    )
)
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_updates_equals_a_fresh_zone(steps: list[tuple[list[ZoneNetwork], set[str]]]) -> None:
    grown, latest = Zone(), dict[str, ZoneNetwork]()
    for changed, removed in steps:
        grown.update(changed, removed)
        for gone in removed:
            latest.pop(gone, None)
        latest.update({each.id: each for each in changed})
    fresh = Zone()
    fresh.update(latest.values())
    for arrival in ("n1", "n2"):
        for source in ("10.1.0.2", "10.1.0.3", "10.1.0.9", "fd01::2"):
            ours, theirs = grown.view((arrival,), source), fresh.view((arrival,), source)
            assert (ours is None) == (theirs is None)
            if ours is None or theirs is None:
                continue
            assert ours.forwards == theirs.forwards
            for name in (
                "a",
                "b",
                "c",
                "a.n1",
                "a.n2",
                "z.n1",
                "2.0.1.10.in-addr.arpa",
                "9.0.1.10.in-addr.arpa",
            ):
                wired = wire.wire_name(name)
                assert wired is not None
                mine, other = grown.find(ours, wired, 255), fresh.find(theirs, wired, 255)
                assert (mine.verdict, set(mine.records)) == (other.verdict, set(other.records))


@given(st.lists(st.tuples(st.ip_addresses(v=4), st.integers(8, 32)), max_size=6), st.ip_addresses(v=4))
@settings(max_examples=100, deadline=None)
def test_the_subnet_table_is_a_counted_set_of_prefixes(pairs: list, address: object) -> None:
    import ipaddress

    subnets = [ipaddress.ip_network((each, length), strict=False) for each, length in pairs]
    table = SubnetTable()
    for subnet in subnets:
        table.add(subnet)
    assert (address in table) == any(address in subnet for subnet in subnets)
    for subnet in subnets[1:]:
        table.discard(subnet)
    assert (address in table) == any(address in subnet for subnet in subnets[:1])

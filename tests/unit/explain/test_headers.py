"""Headers byte by byte, against scapy's."""

import warnings

import pytest

from sealane.explain import headers
from sealane.explain.packet import Packet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, IPv6
    from scapy.layers.l2 import ARP, Ether

MACS = {"mac_source": "02:00:00:00:00:01", "mac_destination": "02:00:00:00:00:02"}
ETHER = Ether(src=MACS["mac_source"], dst=MACS["mac_destination"])


def packet(**fields) -> Packet:
    return Packet(**{"source": "10.0.0.1", "destination": "10.0.0.2", **MACS, **fields})


def test_the_link_header_has_the_ethertype_of_what_follows() -> None:
    assert headers.link_header(packet()) == bytes(ETHER / IP())[:14]
    assert headers.link_header(packet(proto="arp")) == bytes(ETHER / ARP())[:14]
    six = packet(source="fd00::1", destination="fd00::2")
    assert headers.link_header(six) == bytes(ETHER / IPv6())[:14]


@pytest.mark.parametrize(("proto", "layer"), [("tcp", TCP), ("udp", UDP)])
def test_ports_stand_where_rules_look_for_them(proto: str, layer) -> None:
    ours = headers.transport_header(packet(proto=proto, source_port=40000, destination_port=53))
    assert ours[:4] == bytes(layer(sport=40000, dport=53))[:4]


def test_an_ipv4_header() -> None:
    made = headers.network_header(packet(proto="udp", size=100, ttl=7, dont_fragment=True))
    true = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=17, ttl=7, flags="DF", id=0, len=100, chksum=0))
    assert made == true


def test_an_ipv6_header() -> None:
    made = headers.network_header(packet(source="fd00::1", destination="fd00::2", size=60, ttl=9))
    assert made == bytes(IPv6(src="fd00::1", dst="fd00::2", nh=6, hlim=9, plen=20))


def test_arp_says_who_claims_what() -> None:
    made = headers.network_header(packet(proto="arp"))
    true = bytes(
        ARP(hwsrc=MACS["mac_source"], psrc="10.0.0.1", hwdst="00:00:00:00:00:00", pdst="10.0.0.2", op=1)
    )
    assert made == true
    claimed = headers.network_header(packet(proto="arp", sender_mac="02:00:00:00:00:09"))
    assert claimed[8:14] == bytes.fromhex("020000000009")


@pytest.mark.parametrize(("number", "layer"), [(135, ICMPv6ND_NS), (136, ICMPv6ND_NA)])
def test_neighbour_discovery_has_its_target_where_the_guard_looks(number: int, layer) -> None:
    six = packet(proto="icmp", source="fd00::1", destination="fd00::2", icmp_type=number, target="fd00::7")
    made, true = headers.transport_header(six), bytes(layer(tgt="fd00::7"))
    assert (made[0], made[8:24]) == (true[0], true[8:24])


def test_an_icmp_packet_is_an_echo_request_unless_it_says_otherwise() -> None:
    assert headers.transport_header(packet(proto="icmp"))[0] == bytes(ICMP())[0] == 8
    assert headers.transport_header(packet(proto="icmp", source="fd00::1", destination="fd00::2"))[0] == 128

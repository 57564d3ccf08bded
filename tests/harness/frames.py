"""Raw Ethernet frames, made by scapy in the test process and sent by an attacker's agent.

Every field that scapy would otherwise look up on this machine (source MAC, route, interface) is given, so building a
frame never touches the network. Frames are hex, as `agent.frames` takes them.
"""

import socket
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scapy imports deprecated parts of cryptography.
    from scapy.layers.dhcp import BOOTP, DHCP
    from scapy.layers.dhcp6 import DHCP6_Advertise
    from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_NOP  # noqa: F401  # For tests that make their own.
    from scapy.layers.inet6 import (
        ICMPv6EchoRequest,
        ICMPv6ND_NA,
        ICMPv6ND_NS,
        ICMPv6ND_RA,
        ICMPv6ND_Redirect,
        ICMPv6NDOptDstLLAddr,
        ICMPv6NDOptPrefixInfo,
        ICMPv6NDOptSrcLLAddr,
        IPv6,
    )
    from scapy.layers.l2 import ARP, Dot1Q, Ether
    from scapy.layers.sctp import SCTP, SCTPChunkInit
    from scapy.packet import Raw

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES_MAC, ALL_NODES = "33:33:00:00:00:01", "ff02::1"


def raw(packet: Any) -> str:
    return bytes(packet).hex()


def link_local(mac: str) -> str:
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    return f"fe80::{octets[0]:02x}{octets[1]:02x}:{octets[2]:02x}ff:fe{octets[3]:02x}:{octets[4]:02x}{octets[5]:02x}"


def ip(source: str, destination: str, **fields: Any) -> Any:
    return (
        IPv6(src=source, dst=destination, **fields)
        if ":" in source
        else IP(src=source, dst=destination, **fields)
    )


def udp(
    mac: str, to_mac: str, source: str, destination: str, port: int, payload: str, sport: int = 4000
) -> str:
    return raw(
        Ether(src=mac, dst=to_mac)
        / ip(source, destination)
        / UDP(sport=sport, dport=port)
        / Raw(payload.encode())
    )


def syn(mac: str, to_mac: str, source: str, destination: str, port: int, sport: int = 4000) -> str:
    segment = TCP(sport=sport, dport=port, flags="S", seq=7, options=[("MSS", 1460)])
    return raw(Ether(src=mac, dst=to_mac) / ip(source, destination) / segment)


def ping(mac: str, to_mac: str, source: str, destination: str, payload: str) -> str:
    echo = (
        ICMPv6EchoRequest(id=7, data=payload.encode())
        if ":" in source
        else ICMP(id=7) / Raw(payload.encode())
    )
    return raw(Ether(src=mac, dst=to_mac) / ip(source, destination) / echo)


def arp_reply(mac: str, to_mac: str, claimed: str, victim: str, *, sender_mac: str = "") -> Any:
    reply = ARP(op="is-at", hwsrc=sender_mac or mac, psrc=claimed, hwdst=to_mac, pdst=victim)
    return Ether(src=mac, dst=to_mac) / reply


def gratuitous(mac: str, claimed: str) -> str:
    return raw(
        Ether(src=mac, dst=BROADCAST)
        / ARP(op="is-at", hwsrc=mac, psrc=claimed, hwdst=BROADCAST, pdst=claimed)
    )


def tagged(packet: Any, vlan: int = 7) -> str:
    """The same frame under a VLAN tag."""
    return raw(
        Ether(src=packet.src, dst=packet.dst, type=0x8100)
        / Dot1Q(vlan=vlan, type=packet.type)
        / packet.payload
    )


def snap(packet: Any) -> str:
    """The same frame in 802.2 LLC/SNAP encapsulation (RFC 1042)."""
    body = b"\xaa\xaa\x03\x00\x00\x00" + packet.type.to_bytes(2, "big") + bytes(packet.payload)
    head = bytes.fromhex((packet.dst + packet.src).replace(":", ""))
    return (head + len(body).to_bytes(2, "big") + body).hex()


def advertisement(
    mac: str, claimed: str, to_mac: str = ALL_NODES_MAC, to: str = ALL_NODES, source: str = ""
) -> str:
    """Neighbour advertisement with the override flag."""
    body = ICMPv6ND_NA(tgt=claimed, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return raw(Ether(src=mac, dst=to_mac) / IPv6(src=source or claimed, dst=to, hlim=255) / body)


def duplicate_detection(mac: str, claimed: str) -> str:
    """Neighbour solicitation from ::, as a host sends that is about to take an address."""
    low = socket.inet_pton(socket.AF_INET6, claimed)[-3:]
    group = f"ff02::1:ff{low[0]:02x}:{low[1]:02x}{low[2]:02x}"
    to_mac = "33:33:ff:" + ":".join(f"{octet:02x}" for octet in low)
    return raw(Ether(src=mac, dst=to_mac) / IPv6(src="::", dst=group, hlim=255) / ICMPv6ND_NS(tgt=claimed))


def router_advertisement(mac: str, source: str = "", prefix: str = "2001:db8:bad::") -> str:
    body = (
        ICMPv6ND_RA(routerlifetime=1800, prf=1)
        / ICMPv6NDOptPrefixInfo(
            prefixlen=64, L=1, A=1, validlifetime=3600, preferredlifetime=1800, prefix=prefix
        )
        / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    )
    source = source or link_local(mac)
    return raw(Ether(src=mac, dst=ALL_NODES_MAC) / IPv6(src=source, dst=ALL_NODES, hlim=255) / body)


def redirect(mac: str, to_mac: str, router: str, victim: str, target: str, better: str) -> str:
    """`router` tells `victim` that `target` is better reached through `better`."""
    if ":" in target:
        body = ICMPv6ND_Redirect(tgt=better, dst=target) / ICMPv6NDOptDstLLAddr(lladdr=mac)
        return raw(Ether(src=mac, dst=to_mac) / IPv6(src=router, dst=victim, hlim=255) / body)
    # The kernel asks no socket about an echo request, so a redirect about one is believed without any.
    about = IP(src=victim, dst=target) / ICMP(type=8, id=1, seq=1)
    return raw(
        Ether(src=mac, dst=to_mac) / IP(src=router, dst=victim) / ICMP(type=5, code=1, gw=better) / about
    )


def router_advertisement4(mac: str, to_mac: str, source: str, victim: str) -> str:
    """RFC 1256: `I am a router`."""
    return raw(Ether(src=mac, dst=to_mac) / IP(src=source, dst=victim, ttl=1) / ICMP(type=9, code=0))


def source_routed(
    mac: str, to_mac: str, source: str, router: str, destination: str, port: int, payload: str
) -> str:
    """Loose source routing: addressed to `router`, which is asked to pass it on to `destination`."""
    head = IP(src=source, dst=router, options=[IPOption_LSRR(routers=[destination])])
    return raw(Ether(src=mac, dst=to_mac) / head / UDP(sport=4000, dport=port) / Raw(payload.encode()))


def sctp_init(mac: str, to_mac: str, source: str, destination: str, port: int) -> str:
    body = SCTP(sport=4000, dport=port, tag=0) / SCTPChunkInit(
        init_tag=7, a_rwnd=65535, n_out_streams=1, n_in_streams=1
    )
    head = (
        IPv6(src=source, dst=destination, nh=132)
        if ":" in source
        else IP(src=source, dst=destination, proto=132)
    )
    return raw(Ether(src=mac, dst=to_mac) / head / body)


def dhcp_offer(mac: str, victim_mac: str, source: str, offered: str) -> str:
    chaddr = bytes.fromhex(victim_mac.replace(":", "")) + bytes(10)
    options = [("message-type", "offer"), ("server_id", source), ("router", source), "end"]
    return raw(
        Ether(src=mac, dst=BROADCAST)
        / IP(src=source, dst="255.255.255.255")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, yiaddr=offered, siaddr=source, chaddr=chaddr)
        / DHCP(options=options)
    )


def dhcp6_advertise(mac: str, source: str = "") -> str:
    head = IPv6(src=source or link_local(mac), dst=ALL_NODES, hlim=255)
    return raw(Ether(src=mac, dst=ALL_NODES_MAC) / head / UDP(sport=547, dport=546) / DHCP6_Advertise(trid=7))


def control_frames(mac: str) -> dict[str, str]:
    """What switches and their neighbours say to each other (and no workload has any business to)."""
    source = bytes.fromhex(mac.replace(":", ""))

    def frame(destination: str, tail: str) -> str:
        return (
            (bytes.fromhex(destination.replace(":", "")) + source + bytes.fromhex(tail))
            .ljust(60, b"\0")
            .hex()
        )

    bridge_id = "0000" + mac.replace(":", "")
    config = f"0000000000{bridge_id}00000000{bridge_id}8001000014000200 0f00".replace(" ", "")
    rapid = f"00000202 3c{bridge_id}00000000{bridge_id}80010000140002000f0000".replace(" ", "")
    return {
        "STP": frame("01:80:c2:00:00:00", "0026424203" + config),
        "RSTP": frame("01:80:c2:00:00:00", "0027424203" + rapid),
        "PVST": frame("01:00:0c:cc:cc:cd", "0032aaaa0300000c010b" + config),
        "LACP": frame("01:80:c2:00:00:02", "88090101"),
        "EAPOL": frame("01:80:c2:00:00:03", "888e01010000"),
        "LLDP": frame("01:80:c2:00:00:0e", "88cc" + "0207040102030405060000"),
        "CDP": frame("01:00:0c:cc:cc:cc", "0020aaaa0300000c2000" + "02b40000"),
        "GVRP": frame("01:80:c2:00:00:21", "0020424203" + "0001"),
        "PTP": frame("01:1b:19:00:00:00", "88f7" + "0002"),
        "MPLS": frame(BROADCAST, "8847" + "00001140"),
        "VLAN": frame(BROADCAST, "81000007" + "88b5"),
        "QinQ": frame(BROADCAST, "88a8000781000008" + "88b5"),
        "experimental": frame(BROADCAST, "88b5"),
    }

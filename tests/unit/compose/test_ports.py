"""The port grammar shared by compose files and `--publish`."""

import pytest

from sealane.compose.ports import (
    PortRange,
    PortSpec,
    build_port_spec,
    parse_exposed,
    parse_port_spec,
    render_port_spec,
)
from sealane.compose.problems import BadValue


def spec(
    container: int | tuple[int, int],
    host: int | tuple[int, int] | None = None,
    *,
    ip: str | None = None,
    proto: str = "tcp",
) -> PortSpec:
    first, last = container if isinstance(container, tuple) else (container, container)
    low, high = host if isinstance(host, tuple) else (host, host)
    return PortSpec(
        host_ip=ip, host_first=low, host_last=high, container_first=first, container_last=last, proto=proto
    )


ACCEPTED = [
    ("80", spec(80)),
    ("1", spec(1)),
    ("65535", spec(65535)),
    ("3000-3005", spec((3000, 3005))),
    ("8080:80", spec(80, 8080)),
    ("0:80", spec(80)),
    ("127.0.0.1:0:80/udp", spec(80, ip="127.0.0.1", proto="udp")),
    ("9090-9091:8080-8081", spec((8080, 8081), (9090, 9091))),
    ("49100-49200:22", spec(22, (49100, 49200))),
    ("127.0.0.1:8001:8001", spec(8001, 8001, ip="127.0.0.1")),
    ("127.0.0.1:5000-5010:5000-5010", spec((5000, 5010), (5000, 5010), ip="127.0.0.1")),
    ("127.0.0.1::5000", spec(5000, ip="127.0.0.1")),
    ("6060:6060/udp", spec(6060, 6060, proto="udp")),
    ("53/UDP", spec(53, proto="udp")),
    ("7:7/sctp", spec(7, 7, proto="sctp")),
    ("[::1]:8080:80", spec(80, 8080, ip="::1")),
    ("[::]::80", spec(80, ip="::")),
    ("0.0.0.0:80:80", spec(80, 80, ip="0.0.0.0")),
    ("22:22", spec(22, 22)),
    ("1-4096:2-4097", spec((2, 4097), (1, 4096))),
    ("1-65535:80", spec(80, (1, 65535))),
    ("1-65535:1-65535", spec((1, 65535), (1, 65535))),
]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED, ids=[text for text, _ in ACCEPTED])
def test_a_specification_is_parsed_and_renders_to_what_parses_alike(text, expected):
    assert parse_port_spec(text) == expected
    assert parse_port_spec(render_port_spec(expected)) == expected


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("[2001:DB8:0:0::1]:80:80", "[2001:db8::1]:80:80"),
        ("[::ffff:10.0.0.1]:80:80", "10.0.0.1:80:80"),
        ("80-80:90-90/TCP", "80:90"),
    ],
)
def test_rendering_is_canonical(text, canonical):
    assert render_port_spec(parse_port_spec(text)) == canonical


GRAMMAR = "write [host_ip:][port[-end]:]port[-end][/tcp|udp|sctp]"
REFUSED = [
    ("", f"a port number is missing; {GRAMMAR}"),
    ("0", "port '0' begins with 0; write 1 to 65535; leave the host port out for any free one"),
    ("00:80", "port '00' begins with 0; write 1 to 65535; leave the host port out for any free one"),
    ("0-5:80", "port '0' begins with 0; write 1 to 65535; leave the host port out for any free one"),
    ("080:80", "port '080' begins with 0; write 1 to 65535; leave the host port out for any free one"),
    ("65536", "port '65536' is out of range; write 1 to 65535"),
    ("9" * 5000, "is out of range; write 1 to 65535"),
    ("http", f"'http' is not a port number; {GRAMMAR}"),
    ("٨٠", f"'\\u0668\\u0660' is not a port number; {GRAMMAR}"),
    ("1_0", f"'1_0' is not a port number; {GRAMMAR}"),
    ("+80", f"'+80' is not a port number; {GRAMMAR}"),
    (" 80", f"' 80' is not a port number; {GRAMMAR}"),
    ("80\n", f"'80\\n' is not a port number; {GRAMMAR}"),
    ("80-", f"a port number is missing; {GRAMMAR}"),
    ("80-79", "range 80-79 ends before it begins; write 79-80"),
    ("80:", f"a port number is missing; {GRAMMAR}"),
    (":80", "':80' has nothing before its colon; remove the colon for any free port"),
    (
        "8080:80-81",
        "1 host ports cannot serve 2 container ports; make both ranges equally long, or name one container port",
    ),
    (
        "1-3:1-2",
        "3 host ports cannot serve 2 container ports; make both ranges equally long, or name one container port",
    ),
    (
        "1-4097:2-4098",
        "4097 ports with other numbers outside than inside; use the same numbers, or at most 4096 ports",
    ),
    ("80/", "'' is not a protocol; write tcp, udp or sctp"),
    ("80/icmp", "'icmp' is not a protocol; write tcp, udp or sctp"),
    ("80/tcp/udp", "'tcp/udp' is not a protocol; write tcp, udp or sctp"),
    (
        "127.0.0.1:80",
        "'127.0.0.1:80' has an address but no place for a host port; write address::port for any free port",
    ),
    ("localhost:80:80", "'localhost' is not an IP address; write 127.0.0.1"),
    ("010.0.0.1:80:80", "'010.0.0.1' is not an IP address; write a numeric address; IPv6 in brackets"),
    ("::1:80:80", "'::1:80:80' has too many colons; put an IPv6 host address in brackets: [::1]:8080:80"),
    ("::80", "'' is not an IP address; write a numeric address; IPv6 in brackets"),
    ("[::1]:80", "'[::1]:80' has no port of the host's place; write [address]:port:port or [address]::port"),
    ("[::1", "'[::1' has '[' without ']:'; write [::1]:8080:80"),
    ("[::1]80:80", "'[::1]80:80' has '[' without ']:'; write [::1]:8080:80"),
    ("[127.0.0.1]:80:80", "'127.0.0.1' in brackets is not an IPv6 address; keep brackets for IPv6"),
    ("[fe80::1%eth0]:80:80", "'fe80::1%eth0' has a zone; write the address without %zone"),
    ("224.0.0.1:80:80", "'224.0.0.1' is a multicast address; write an address of this host"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[ascii(text[:20]) for text, _ in REFUSED])
def test_a_bad_specification_is_refused_with_what_to_write(text, message):
    with pytest.raises(BadValue) as caught:
        parse_port_spec(text)
    assert str(caught.value).endswith(message) if len(text) > 1000 else str(caught.value) == message


def test_a_long_text_does_not_make_a_long_message():
    with pytest.raises(BadValue) as caught:
        parse_port_spec("x" * 100_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "picks"), [("8000-8009:80", True), ("8000-8009:80-89", False), ("8000:80", False), ("80", False)]
)
def test_only_a_host_range_for_one_container_port_picks_one(text, picks):
    assert parse_port_spec(text).picks_one is picks


def test_the_long_form_takes_an_ipv6_address_without_brackets():
    built = build_port_spec(host_ip="::1", published="8080", target="80", proto="udp")
    assert built == parse_port_spec("[::1]:8080:80/udp")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3000", PortRange(first=3000, last=3000, proto="tcp")),
        ("8000-8010/udp", PortRange(first=8000, last=8010, proto="udp")),
    ],
)
def test_an_exposed_port_is_a_range_with_a_protocol(text, expected):
    assert parse_exposed(text) == expected


@pytest.mark.parametrize("text", ["80:80", "", "5-4", "80/", "http"])
def test_an_exposed_port_has_no_host_part(text):
    with pytest.raises(BadValue):
        parse_exposed(text)

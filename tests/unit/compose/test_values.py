"""Durations, sizes and the grammars of single values."""

import pytest

from sealane.compose import values
from sealane.compose.duration import parse_duration
from sealane.compose.mounts import parse_mode, parse_tmpfs
from sealane.compose.problems import BadValue
from sealane.compose.schema import RestartPolicy, Tmpfs
from sealane.compose.sizes import parse_cpus, parse_size
from sealane.compose.workload import parse_restart

ACCEPTED = [
    (parse_duration, "10s", 10.0),
    (parse_duration, "1h30m", 5400.0),
    (parse_duration, "1.5s", 1.5),
    (parse_duration, "500ms", 0.5),
    (parse_duration, "1m0.25s", 60.25),
    (parse_duration, "20us", 2e-05),
    (parse_duration, "100ns", 1e-07),
    (parse_duration, "0", 0.0),
    (parse_duration, "0s", 0.0),
    (parse_duration, "8784h", 366 * 24 * 3600.0),
    (parse_size, "1", 1),
    (parse_size, "300b", 300),
    (parse_size, "64k", 64 << 10),
    (parse_size, "64KB", 64 << 10),
    (parse_size, "512m", 512 << 20),
    (parse_size, "512MiB", 512 << 20),
    (parse_size, "1.5g", 3 << 29),
    (parse_size, "2 gb", 2 << 30),
    (parse_size, "4096p", 1 << 62),
    (parse_cpus, "0.5", 0.5),
    (parse_cpus, "2", 2.0),
    (parse_cpus, ".5", 0.5),
    (parse_mode, "1777", 0o1777),
    (parse_mode, "0755", 0o755),
    (parse_mode, "0o700", 0o700),
    (parse_restart, "no", RestartPolicy()),
    (parse_restart, "always", RestartPolicy(kind="always")),
    (parse_restart, "on-failure:3", RestartPolicy(kind="on-failure", maximum=3)),
    (parse_tmpfs, "/run", Tmpfs(target="/run")),
    (
        parse_tmpfs,
        "/run:size=64m,mode=1777,ro,nosuid,noexec",
        Tmpfs(target="/run", size_bytes=64 << 20, mode=0o1777, read_only=True, flags=("noexec", "nosuid")),
    ),
    (values.parse_name, "a" * 63, "a" * 63),
    (values.parse_name, "Web-1_x.y", "Web-1_x.y"),
    (values.parse_project_name, "my-app_2", "my-app_2"),
    (values.parse_dns_name, "db.example_1.org", "db.example_1.org"),
    (values.parse_dns_name, ".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
    (values.parse_hostname, "a." * 31 + "bc", "a." * 31 + "bc"),
    (values.parse_search_domain, ".", "."),
    (values.parse_dns_option, "ndots:2", "ndots:2"),
    (values.parse_dns_option, "use-vc", "use-vc"),
    (values.parse_interface_name, "eth0", "eth0"),
    (values.parse_address, "::FFFF:10.0.0.1", "10.0.0.1"),
    (values.parse_address, "2001:DB8::0:1", "2001:db8::1"),
    (values.parse_ipv4, "10.0.0.9", "10.0.0.9"),
    (values.parse_ipv6, "FD00::9", "fd00::9"),
    (values.parse_subnet, "10.0.0.0/8", "10.0.0.0/8"),
    (values.parse_subnet, "FD00:0::/64", "fd00::/64"),
    (values.parse_mac, "02-AA-00-00-00-01", "02:aa:00:00:00:01"),
    (values.parse_sysctl_name, "net.ipv4.ip_forward", "net.ipv4.ip_forward"),
    (values.parse_sysctl_value, "1024 65535", "1024 65535"),
    (values.parse_capability, "cap_net_admin", "NET_ADMIN"),
    (values.parse_capability, "ALL", "ALL"),
    (values.parse_signal, "SIGINT", 2),
    (values.parse_signal, "QUIT", 3),
    (values.parse_signal, "9", 9),
    (values.parse_signal, "SIGRTMIN+3", 37),
    (values.parse_user, "1000:1000", "1000:1000"),
    (values.parse_user, "_www", "_www"),
    (values.parse_environment_name, "a.b-C", "a.b-C"),
    (values.parse_key, "com.example key", "com.example key"),
    (values.parse_container_path, "//a/./b/", "/a/b"),
]


def case(row):
    return f"{row[0].__name__} {ascii(row[1][:30])}"


@pytest.mark.parametrize(("parser", "text", "expected"), ACCEPTED, ids=[case(row) for row in ACCEPTED])
def test_a_value_is_parsed_to_its_canonical_form(parser, text, expected):
    assert parser(text) == expected


REFUSED = [
    (
        values.parse_dns_name,
        ".".join(["a" * 63] * 3 + ["b" * 62]),
        "is not a host name; use letters, digits and - in parts of at most 63, joined by dots",
    ),
    (parse_duration, "10", "duration '10' has no unit; write 10s for seconds"),
    (parse_duration, "", "'' is not a duration; write it as 10s, 1m30s or 500ms"),
    (parse_duration, "-1s", "'-1s' is not a duration; write it as 10s, 1m30s or 500ms"),
    (parse_duration, "1d", "'1d' is not a duration; write it as 10s, 1m30s or 500ms"),
    (parse_duration, "1s\n", "'1s\\n' is not a duration; write it as 10s, 1m30s or 500ms"),
    (parse_duration, "١s", "'\\u0661s' is not a duration; write it as 10s, 1m30s or 500ms"),
    (parse_duration, "1s" * 40, "is not a duration; write it as 10s, 1m30s or 500ms"),
    (parse_duration, "8785h", "duration '8785h' is longer than a year; write a shorter one"),
    (parse_size, "0", "size '0' is out of range; write 1 byte to 4 EiB"),
    (parse_size, "0.5", "size '0.5' is out of range; write 1 byte to 4 EiB"),
    (parse_size, "4097p", "size '4097p' is out of range; write 1 byte to 4 EiB"),
    (parse_size, "-1", "'-1' is not a size; write it as 512m, 1.5g or a number of bytes"),
    (parse_size, "1e6", "'1e6' is not a size; write it as 512m, 1.5g or a number of bytes"),
    (parse_size, "1mm", "'1mm' is not a size; write it as 512m, 1.5g or a number of bytes"),
    (parse_size, "1\u212a", "'1\\u212a' is not a size; write it as 512m, 1.5g or a number of bytes"),
    (parse_cpus, ".", "'.' is not a number of CPUs; write it as 0.5 or 2"),
    (parse_cpus, "0", "'0' is not a number of CPUs; write it as 0.5 or 2"),
    (parse_cpus, "nan", "'nan' is not a number of CPUs; write it as 0.5 or 2"),
    (parse_cpus, "4096.5", "'4096.5' is not a number of CPUs; write it as 0.5 or 2"),
    (parse_mode, "888", "'888' is not a mode; write it in octal, as 1777"),
    (parse_mode, "17777", "'17777' is not a mode; write it in octal, as 1777"),
    (parse_mode, "", "'' is not a mode; write it in octal, as 1777"),
    (
        parse_restart,
        "never",
        "'never' is not a restart policy; write no, always, unless-stopped or on-failure[:TIMES]",
    ),
    (
        parse_restart,
        "always:3",
        "'always:3' is not a restart policy; write no, always, unless-stopped or on-failure[:TIMES]",
    ),
    (parse_restart, "on-failure:x", "'x' is not a whole number; write a number from 1 to 1000000"),
    (
        parse_tmpfs,
        "/run:uid=0",
        "tmpfs option 'uid=0' is not supported; use size=, mode=, ro, noexec, nosuid, nodev",
    ),
    (parse_tmpfs, "/", "a mount over /; mount on a directory below it; x-sealane.rootfs chooses the root"),
    (
        values.parse_name,
        "",
        "'' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit",
    ),
    (
        values.parse_name,
        "a" * 64,
        "is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit",
    ),
    (
        values.parse_name,
        "a\n",
        "'a\\n' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit",
    ),
    (
        values.parse_name,
        "../x",
        "'../x' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit",
    ),
    (
        values.parse_project_name,
        "App",
        "'App' is not a project name; use 1 to 63 of a-z 0-9 _ -, beginning with a letter or digit",
    ),
    (
        values.parse_dns_name,
        "a..b",
        "'a..b' is not a host name; use letters, digits and - in parts of at most 63, joined by dots",
    ),
    (
        values.parse_dns_name,
        "-a",
        "'-a' is not a host name; use letters, digits and - in parts of at most 63, joined by dots",
    ),
    (
        values.parse_dns_name,
        "a\nb",
        "'a\\nb' is not a host name; use letters, digits and - in parts of at most 63, joined by dots",
    ),
    (values.parse_hostname, "a." * 32 + "b", "is longer than 64; shorten it; sethostname(2) takes no more"),
    (
        values.parse_dns_option,
        "ndots:2\nnameserver 1.1.1.1",
        "is not an option of resolv.conf; write it as ndots:2 or use-vc",
    ),
    (
        values.parse_interface_name,
        "a" * 16,
        "is not a usable interface name; use 1 to 15 of A-Z a-z 0-9 _ . -, not lo",
    ),
    (
        values.parse_interface_name,
        "a/b",
        "'a/b' is not a usable interface name; use 1 to 15 of A-Z a-z 0-9 _ . -, not lo",
    ),
    (
        values.parse_interface_name,
        "..",
        "'..' is not a usable interface name; use 1 to 15 of A-Z a-z 0-9 _ . -, not lo",
    ),
    (
        values.parse_interface_name,
        "lo",
        "'lo' is not a usable interface name; use 1 to 15 of A-Z a-z 0-9 _ . -, not lo",
    ),
    (values.parse_address, "10.0.0", "'10.0.0' is not an IP address; write a numeric IPv4 or IPv6 address"),
    (values.parse_address, "fe80::1%eth0", "'fe80::1%eth0' has a zone; write the address without %zone"),
    (values.parse_unicast, "0.0.0.0", "'0.0.0.0' is not the address of one machine; write a unicast address"),
    (values.parse_unicast, "ff02::1", "'ff02::1' is not the address of one machine; write a unicast address"),
    (
        values.parse_unicast,
        "255.255.255.255",
        "'255.255.255.255' is not the address of one machine; write a unicast address",
    ),
    (values.parse_ipv4, "fd00::1", "'fd00::1' is not an IPv4 address; move it to ipv6_address"),
    (values.parse_ipv6, "10.0.0.1", "'10.0.0.1' is not an IPv6 address; move it to ipv4_address"),
    (
        values.parse_ipv6,
        "::ffff:10.0.0.1",
        "'::ffff:10.0.0.1' is not an IPv6 address; move it to ipv4_address",
    ),
    (
        values.parse_ipv4,
        "127.0.0.1",
        "'127.0.0.1' is a loopback address; write an address of the network's subnet",
    ),
    (
        values.parse_subnet,
        "10.0.0.0",
        "'10.0.0.0' is not an address and a prefix length; write it as 10.0.0.0/24 or fd00::/64",
    ),
    (
        values.parse_subnet,
        "10.0.0.0/255.0.0.0",
        "'10.0.0.0/255.0.0.0' is not an address and a prefix length; write it as 10.0.0.0/24 or fd00::/64",
    ),
    (
        values.parse_subnet,
        "10.0.0.0/33",
        "'10.0.0.0/33' is not a subnet; write it as 10.0.0.0/24 or fd00::/64",
    ),
    (values.parse_subnet, "10.0.0.1/24", "'10.0.0.1/24' has bits set after the prefix; write 10.0.0.0/24"),
    (
        values.parse_subnet,
        "0.0.0.0/0",
        "'0.0.0.0/0' cannot be a network's subnet; choose a private or global unicast prefix",
    ),
    (
        values.parse_subnet,
        "224.0.0.0/24",
        "'224.0.0.0/24' cannot be a network's subnet; choose a private or global unicast prefix",
    ),
    (
        values.parse_subnet,
        "fe80::/64",
        "'fe80::/64' cannot be a network's subnet; choose a private or global unicast prefix",
    ),
    (
        values.parse_subnet,
        "::ffff:10.0.0.0/120",
        "'::ffff:10.0.0.0/120' cannot be a network's subnet; choose a private or global unicast prefix",
    ),
    (
        values.parse_mac,
        "02:00:00:00:00",
        "'02:00:00:00:00' is not a MAC address; write it as 02:00:00:00:00:01",
    ),
    (
        values.parse_mac,
        "02:00-00:00:00:01",
        "'02:00-00:00:00:01' is not a MAC address; write it as 02:00:00:00:00:01",
    ),
    (
        values.parse_mac,
        "01:00:5e:00:00:01",
        "'01:00:5e:00:00:01' is not the MAC of one station; make its first byte even and it not zero",
    ),
    (
        values.parse_mac,
        "00:00:00:00:00:00",
        "'00:00:00:00:00:00' is not the MAC of one station; make its first byte even and it not zero",
    ),
    (
        values.parse_sysctl_name,
        "kernel.core_pattern",
        "sysctl 'kernel.core_pattern' is not of the network namespace; only net.* names joined by dots are",
    ),
    (
        values.parse_sysctl_name,
        "net.ipv4.x/../../../kernel/core_pattern",
        "is not of the network namespace; only net.* names joined by dots are",
    ),
    (
        values.parse_sysctl_name,
        "net..x",
        "sysctl 'net..x' is not of the network namespace; only net.* names joined by dots are",
    ),
    (
        values.parse_sysctl_value,
        "1\n2",
        "'1\\n2' is not a sysctl's value; use letters, digits, spaces and _ . , -",
    ),
    (
        values.parse_sysctl_value,
        "1+kernel.x=2",
        "'1+kernel.x=2' is not a sysctl's value; use letters, digits, spaces and _ . , -",
    ),
    (
        values.parse_capability,
        "NET_ADMN",
        "'NET_ADMN' is not a capability; write it as in capabilities(7), or ALL",
    ),
    (values.parse_signal, "SIGFOO", "'SIGFOO' is not a signal; write it as SIGTERM or 15"),
    (values.parse_signal, "0", "'0' is not a signal; write it as SIGTERM or 15"),
    (values.parse_signal, "65", "'65' is not a signal; write it as SIGTERM or 15"),
    (values.parse_signal, "SIGRTMIN+31", "'SIGRTMIN+31' is not a signal; write it as SIGTERM or 15"),
    (values.parse_user, "a:b:c", "'a:b:c' is not a user; write it as name, 1000, name:group or 1000:1000"),
    (values.parse_user, "-x", "'-x' is not a user; write it as name, 1000, name:group or 1000:1000"),
    (
        values.parse_environment_name,
        "A B",
        "'A B' is not a variable's name; use 1 to 256 characters without = and spaces",
    ),
    (values.parse_key, "a\x1b", "'a\\x1b' is not a key; use 1 to 256 printable characters"),
    (values.parse_container_path, "data", "'data' is not an absolute path; begin it with / and leave .. out"),
    (
        values.parse_container_path,
        "/a/../b",
        "'/a/../b' is not an absolute path; begin it with / and leave .. out",
    ),
]


@pytest.mark.parametrize(("parser", "text", "message"), REFUSED, ids=[case(row) for row in REFUSED])
def test_a_bad_value_is_refused_with_what_to_write(parser, text, message):
    with pytest.raises(BadValue) as caught:
        parser(text)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".", "/srv/app"),
        ("./d", "/srv/app/d"),
        ("../d", "/srv/d"),
        ("/d/", "/d"),
        ("~", "/home/u"),
        ("~/d", "/home/u/d"),
    ],
)
def test_a_host_path_starts_at_the_project_or_home(text, expected):
    assert values.parse_host_path(text, directory="/srv/app", home="/home/u") == expected


@pytest.mark.parametrize(
    ("text", "home"), [("~/d", None), ("~root/d", "/home/u"), ("", "/home/u"), ("x" * 5000, None)]
)
def test_a_host_path_that_cannot_be_known_is_refused(text, home):
    with pytest.raises(BadValue):
        values.parse_host_path(text, directory="/srv", home=home)

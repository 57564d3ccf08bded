"""Grammars of single values: names, addresses, paths, sysctls. Each takes a text and raises BadValue."""

import ipaddress
import posixpath
import re

from sealane.compose.problems import BadValue, shown
from sealane.model.ids import SYSCTL_VALUE
from sealane.model.signals import signal_number

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DNS_LABEL = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?")
_INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2})(?:\1[0-9a-fA-F]{2}){4}")
_DNS_OPTION = re.compile(r"[a-z0-9-]{1,32}(?::[0-9]{1,5})?")
_SYSCTL = re.compile(r"net(?:\.[a-zA-Z0-9_-]{1,64}){1,8}")
_USER = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,31}(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,31})?")
_ENV_NAME = re.compile(r"[^=\s\x00-\x1f\x7f]{1,256}")
_MAX_PATH = 4096

# fmt: off
CAPABILITIES = frozenset(
    {
        "ALL", "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE",
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL",
        "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE",
        "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN",
        "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO",
        "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "SYSLOG", "WAKE_ALARM",
    }
)
# fmt: on
"""linux/capability.h of 6.18 without CAP_, and ALL."""


def parse_name(text: str) -> str:
    """The name of a network, service or container."""
    if not _NAME.fullmatch(text):
        hint = "use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit"
        raise BadValue(f"{shown(text)} is not a name", hint)
    return text


def parse_project_name(text: str) -> str:
    if not _PROJECT.fullmatch(text):
        hint = "use 1 to 63 of a-z 0-9 _ -, beginning with a letter or digit"
        raise BadValue(f"{shown(text)} is not a project name", hint)
    return text


def parse_dns_name(text: str) -> str:
    """Labels of at most 63 and 253 in all (RFC 1035 2.3.4); underscores as in service names."""
    labels = text.split(".")
    if len(text) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in labels):
        raise BadValue(
            f"{shown(text)} is not a host name",
            "use letters, digits and - in parts of at most 63, joined by dots",
        )
    return text


def parse_hostname(text: str) -> str:
    # __NEW_UTS_LEN: the kernel holds 64 bytes.
    if len(text) > 64:
        raise BadValue(f"{shown(text)} is longer than 64", "shorten it; sethostname(2) takes no more")
    return parse_dns_name(text)


def parse_search_domain(text: str) -> str:
    return text if text == "." else parse_dns_name(text)


def parse_dns_option(text: str) -> str:
    if not _DNS_OPTION.fullmatch(text):
        raise BadValue(f"{shown(text)} is not an option of resolv.conf", "write it as ndots:2 or use-vc")
    return text


def parse_interface_name(text: str) -> str:
    """IFNAMSIZ is 16 with the NUL; `all` and `default` are taken by sysctl."""
    if not _INTERFACE.fullmatch(text) or text in {".", "..", "lo", "all", "default"}:
        raise BadValue(
            f"{shown(text)} is not a usable interface name", "use 1 to 15 of A-Z a-z 0-9 _ . -, not lo"
        )
    return text


def parse_address(text: str) -> str:
    """An address of either family in canonical form; ::ffff:1.2.3.4 becomes the IPv4 address that it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise BadValue(
            f"{shown(text)} is not an IP address", "write a numeric IPv4 or IPv6 address"
        ) from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise BadValue(f"{shown(text)} has a zone", "write the address without %zone")
        address = address.ipv4_mapped or address
    return str(address)


def parse_unicast(text: str) -> str:
    """An address that a container or server can have."""
    address = ipaddress.ip_address(parse_address(text))
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise BadValue(f"{shown(text)} is not the address of one machine", "write a unicast address")
    return str(address)


def parse_ipv4(text: str) -> str:
    return _of_family(text, 4)


def parse_ipv6(text: str) -> str:
    return _of_family(text, 6)


def _of_family(text: str, version: int) -> str:
    address = parse_unicast(text)
    if ipaddress.ip_address(address).version != version:
        raise BadValue(
            f"{shown(text)} is not an IPv{version} address", f"move it to ipv{10 - version}_address"
        )
    if ipaddress.ip_address(address).is_loopback:
        raise BadValue(f"{shown(text)} is a loopback address", "write an address of the network's subnet")
    return address


def parse_subnet(text: str) -> str:
    """A prefix in canonical form, with no host bits."""
    length = text.partition("/")[2]
    if not (length.isascii() and length.isdigit()) or "%" in text:
        raise BadValue(
            f"{shown(text)} is not an address and a prefix length", "write it as 10.0.0.0/24 or fd00::/64"
        )
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise BadValue(f"{shown(text)} is not a subnet", "write it as 10.0.0.0/24 or fd00::/64") from None
    network = interface.network
    if interface.ip != network.network_address:
        raise BadValue(f"{shown(text)} has bits set after the prefix", f"write {network}")
    first = network.network_address
    is_mapped = isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None
    if first.is_multicast or first.is_loopback or first.is_unspecified or first.is_link_local or is_mapped:
        raise BadValue(
            f"{shown(text)} cannot be a network's subnet", "choose a private or global unicast prefix"
        )
    return str(network)


def parse_mac(text: str) -> str:
    """Lower case with colons; unicast and not zero."""
    if not _MAC.fullmatch(text):
        raise BadValue(f"{shown(text)} is not a MAC address", "write it as 02:00:00:00:00:01")
    mac = text.replace("-", ":").lower()
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise BadValue(
            f"{shown(text)} is not the MAC of one station", "make its first byte even and it not zero"
        )
    return mac


def parse_sysctl_name(text: str) -> str:
    if not _SYSCTL.fullmatch(text):
        raise BadValue(
            f"sysctl {shown(text)} is not of the network namespace", "only net.* names joined by dots are"
        )
    return text


def parse_sysctl_value(text: str) -> str:
    if not SYSCTL_VALUE.fullmatch(text):
        raise BadValue(f"{shown(text)} is not a sysctl's value", "use letters, digits, spaces and _ . , -")
    return text


def parse_capability(text: str) -> str:
    """Upper case without CAP_."""
    name = text.upper().removeprefix("CAP_")
    if name not in CAPABILITIES:
        raise BadValue(f"{shown(text)} is not a capability", "write it as in capabilities(7), or ALL")
    return name


def parse_signal(text: str) -> int:
    number = signal_number(text)
    if number is None:
        raise BadValue(f"{shown(text)} is not a signal", "write it as SIGTERM or 15")
    return number


def parse_user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise BadValue(f"{shown(text)} is not a user", "write it as name, 1000, name:group or 1000:1000")
    return text


def parse_environment_name(text: str) -> str:
    if not _ENV_NAME.fullmatch(text):
        raise BadValue(
            f"{shown(text)} is not a variable's name", "use 1 to 256 characters without = and spaces"
        )
    return text


def parse_key(text: str) -> str:
    """The key of a label or option."""
    if not text or len(text) > 256 or not text.isprintable():
        raise BadValue(f"{shown(text)} is not a key", "use 1 to 256 printable characters")
    return text


def parse_container_path(text: str) -> str:
    """An absolute path inside the container, without `..`."""
    if not text.startswith("/") or ".." in text.split("/") or len(text) > _MAX_PATH:
        raise BadValue(f"{shown(text)} is not an absolute path", "begin it with / and leave .. out")
    # POSIX lets a path begin with two slashes and normpath keeps them.
    return posixpath.normpath("/" + text.lstrip("/"))


def parse_host_path(text: str, *, directory: str, home: str | None) -> str:
    """A path on the host: absolute, or under the project's directory (`.`), or the user's (`~`)."""
    if text.startswith("~"):
        if home is None or text[1:2] not in {"", "/"}:
            raise BadValue(f"{shown(text)} names no known home directory", "write the whole path")
        text = home + text[1:]
    if not text or len(text) > _MAX_PATH:
        raise BadValue(f"{shown(text)} is not a path", "write /path, ./path or ~/path")
    return posixpath.normpath(posixpath.join(directory, text))

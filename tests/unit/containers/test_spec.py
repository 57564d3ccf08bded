"""A ContainerSpec that could not be run as written is refused with the name of its field."""

import msgspec
import pytest

from sealane.containers.errors import SpecError
from sealane.containers.health import HealthCheck
from sealane.containers.spec import (
    MAX_HOSTS,
    MAX_MOUNTS,
    MAX_WORDS,
    Bind,
    ContainerSpec,
    Dns,
    Limits,
    Tmpfs,
    check_spec,
    is_id,
    parse_signal,
)


def spec(**changes: object) -> ContainerSpec:
    fields = {"id": "web1", "name": "web", "command": ("sleep", "1")} | changes
    return ContainerSpec(**fields)


def refused(**changes: object) -> SpecError:
    with pytest.raises(SpecError) as caught:
        check_spec(spec(**changes))
    return caught.value


def test_the_least_spec_is_accepted():
    check_spec(spec())


def test_a_full_spec_is_accepted():
    check_spec(
        spec(
            id="a" * 64,
            env={"A": "b=c", "EMPTY": ""},
            working_dir="/srv",
            user="nobody:nogroup",
            rootfs="/srv/root",
            mounts=(Bind(source="/srv", target="/data", read_only=True), Tmpfs(target="/tmp/x")),
            hostname="web-1.example",
            netns="/run/netns/x",
            hosts=("10.0.0.2 db db.local", "fd00::1 db6"),
            dns=Dns(nameservers=("127.0.0.11", "fd00::53"), search=("a.b",), options=("ndots:0",)),
            sysctls={"net.ipv4.ip_forward": "1"},
            cap_add=("NET_ADMIN", "cap_sys_time"),
            cap_drop=("ALL",),
            limits=Limits(memory_bytes=64 << 20, cpus=0.5, pids=10),
            restart="on-failure:5",
            stop_signal="QUIT",
            stop_timeout_s=0,
            labels={"a": "b"},
            health=HealthCheck(test=("CMD", "true")),
        )
    )


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("id", {"id": ""}),
        ("id", {"id": "../etc"}),
        ("id", {"id": ".hidden"}),
        ("id", {"id": "a" * 65}),
        ("id", {"id": "a\n"}),
        ("name", {"name": ""}),
        ("name", {"name": "x" * 129}),
        ("command", {"command": ()}),
        ("command", {"command": ("",)}),
        ("command", {"command": ("a\0b",)}),
        ("command", {"command": ("x",) * (MAX_WORDS + 1)}),
        ("command", {"command": ("x" * 128 * 1024,)}),
        ("env", {"env": {"": "x"}}),
        ("env", {"env": {"A=B": "x"}}),
        ("env.A", {"env": {"A": "\0"}}),
        ("working_dir", {"working_dir": "srv"}),
        ("working_dir", {"working_dir": "/srv/"}),
        ("working_dir", {"working_dir": "/srv/../etc"}),
        ("working_dir", {"working_dir": "//srv"}),
        ("rootfs", {"rootfs": "/"}),
        ("rootfs", {"rootfs": "relative"}),
        ("netns", {"netns": "x"}),
        ("mounts[0].target", {"mounts": (Tmpfs(target="/"),)}),
        ("mounts[0].target", {"mounts": (Tmpfs(target="/proc/sys"),)}),
        ("mounts[0].target", {"mounts": (Tmpfs(target="/sys"),)}),
        ("mounts[0].source", {"mounts": (Bind(source="x", target="/x"),)}),
        ("mounts[1].target", {"mounts": (Tmpfs(target="/x"), Bind(source="/y", target="/x"))}),
        ("mounts[0]", {"mounts": (Tmpfs(target="/x", size_bytes=1),)}),
        ("mounts[0]", {"mounts": (Tmpfs(target="/x", mode=0o7777),)}),
        ("mounts", {"mounts": tuple(Tmpfs(target=f"/x{n}") for n in range(MAX_MOUNTS + 1))}),
        ("hostname", {"hostname": "-x"}),
        ("hostname", {"hostname": "a" * 65}),
        ("hostname", {"hostname": "a b"}),
        ("hosts[0]", {"hosts": ("10.0.0.1",)}),
        ("hosts[1]", {"hosts": ("10.0.0.1 a", "10.0.0 b")}),
        ("hosts[0]", {"hosts": ("10.0.0.1 a\n10.0.0.2 b",)}),
        ("hosts", {"hosts": ("10.0.0.1 a",) * (MAX_HOSTS + 1)}),
        ("dns.nameservers[0]", {"dns": Dns(nameservers=("dns.example",))}),
        ("dns.nameservers", {"dns": Dns(nameservers=("::1",) * 17)}),
        ("dns.search", {"dns": Dns(search=("a b",))}),
        ("dns.options", {"dns": Dns(options=("a\nnameserver 1.1.1.1",))}),
        ("sysctls", {"sysctls": {"kernel.shmmax": "1"}, "netns": "/x"}),
        ("sysctls", {"sysctls": {"net.ipv4/../../kernel/x": "1"}, "netns": "/x"}),
        ("sysctls", {"sysctls": {"net.ipv4.ip_forward": "1"}}),
        ("cap_add", {"cap_add": ("NET_ADMINS",)}),
        ("cap_drop", {"cap_drop": ("",)}),
        ("limits.memory_bytes", {"limits": Limits(memory_bytes=(6 << 20) - 1)}),
        ("limits.cpus", {"limits": Limits(cpus=0.0)}),
        ("limits.cpus", {"limits": Limits(cpus=float("nan"))}),
        ("limits.pids", {"limits": Limits(pids=0)}),
        ("restart", {"restart": "sometimes"}),
        ("restart", {"restart": "always:3"}),
        ("restart", {"restart": "on-failure:-1"}),
        ("restart", {"restart": "on-failure:1000001"}),
        ("stop_signal", {"stop_signal": "SIGNOPE"}),
        ("stop_signal", {"stop_signal": "99"}),
        ("stop_timeout_s", {"stop_timeout_s": -1.0}),
        ("stop_timeout_s", {"stop_timeout_s": float("inf")}),
        ("labels", {"labels": {str(n): "" for n in range(513)}}),
        ("health.test", {"health": HealthCheck(test=())}),
    ],
)
def test_a_wrong_field_is_named(field, changes):
    assert refused(**changes).field == field
    assert str(refused(**changes)).startswith(f"{field}: ")


def test_bounds_are_inclusive():
    check_spec(spec(command=("x",) * MAX_WORDS))
    check_spec(spec(mounts=tuple(Tmpfs(target=f"/x{n}") for n in range(MAX_MOUNTS))))
    check_spec(spec(hosts=("10.0.0.1 a",) * MAX_HOSTS))
    check_spec(spec(limits=Limits(memory_bytes=6 << 20, cpus=0.01, pids=1)))


def test_the_host_root_is_refused_under_its_plain_name_with_advice():
    assert '"host"' in str(refused(rootfs="/"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", ("no", 0)),
        ("on-failure", ("on-failure", 0)),
        ("on-failure:7", ("on-failure", 7)),
        ("always", ("always", 0)),
    ],
)
def test_the_restart_policy_is_parsed(text, expected):
    assert spec(restart=text).restart_policy == expected


@pytest.mark.parametrize(("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN", 34)])
def test_signals_are_known_by_name_and_number(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "-9", "९", "SIG", "100"])
def test_what_is_no_signal_is_refused(text):
    with pytest.raises(SpecError, match="stop_signal"):
        parse_signal(text)


def test_the_hostname_defaults_to_the_short_id():
    assert spec(id="0123456789abcdef").effective_hostname == "0123456789ab"
    assert spec(hostname="web").effective_hostname == "web"


def test_a_spec_survives_json():
    before = spec(
        mounts=(Bind(source="/a", target="/b"), Tmpfs(target="/c")), health=HealthCheck(test=("NONE",))
    )
    assert msgspec.json.decode(msgspec.json.encode(before), type=ContainerSpec) == before


def test_an_unknown_field_is_refused():
    with pytest.raises(msgspec.ValidationError, match="privileged"):
        msgspec.json.decode(b'{"id":"a","name":"a","command":["x"],"privileged":true}', type=ContainerSpec)


@pytest.mark.parametrize(
    ("text", "answer"), [("a-b_c.9", True), ("a/b", False), ("", False), ("-a", False), ("é", False)]
)
def test_ids_are_safe_as_folder_names(text, answer):
    assert is_id(text) is answer

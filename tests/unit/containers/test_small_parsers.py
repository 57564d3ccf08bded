"""Users, capabilities, health checks and the seccomp profile: small pure parts."""

import pytest

from sealane.containers.capabilities import ALL, DEFAULT, effective_capabilities
from sealane.containers.errors import SpecError
from sealane.containers.health import HealthCheck, check_health
from sealane.containers.seccomp import seccomp_profile
from sealane.containers.users import User, is_mapped, parse_id_map, resolve_user

PASSWD = """root:x:0:0:root:/root:/bin/sh
web:x:33:34:web:/var/www:/bin/false
broken line
huge:x:99999999999:1:x:/:
"""
GROUP = "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\nssl:x:51:web\n"


@pytest.mark.parametrize(
    ("desired", "user"),
    [
        ("", User(0, 0, (), "/root")),
        ("0", User(0, 0, (), "/root")),
        ("web", User(33, 34, (50, 51), "/var/www")),
        ("33", User(33, 34, (50, 51), "/var/www")),
        ("web:logs", User(33, 50, (), "/var/www")),
        ("web:77", User(33, 77, (), "/var/www")),
        ("1234", User(1234, 0, (), "/")),
        ("1234:5678", User(1234, 5678, (), "/")),
    ],
)
def test_users_are_resolved_as_docker_does(desired, user):
    assert resolve_user(desired, PASSWD, GROUP) == user


@pytest.mark.parametrize("desired", ["nosuch", "web:nosuch", "huge", "-1", "99999999999", "٣", "0x0"])
def test_names_that_do_not_exist_are_refused(desired):
    with pytest.raises(SpecError, match="^user: "):
        resolve_user(desired, PASSWD, GROUP)


def test_numbers_work_without_account_files():
    assert resolve_user("5:6", "", "") == User(5, 6, (), "/")
    assert resolve_user("", "", "") == User(0, 0, (), "/")


def test_an_id_map_says_which_ids_exist():
    narrow = parse_id_map("         0      65534          1\n      1000     100000      10\n")
    assert [is_mapped(number, narrow) for number in (0, 1, 999, 1000, 1009, 1010)] == [
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    assert is_mapped(2**32 - 2, parse_id_map("0 0 4294967295"))


def test_defaults_are_dockers_fourteen():
    assert len(DEFAULT) == 14
    assert len(ALL) == 41
    assert set(effective_capabilities((), ())) == {f"CAP_{name}" for name in DEFAULT}


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (("NET_ADMIN",), (), {f"CAP_{name}" for name in DEFAULT | {"NET_ADMIN"}}),
        ((), ("CAP_MKNOD",), {f"CAP_{name}" for name in DEFAULT - {"MKNOD"}}),
        (("chown",), ("ALL",), {"CAP_CHOWN"}),
        ((), ("all",), set()),
        (("ALL",), ("SYS_ADMIN",), {f"CAP_{name}" for name in ALL - {"SYS_ADMIN"}}),
    ],
)
def test_capabilities_are_added_and_dropped(add, drop, expected):
    assert set(effective_capabilities(add, drop)) == expected


def test_an_unknown_capability_is_named():
    with pytest.raises(SpecError, match="cap_add: there is no capability 'NET_ADMINS'"):
        effective_capabilities(("NET_ADMINS",), ())


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (("CMD", "curl", "-f", "x"), ("curl", "-f", "x")),
        (("CMD-SHELL", "a && b"), ("/bin/sh", "-c", "a && b")),
        (("NONE",), ()),
    ],
)
def test_health_tests_become_commands(test, command):
    check = HealthCheck(test=test)
    check_health(check)
    assert check.command == command


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("test", {"test": ()}),
        ("test", {"test": ("curl", "x")}),
        ("test", {"test": ("CMD",)}),
        ("test", {"test": ("CMD-SHELL", "a", "b")}),
        ("test", {"test": ("NONE", "x")}),
        ("test", {"test": ("CMD", "a\0")}),
        ("test", {"test": ("CMD",) + ("x",) * 256}),
        ("interval_s", {"interval_s": 0.01}),
        ("interval_s", {"interval_s": float("nan")}),
        ("timeout_s", {"timeout_s": 0.0}),
        ("retries", {"retries": 0}),
        ("retries", {"retries": 1001}),
        ("start_period_s", {"start_period_s": -1.0}),
    ],
)
def test_a_wrong_health_check_is_named(field, changes):
    with pytest.raises(SpecError) as caught:
        check_health(HealthCheck(**({"test": ("CMD", "true")} | changes)))
    assert caught.value.field == f"health.{field}"


def denied(capabilities=()):
    rules = seccomp_profile(capabilities, "x86_64")["syscalls"]
    return {name for rule in rules if "args" not in rule for name in rule["names"]}


def test_dangerous_calls_are_denied():
    assert {
        "mount",
        "unshare",
        "setns",
        "bpf",
        "kexec_load",
        "init_module",
        "io_uring_setup",
        "clone3",
    } <= denied()
    assert not {"read", "clone", "execve", "socket", "ptrace"} & denied()


def test_a_capability_opens_its_calls():
    with_admin = denied(("CAP_SYS_ADMIN",))
    assert not {"mount", "unshare", "clone3"} & with_admin
    assert {"init_module", "keyctl"} <= with_admin


def test_clone_may_not_make_any_kind_of_namespace():
    rules = seccomp_profile((), "x86_64")["syscalls"]
    flags = [rule["args"][0]["value"] for rule in rules if rule["names"] == ["clone"]]
    assert sum(flags) == 0x7E020000
    assert all(bin(flag).count("1") == 1 for flag in flags)


def test_32_bit_calls_are_filtered_as_well():
    assert "SCMP_ARCH_X86" in seccomp_profile((), "x86_64")["architectures"]


def test_an_unknown_machine_gets_no_profile():
    assert seccomp_profile((), "riscv64") is None

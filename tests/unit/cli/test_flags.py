"""What the daemon refuses of a container, in the flags that were typed."""

import pytest

from sealane.cli.flags import FLAGS, OF_ATTACH, TMPFS, VOLUME, as_typed, in_flags
from sealane.cli.parser import build_parser
from sealane.client import ApiError
from sealane.containers.health import HealthCheck
from sealane.containers.spec import ContainerSpec, Dns, Limits
from sealane.daemon.requests import dns_of, hosts_of
from sealane.daemon.specs import FILLED_IN, runtime_spec
from sealane.dns.resolvconf import Resolver
from sealane.engine.errors import InvalidError, NotFoundError
from sealane.model.endpoint import NetnsRef
from sealane.model.intent import Intent

NO_FLAG = {"tty", "stdin_open", "sysctls", "read_only", "init", "labels"}
"""Either not the command line's to give, or of no value that could be wrong."""


@pytest.fixture
def checked(cli, api):
    """The daemon's double, with the daemon's own check of what it is sent."""
    plain = api.services.workloads.create

    async def create(request, *, is_new=False):
        dns, hosts = dns_of(request, [], Intent(), Resolver()), hosts_of(request, [], Intent())
        runtime_spec(
            request, "c" * 32, None, netns=NetnsRef(path="/run/netns/x", inode=1), dns=dns, hosts=hosts
        )
        return await plain(request, is_new=is_new)

    api.services.workloads.create = create
    return cli


@pytest.mark.parametrize(
    ("words", "flag", "what"),
    [
        (("--pids-limit", "-5"), "--pids-limit", "-5 is not within 1..4194304"),
        (("--cap-add", "FOO"), "--cap-add", "there is no capability 'FOO'"),
        (("--cap-drop", "FOO"), "--cap-drop", "there is no capability 'FOO'"),
        (("--restart", "sometimes"), "--restart", "'sometimes' is none of no, on-failure[:N], always"),
        (("-v", "/etc:/proc/x"), "--volume", "/proc/x belongs to the kernel's view"),
        (("-v", "/etc:/x", "--tmpfs", "/x"), "--tmpfs", "/x is mounted twice"),
        (("--tmpfs", "/x:size=1"), "--tmpfs", "a tmpfs has at least 4096 bytes"),
        (("--dns", "300.1.1.1"), "--dns", "'300.1.1.1' is not an IP address"),
        (("--dns-search", "a b"), "--dns-search", "'a b' is not one word"),
        (("--dns-option", "a b"), "--dns-option", "'a b' is not one word"),
        (("--add-host", "db:x"), "--add-host", "'x' is not an IP address"),
        (("--memory", "1k"), "--memory", "1024 is less than 6291456"),
        (("--cpus", "0.001"), "--cpus", "0.001 is not within"),
        (("--health-cmd", "x", "--health-interval", "1ms"), "--health-interval", "0.001 is not within"),
        (("--health-cmd", "x", "--health-timeout", "1ms"), "--health-timeout", "0.001 is not within"),
        (("--health-cmd", "x", "--health-start-period", "25h"), "--health-start-period", "90000.0 is not"),
        (("--health-cmd", "x", "--health-retries", "-1"), "--health-retries", "-1 is not within"),
        (("--stop-signal", "NOPE"), "--stop-signal", "there is no signal 'NOPE'"),
        (("--stop-timeout", "1000000"), "--stop-timeout", "1000000.0 is not within"),
        (("-w", "relative"), "--workdir", "'relative' is not an absolute path"),
        (("--hostname", "a b"), "--hostname", "'a b' is not 1 to 64 letters"),
        (("--name", "a b"), "--name", "'a b' is not 1 to 64 letters"),
    ],
)
def test_a_refusal_names_the_flag_and_the_hint_and_starts_nothing(checked, api, words, flag, what):
    ran = checked("run", "-d", *words, "true")
    assert (ran.code, ran.out, api.services.workloads.requests) == (125, "", {})
    error, field, hint = ran.err.splitlines()
    assert error.startswith(f"error: {flag}: {what}")
    assert field == f"field: {flag}"
    assert len(hint) > len("hint: ")
    assert "default" not in api.services.engine.nets


def typed(*words):
    line = ["run", *words, "true"]
    return build_parser(line).parse_args(line)


@pytest.mark.parametrize(
    ("field", "words", "flag"),
    [
        ("spec.user", ("-u", "nobody_such"), "--user"),
        ("spec.mounts[1].source", ("-v", "/a:/a", "-v", "/b:/b", "--tmpfs", "/c"), "--volume"),
        ("spec.mounts[2]", ("-v", "/a:/a", "-v", "/b:/b", "--tmpfs", "/c"), "--tmpfs"),
        ("addresses[0]", ("--ip", "x"), "--ip"),
        ("addresses[0]", ("--ip6", "x"), "--ip6"),
        ("addresses[0]", ("--network", "name=a,ip=x"), "--network"),
        ("mac", ("--mac-address", "x"), "--mac-address"),
        ("mac", ("--network", "name=a,mac-address=x"), "--network"),
        ("aliases[0]", ("--network-alias", "a b"), "--network-alias"),
        ("sysctls.kernel.panic", ("--sysctl", "kernel.panic=1"), "--sysctl"),
        ("network_mode", ("--network", "container:gone"), "--network"),
        ("dns_servers[0]", ("--dns", "x"), "--dns"),
        ("publish[0].host_first", ("-p", "80:80"), "--publish"),
        ("reference", ("--rootfs", "oci:/gone"), "--rootfs"),
        ("spec.command", (), "COMMAND"),
        ("name", ("--name", "web"), "--name"),
        ("of.another.kind", (), "of.another.kind"),
        ("speculation", (), "speculation"),
        ("", (), ""),
    ],
)
def test_a_field_is_the_flag_that_was_typed(field, words, flag):
    body = as_typed({"code": "invalid", "message": "no", "field": field, "hint": "do"}, typed(*words))
    assert body == {"code": "invalid", "message": "no", "field": flag, "hint": "do"}


def test_every_field_that_a_flag_sets_has_its_flag():
    fields = {f"spec.{name}" for name in set(ContainerSpec.__struct_fields__) - FILLED_IN - NO_FLAG}
    fields -= {"spec.limits", "spec.health"}
    for path, kind in (("limits", Limits), ("health", HealthCheck), ("dns", Dns)):
        fields |= {f"spec.{path}.{name}" for name in kind.__struct_fields__}
    assert fields <= set(FLAGS)


def test_every_flag_is_one_of_runs():
    assert {flag for flags, _ in [*FLAGS.values(), (VOLUME[:1], ""), (TMPFS[:1], "")] for flag in flags} <= {
        "COMMAND", *(name for name in _options(build_parser(["run"])))
    }  # fmt: skip


def _options(parser):
    (run,) = (action.choices["run"] for action in parser._actions if isinstance(action.choices, dict))
    return [name for action in run._actions for name in action.option_strings]


@pytest.mark.parametrize(
    ("words", "field", "flag"),
    [(("-u", "x"), "spec.user", "--user"), (("-w", "x"), "spec.working_dir", "--workdir"), ((), "spec.command", "COMMAND")],
)  # fmt: skip
def test_exec_names_its_flags_too(cli, api, words, field, flag):
    async def refuse(ref, request):
        raise InvalidError(f"{field.removeprefix('spec.')}: no", field=field)

    api.services.workloads.exec_session = refuse
    ran = cli("exec", *words, "web", "true")
    assert ran.err.startswith(f"error: {flag}: no\nfield: {flag}\nhint: ")


def test_a_default_network_that_was_there_stays_when_a_run_fails(cli, api):
    async def refuse(request, **_):
        raise NotFoundError("no", field="spec.command")

    cli("network", "create", "default")
    api.services.workloads.create = refuse
    assert cli("run", "nope").code == 127
    assert list(api.services.engine.nets) == ["default"]


def test_a_sandboxs_flags_are_named_too(cli):
    ran = cli("sandbox", "create", "-l", "sealane.container=x", "lab")
    assert ran.err.startswith("error: the label sealane.container is sealane's own")
    assert "\nfield: --label\n" in ran.err


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("trace", "nobody", "db:1"), "FROM"),
        (("trace", "--from", "nobody", "db:1"), "--from"),
        (("check", "nobody", "db"), "A"),
        (("doctor", "web", "nobody"), "SUBJECT"),
        (("rm", "nobody"), "CONTAINER"),
        (("inspect", "nobody"), "CONTAINER"),
        (("stop", "nobody"), "CONTAINER"),
        (("logs", "nobody"), "CONTAINER"),
        (("port", "nobody"), "CONTAINER"),
        (("exec", "nobody", "x"), "CONTAINER"),
        (("network", "rm", "nobody"), "NETWORK"),
        (("network", "inspect", "nobody"), "NETWORK"),
        (("sandbox", "rm", "nobody"), "SANDBOX"),
        (("endpoint", "ls", "--network", "nobody"), "--network"),
    ],
)
def test_an_error_names_the_word_that_was_typed(cli, words, field):
    ran = cli(*words)
    assert ran.code in {1, 2, 125}
    assert f"\nfield: {field}\n" in ran.err


def test_a_family_that_the_network_has_not_is_told_how_to_get_it():
    body = {"code": "invalid", "message": "::1 is IPv6", "field": "publish[0].host_address"}
    with pytest.raises(ApiError) as refusal, in_flags(OF_ATTACH):
        raise ApiError(400, body)
    for told in (refusal.value.body, as_typed(body, typed("-p", "[::1]:80:80"))):
        assert told["field"] == "--publish"
        assert told["hint"].startswith(
            "publish at an address of a family that the network has; `sealane network"
        )


def test_a_directory_that_is_not_there_is_no_program_that_is_not(cli, api):
    async def refuse(ref, request):
        raise NotFoundError(
            'chdir to cwd ("/nosuch") set in config.json failed: no such file', field="command"
        )

    api.services.workloads.exec_session = refuse
    ran = cli("exec", "-w", "/nosuch", "web", "true")
    assert ran.err.endswith("\nfield: --workdir\nhint: name a directory that the container has\n")
    assert ran.code == 127

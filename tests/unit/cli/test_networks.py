"""`network`, `endpoint`, `attach`, `detach` and `sandbox`: requests as Docker's users write them, and their output."""

import json

import pytest

from sealane.cli.flags import OF_ATTACH, in_flags
from sealane.client import ApiError


def made(cli, *words):
    """The request that reached the engine, as the double's view shows it."""
    return json.loads(cli("--json", "network", "create", *words).out)


@pytest.fixture
def requests(api, monkeypatch):
    """What the engine is asked for."""
    seen = []

    def keep(name):
        original = getattr(api.services.engine, name)

        def wrapped(request):
            seen.append(request)
            return original(request)

        monkeypatch.setattr(api.services.engine, name, wrapped)

    # The routes hold the bound methods already: the double is asked through its own dictionary instead.
    from sealane.api.routes import Routes

    for name in ("create_network", "attach", "create_sandbox"):
        keep(name)
    api.server.routes = Routes(api.services)
    return seen


def test_a_network_is_made_and_listed(cli):
    assert cli("network", "create", "front").out == "front  10.9.0.0/24\n"
    cli("network", "create", "--internal", "vault")
    assert cli("network", "ls").out == (
        "NAME    DRIVER   SUBNETS       LINK   MTU    ENDPOINTS   FLAGS\n"
        "front   bridge   10.9.0.0/24   sl-0   1500   0\n"
        "vault   bridge   10.9.1.0/24   sl-1   1500   0           internal, no-masquerade\n"
    )
    assert cli("network", "ls", "-q").out == "front\nvault\n"
    assert [n["name"] for n in json.loads(cli("network", "ls", "--json").out)] == ["front", "vault"]


def test_dockers_flags_become_one_request(cli, requests):
    ran = cli(
        "network", "create", "--driver", "routed", "--ipv6", "--internal",
        "--subnet", "10.1.0.0/16", "--subnet", "fd00:1::/64",
        "--gateway", "10.1.0.254", "--gateway", "fd00:1::fe", "--ip-range", "10.1.5.0/24",
        "--aux-address", "printer=10.1.0.9", "--aux-address", "scanner=10.1.0.10",
        "-o", "mtu=1400", "--opt", "com.docker.network.bridge.enable_icc=false",
        "--label", "tier=front", "-l", "flag", "net",
    )  # fmt: skip
    assert ran.code == 0
    (request,) = requests
    four, six = request.subnets
    assert (four.prefix, four.gateway, four.ip_range) == ("10.1.0.0/16", "10.1.0.254", "10.1.5.0/24")
    assert four.reserved == {"printer": "10.1.0.9", "scanner": "10.1.0.10"}
    assert (six.prefix, six.gateway, six.ip_range) == ("fd00:1::/64", "fd00:1::fe", "")
    assert request.options == {"mtu": "1400", "com.docker.network.bridge.enable_icc": "false"}
    assert request.labels == {"tier": "front", "flag": ""}
    assert (request.driver, request.ipv4, request.ipv6, request.internal) == ("routed", True, True, True)


@pytest.mark.parametrize(
    ("words", "families"),
    [
        ((), (True, False)),
        (("--ipv6",), (True, True)),
        (("--ipv6=true",), (True, True)),
        (("--ipv6=false",), (True, False)),
        (("--ipv6", "--ipv4=false"), (False, True)),
        (("--ipv4=true",), (True, False)),
    ],
)
def test_families_are_switched_as_docker_does_and_never_swallow_the_name(cli, requests, words, families):
    assert cli("network", "create", *words, "net").code == 0
    assert (requests[0].name, requests[0].ipv4, requests[0].ipv6) == ("net", *families)


@pytest.mark.parametrize(
    ("words", "field", "hint"),
    [
        (("--gateway", "10.1.0.1"), "--gateway", "give the --subnet that it lies in"),
        (("--subnet", "10.1.0.0/33"), "--subnet", "write 10.1.0.0/24"),
        (("--subnet", "10.1.0.5/24"), "--subnet", "write 10.1.0.0/24"),
        (("--subnet", "10.1.0.0/24", "--gateway", "10.2.0.1"), "--gateway", "subnets are 10.1.0.0/24"),
        (("--subnet", "10.1.0.0/24", "--gateway", "x"), "--gateway", "an address"),
        (("--subnet", "10.1.0.0/24", "--aux-address", "=10.1.0.1"), "--aux-address", "write KEY=VALUE"),
        (
            ("--subnet", "10.1.0.0/24", "--gateway", "10.1.0.1", "--gateway", "10.1.0.2"),
            "--gateway",
            "keep one",
        ),
        (("-o", "a=1", "-o", "a=2"), "--opt", "keep one"),
        (("--label", "=x"), "--label", "write KEY=VALUE"),
    ],
)
def test_a_flag_that_is_wrong_is_named_before_the_daemon_is_asked(cli, requests, words, field, hint):
    ran = cli("network", "create", *words, "net")
    assert (ran.code, requests) == (2, [])
    assert f"field: {field}\n" in ran.err
    assert hint in ran.err


def test_several_networks_are_removed_and_one_failure_does_not_stop_the_rest(cli):
    for name in ("a", "b"):
        cli("network", "create", name)
    ran = cli("network", "rm", "a", "gone", "b")
    assert (ran.code, ran.out) == (1, "a\nb\n")
    assert ran.err.startswith("error: there is no network 'gone'\n")
    assert json.loads(cli("network", "ls", "--json").out) == []


def test_what_is_removed_is_one_document_and_what_is_not_an_error_each(cli):
    for name in ("a", "b"):
        cli("network", "create", name)
        cli("run", "-d", "--name", name, "true")
    for words in (("network", "rm"), ("rm", "-f")):
        ran = cli("--json", *words, "a", "gone", "b", "lost")
        assert ran.code == 1
        assert [view["name"] for view in json.loads(ran.out)] == ["a", "b"]
        errors = [json.loads(line) for line in ran.err.splitlines()]
        assert [error["code"] for error in errors] == ["not_found", "not_found"]
        assert "'gone'" in errors[0]["message"]


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_inspect_shows_what_is_there_and_names_what_is_not(cli, flags):
    cli("network", "create", "a")
    cli("attach", "web", "a")
    cli("sandbox", "create", "a")
    for kind, ref in (("network", "a"), ("endpoint", "web/a"), ("sandbox", "a")):
        ran = cli(*flags, kind, "inspect", "gone", ref)
        assert (ran.code, len(json.loads(ran.out))) == (1, 1)
        assert "there is no" in ran.err


def test_a_network_in_use_needs_force(cli):
    cli("network", "create", "n")
    cli("attach", "web", "n")
    ran = cli("network", "rm", "n")
    assert (ran.code, "hint: detach them first, or `--force`" in ran.err) == (1, True)
    assert cli("network", "rm", "-f", "n").code == 0


def test_prune_prints_what_is_gone(cli):
    cli("network", "create", "a")
    assert cli("network", "prune").out == "a\n"
    assert json.loads(cli("network", "prune", "--json").out) == {"removed": []}


def test_inspect_is_always_a_list(cli):
    cli("network", "create", "a")
    cli("attach", "web", "a")
    cli("sandbox", "create", "box")
    assert json.loads(cli("network", "inspect", "a").out)[0]["name"] == "a"
    assert json.loads(cli("endpoint", "inspect", "web/a").out)[0]["sandbox"] == "web"
    assert json.loads(cli("sandbox", "inspect", "box").out)[0]["owner"] == "sealane"
    assert cli("endpoint", "inspect", "none").code == 1


def test_attach_passes_everything_on(cli, requests):
    cli("network", "create", "n")
    ran = cli(
        "attach", "/run/netns/lab", "n", "--name", "db", "--ip", "10.9.0.7", "--ip", "fd00::7",
        "--mac", "02:00:00:00:00:07", "--ifname", "back0", "--alias", "sql", "--alias", "pg",
        "--publish", "127.0.0.1:5432:5432", "-p", "8000-8009:80", "-p", "53/udp", "-p", "9000-9001:90-91",
        "--gw-priority", "-5", "--sysctl", "net.ipv4.conf.IFNAME.rp_filter=1", "--label", "a=b",
    )  # fmt: skip
    assert ran.code == 0
    request = requests[-1]
    assert request.sandbox == "/run/netns/lab"
    assert request.addresses == ["10.9.0.7", "fd00::7"]
    assert (request.mac, request.ifname, request.aliases) == ("02:00:00:00:00:07", "back0", ["sql", "pg"])
    assert (request.gateway_priority, request.labels) == (-5, {"a": "b"})
    assert request.sysctls == {"net.ipv4.conf.IFNAME.rp_filter": "1"}
    shape = [
        (p.proto, p.host_address, p.host_first, p.host_last, p.port, p.count, p.one_of)
        for p in request.publish
    ]
    assert shape == [
        ("tcp", "127.0.0.1", 5432, 5432, 5432, 1, False),
        ("tcp", "", 8000, 8009, 80, 1, True),
        ("udp", "", 0, 0, 53, 1, False),
        ("tcp", "", 9000, 9001, 90, 2, False),
    ]


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("10mbit", 10_000_000), ("1gbit", 1_000_000_000), ("500kbit", 500_000), ("64000", 64_000), ("64000bit", 64_000),
        ("1.5Gbit", 1_500_000_000), ("2Mibit", 2 << 20), ("0.1mbit", 100_000), ("1tbit", 10**12),
    ],
)  # fmt: skip
def test_attach_takes_rates_as_tc_does(cli, requests, text, bits):
    cli("network", "create", "n")
    assert cli("attach", "web", "n", "--ingress", text).code == 0
    assert (requests[-1].ingress.rate, requests[-1].ingress.burst, requests[-1].egress) == (bits, 0, None)
    assert cli("attach", "db", "n", "--egress", text).code == 0
    assert (requests[-1].ingress, requests[-1].egress.rate) == (None, bits)


@pytest.mark.parametrize(
    "text", ["fast", "10mbps", "10m", "10ibit", "-1", "1.mbit", "١mbit", "1e9", "", "10 mbit"]
)
def test_a_rate_that_is_none_says_how_to_write_one(cli, requests, text):
    ran = cli("attach", "web", "n", f"--ingress={text}")
    assert (ran.code, requests) == (2, [])
    assert (
        f"error: {text!r} is no rate: write 10mbit, 1.5gbit, 500kbit or bits per second\nfield: --ingress\n"
        in ran.err
    )


def test_attach_prints_link_addresses_and_ports(cli):
    cli("network", "create", "n")
    assert cli("attach", "web", "n", "-p", "8080:80").out == "eth0  10.9.0.2/24  *:8080->80/tcp\n"


def test_a_port_that_is_wrong_is_2_and_one_that_is_taken_is_1(cli):
    cli("network", "create", "n")
    ran = cli("attach", "web", "n", "-p", "99999:80")
    assert (ran.code, "field: --publish" in ran.err, "hint: write 1 to 65535" in ran.err) == (2, True, True)
    ran = cli("attach", "web", "n", "-p", "80:80")
    assert ran.code == 1
    assert (
        ran.err
        == "error: port 80/tcp is published by endpoint web\nfield: --publish\nhint: publish on a network, a port that is free\n"
    )


def test_endpoints_are_listed(cli):
    cli("network", "create", "n")
    cli("attach", "web", "n", "-p", "8080:80")
    assert cli("endpoint", "ls").out == (
        "ID             NAME   NETWORK   SANDBOX   LINK   ADDRESSES     MAC                 PORTS            STATE\n"
        "000000000000   web    n         web       eth0   10.9.0.2/24   02:42:0a:09:00:02   *:8080->80/tcp   up\n"
    )
    assert cli("endpoint", "ls", "--network", "n", "--sandbox", "db", "-q").out == ""
    assert cli("endpoint", "ls", "-q").out == f"{4096:032x}\n"
    assert cli("endpoint", "ls", "--network", "none").code == 1


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("web", "n"), [("", "web", "n")]),
        (("web", "n", "m"), [("", "web", "n"), ("", "web", "m")]),
        (("web", "--all"), [("", "web", "")]),
        (("--endpoint", "x", "--endpoint", "y"), [("x", "", ""), ("y", "", "")]),
    ],
)
def test_detach_says_what_and_the_daemon_finds_it(cli, api, monkeypatch, words, asked):
    seen = []
    monkeypatch.setattr(
        api.services.engine.builder, "detach", lambda requests: seen.extend(requests) or ([], [])
    )
    assert cli("detach", *words).code == 0
    assert [(r.endpoint, r.sandbox, r.network) for r in seen] == asked


def test_detach_prints_the_ids_that_are_gone(cli):
    cli("network", "create", "n")
    cli("attach", "web", "n")
    assert cli("detach", "web", "n").out == f"{4096:032x}\n"


def test_what_was_not_attached_is_no_error_but_said(cli):
    for name in ("a", "b"):
        cli("network", "create", name)
    cli("attach", "web", "a")
    assert cli("detach", "wbe", "a") == (0, "", "wbe/a was not attached: nothing has changed\n")
    assert cli("detach", "wbe", "--all").err == "wbe was not attached: nothing has changed\n"
    assert (
        cli("detach", "--endpoint", "x", "wbe", "a").err
        == "x, wbe/a were not attached: nothing has changed\n"
    )
    assert cli("detach", "web", "a", "b") == (0, f"{4096:032x}\n", "of web/a, web/b only 1 was attached\n")
    assert json.loads(cli("--json", "detach", "web", "a").out) == {"detached": []}
    cli("attach", "web", "a")
    assert cli("detach", "web", "--all").err == ""


@pytest.mark.parametrize("words", [(), ("web",), ("web", "n", "--all"), ("--all",)])
def test_detach_never_guesses(cli, api, words):
    ran = cli("detach", *words)
    assert (ran.code, api.services.engine.detach_calls) == (2, [])
    assert "hint: give SANDBOX and NETWORKs" in ran.err


def test_sandboxes_are_made_listed_and_removed(cli, requests):
    assert cli("sandbox", "create", "lab", "-l", "a=b").out == "/run/sealane/netns/lab\n"
    cli("sandbox", "create", "--netns", "/run/netns/vm7", "vm7")
    assert [r.netns for r in requests] == ["", "/run/netns/vm7"]
    assert cli("sandbox", "ls").out == (
        "NAME   OWNER     ENDPOINTS   NETNS\n"
        "lab    sealane   0           /run/sealane/netns/lab\n"
        "vm7    foreign   0           /run/netns/vm7\n"
    )
    assert cli("sandbox", "rm", "lab", "vm7").out == "lab\nvm7\n"
    assert cli("sandbox", "ls", "-q").out == ""


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("network", "create", "--subnet", "10.8.0.0/24", "--aux-address", "10.8.0.4", "x"), "--aux-address"),
        (("network", "create", "--subnet", "10.8.0.0/99", "x"), "--subnet"),
        (("network", "create", "a/b"), "NAME"),
    ],
)
def test_a_refusal_names_the_flag(cli, words, field) -> None:
    ran = cli(*words)
    assert ran.code in (1, 2)
    assert f"field: {field}\n" in ran.err
    assert "hint: " in ran.err


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("addresses[0]", "--ip"),
        ("sysctls.net.x", "--sysctl"),
        ("ingress.rate", "--ingress"),
        ("egress.burst", "--egress"),
        ("publish[1].port", "--publish"),
        ("network", "NETWORK"),
        ("unheard.of", "unheard.of"),
    ],
)
def test_attach_tells_refusals_in_its_flags(field, flag) -> None:
    with pytest.raises(ApiError) as refusal, in_flags(OF_ATTACH):
        raise ApiError(409, {"code": "conflict", "message": "no", "field": field})
    assert refusal.value.field == flag


@pytest.mark.parametrize("verb", [("run", "true"), ("exec", "web", "true")])
def test_without_a_daemon_a_command_in_a_container_ends_as_dockers(cli, api, tmp_path, verb) -> None:
    """Its own code may be 3."""
    ran = cli("--socket", str(tmp_path / "none.sock"), *verb)
    assert ran.code == 125
    assert cli("--socket", str(tmp_path / "none.sock"), "ps").code == 3

"""`sealane wait` and `sealane port`, as Docker's."""

import json
import threading

import msgspec
import pytest


@pytest.fixture
def workloads(cli, api):
    for name in ("web", "db"):
        assert cli("run", "-d", "--name", name, "--network", "none", "sleep").code == 0
    return api.services.workloads


def test_wait_prints_the_exit_codes_of_all_in_their_order(cli, api, workloads):
    api.call(workloads.finish, "db", 7)
    ended = threading.Timer(0.1, lambda: api.call(workloads.finish, "web", 0))
    ended.start()
    assert cli("wait", "web", "db") == (0, "0\n7\n", "")
    ended.join()
    assert [view["exit_code"] for view in json.loads(cli("--json", "wait", "db", "web").out)] == [7, 0]


def test_wait_goes_on_after_one_that_is_not_there_and_says_so(cli, api, workloads):
    api.call(workloads.finish, "db", 7)
    ran = cli("wait", "gone", "db")
    assert (ran.code, ran.out) == (1, "7\n")
    assert ran.err.startswith("error: there is no container 'gone'\nfield: CONTAINER\n")


def test_a_code_that_nobody_knows_is_that_of_a_failure(cli, api, workloads):
    api.call(workloads.finish, "db", None)
    assert cli("wait", "db").out == "125\n"


def publish(api, workloads, addresses, *ports):
    """As the daemon shows a container that publishes them."""

    def change():
        workloads.all["web"] = msgspec.structs.replace(workloads.all["web"], ports=list(ports))
        api.services.engine.ends["web/n"] = msgspec.structs.replace(
            api.services.engine.ends["web/n"], addresses=list(addresses), ports=list(ports)
        )

    api.call(change)


@pytest.fixture
def web(cli, api, workloads):
    cli("network", "create", "n")
    cli("attach", "web", "n")
    return lambda *given: publish(api, workloads, *given)


def test_port_lists_what_is_published(cli, web):
    web(["10.1.0.2/24"], "*:8080->80/tcp", "127.0.0.1:53->5353/udp")
    assert cli("port", "web") == (0, "80/tcp -> 0.0.0.0:8080\n5353/udp -> 127.0.0.1:53\n", "")
    assert json.loads(cli("port", "web", "--json").out)[0] == {
        "port": 80, "proto": "tcp", "host_address": "0.0.0.0", "host_port": 8080,
    }  # fmt: skip


def test_port_has_a_line_for_each_family_and_each_port_of_a_range(cli, web):
    web(["10.1.0.2/24", "fd00::2/64"], "*:8080->80/tcp", "[fd00:9::1]:9000-9001->90-91/sctp")
    assert cli("port", "web").out == (
        "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n90/sctp -> [fd00:9::1]:9000\n91/sctp -> [fd00:9::1]:9001\n"
    )
    web(["fd00::2/64"], "*:8080->80/tcp")
    assert cli("port", "web").out == "80/tcp -> [::]:8080\n"


def test_port_of_one_port_says_where_that_is(cli, web):
    web(["10.1.0.2/24"], "*:8080->80/tcp", "*:8081->80/tcp", "*:53->80/udp")
    assert cli("port", "web", "80").out == "0.0.0.0:8080\n0.0.0.0:8081\n"
    assert cli("port", "web", "80/udp").out == "0.0.0.0:53\n"
    ran = cli("port", "web", "81/tcp")
    assert ran.err == (
        "error: container web does not publish 81/tcp\nfield: PORT\nhint: it publishes 80/tcp, 80/udp\n"
    )
    assert (ran.code, ran.out) == (1, "")
    assert json.loads(cli("--json", "port", "web", "81").err)["code"] == "not_found"


def test_port_of_what_publishes_nothing_is_empty(cli, workloads):
    assert cli("port", "web") == (0, "", "")
    assert "hint: it publishes nothing" in cli("port", "web", "80").err


@pytest.mark.parametrize("text", ["http", "80/icmp", "٨٠", "123456", ""])
def test_a_port_that_is_none_is_a_wrong_command_line(cli, workloads, text):
    ran = cli("port", "web", text)
    assert (ran.code, f"error: {text!r} is no port: write 80 or 53/udp\n" in ran.err) == (2, True)

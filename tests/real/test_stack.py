"""Debian's nginx, redis and PostgreSQL talking across sealane networks: the stack of examples/real, from outside.

Each is a container of its own; who asks is `ext`, another machine on the host's LAN, or a process in a container.
"""

import glob
import json
import os
import shutil
import signal
import threading
import time

import pytest

from harness.audit import audit, settle
from harness.foreign import changes, foreign
from harness.host import ROOT, Host
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

FILE = os.path.join(ROOT, "examples", "real", "compose.yaml")
PORT = 8080
SERVICES = ("nginx", "app", "db", "cache")
HOST_NUMBER = 14
HEAL_S = 3.0
PROBE = os.path.join(ROOT, "examples", "shop", "app", "probe.py")
PSQL = sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))

PAGE = """
import http.client
connection = http.client.HTTPConnection({address!r}, {port}, timeout=100)
connection.request({method!r}, {path!r}, {form!r}, {{"Content-Type": "application/x-www-form-urlencoded"}})
answer = connection.getresponse()
result = [answer.status, answer.read().decode(), answer.getheader("Server", ""), connection.sock.getsockname()[0]]
"""


def missing():
    programs = ("nginx", "redis-server", "redis-cli", "pg_isready")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [name for name in programs if not shutil.which(name, path=path)]
    if not any(shutil.which(name, path=path) for name in ("runc", "crun")):
        absent.append("runc")
    if not PSQL:
        absent.append("postgresql")
    with open("/proc/self/uid_map") as file:
        users = sum(int(line.split()[2]) for line in file)
    if users < 1 << 16:
        absent.append("users other than root, which PostgreSQL needs")
    return absent


if missing():
    pytest.skip(f"not on this machine: {', '.join(missing())}", allow_module_level=True)


class Stack:
    """The running project, seen from around it."""

    def __init__(self, host):
        self.host = host
        self.address = host.address(4)

    def up(self):
        self.host.sealane("up", "-d", "-f", FILE)
        endpoints = json.loads(self.host.sealane("endpoint", "ls", "--json").stdout)
        self.at = {}
        for endpoint in endpoints:
            service, network = endpoint["name"].split("-")[1], endpoint["network"].removeprefix("real_")
            self.at.setdefault(service, {})[network] = endpoint["addresses"][0].partition("/")[0]
        containers = json.loads(self.host.sealane("ps", "--json").stdout)
        self.pids = {each["name"].split("-")[1]: each["pid"] for each in containers}
        return self

    def page(self, form=None, ns=None, address="", port=PORT, path="/"):
        """(status, text, server, own address) as seen from outside, or from another namespace."""
        source = PAGE.format(
            address=address or self.address,
            port=port,
            method="GET" if form is None else "POST",
            path=path,
            form=form or "",
        )
        return (ns or self.host.lan.ext).python(source)

    def read(self, **where):
        status, text, _, _ = self.page(**where)
        assert status == 200, text
        return json.loads(text)

    def exec(self, service, *command, text=""):
        options = ("-i",) if text else ()
        return self.host.sealane("exec", *options, f"real-{service}-1", *command, check=False, text=text)

    def reaches(self, service, *targets):
        """Which of HOST:PORT accept a connection from a process in that container."""
        with open(PROBE) as file:
            words = self.exec(service, "python3", "-", *targets, text=file.read()).stdout.split()
        assert len(words) == len(targets)
        return {target for target, word in zip(targets, words) if word == "yes"}

    @property
    def stores(self):
        return {f"{self.at['db']['data']}:5432", f"{self.at['cache']['cache']}:6379"}


@pytest.fixture(scope="module")
def stack(lan):
    """One for most tests; at the end it goes, and all of it."""
    with Host(lan, number=HOST_NUMBER).start() as host:
        before = foreign(host.ns)
        running = Stack(host).up()
        yield running
        host.sealane("down", "-f", FILE)
        assert audit(host) == []
        assert changes(before, foreign(host.ns)) == []


# --- it works -------------------------------------------------------------------------------------------------------


def test_a_row_written_from_outside_through_nginx_is_in_postgresql(stack):
    text = "It's \"quoted\" :'x'; DROP TABLE entry"
    status, body, server, _ = stack.page("name=Ada&text=It%27s+%22quoted%22+%3A%27x%27%3B+DROP+TABLE+entry")
    assert (status, json.loads(body)) == (201, {"written": "Ada"})
    assert server.startswith("nginx/")
    assert stack.read()["entries"][-1]["text"] == text
    # PostgreSQL itself says so too, asked by its own client in its own container.
    asked = stack.exec(
        "db", "sh", "-c", f"PGPASSWORD=$PASSWORD {PSQL[-1]} -h 127.0.0.1 -U guestbook -Atc 'TABLE entry'"
    )
    assert text in asked.stdout, asked.stderr


def test_every_visit_is_counted_in_redis(stack):
    first = stack.read()["visits"]
    assert stack.read()["visits"] == first + 1
    assert stack.exec("cache", "redis-cli", "get", "visits").stdout.strip() == str(first + 1)


def test_nginx_sees_the_visitors_own_address(stack):
    _, body, _, own = stack.page()
    assert json.loads(body)["visitor"] == own == "192.0.2.200"
    logs = eventually(
        lambda: stack.host.sealane("logs", "real-nginx-1").stdout, what="nginx has written its log"
    )
    assert f"{own} - - " in logs


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.24"])
def test_the_host_itself_reads_the_page(stack, address):
    assert stack.read(ns=stack.host.ns, address=address)["database"]


def test_a_container_reads_the_page_through_the_published_port(stack):
    program = f"import urllib.request; print(urllib.request.urlopen('http://{stack.address}:{PORT}/').status)"
    assert stack.exec("app", "python3", "-c", program).stdout.strip() == "200"


def test_each_service_is_found_by_name_where_it_is_a_neighbour(stack):
    meant = {"nginx": {"app"}, "app": {"nginx", "db", "cache"}, "db": {"app"}, "cache": {"app"}}
    for asker in SERVICES:
        heard = {}
        for name in SERVICES:
            lines = stack.exec(asker, "getent", "ahostsv4", name).stdout.splitlines()
            heard[name] = {line.split()[0] for line in lines}
        for name in SERVICES:
            shared = stack.at[name].keys() & stack.at[asker].keys()
            assert heard[name] == {stack.at[name][network] for network in shared}, (asker, name)
            assert bool(heard[name]) == (name in meant[asker] | {asker}), (asker, name)


# --- and only so ----------------------------------------------------------------------------------------------------


def test_only_the_application_reaches_the_stores(stack):
    assert stack.reaches("app", *stack.stores) == stack.stores
    assert stack.reaches("nginx", *stack.stores) == set()
    database, cache = sorted(stack.stores, key=lambda target: target.endswith("6379"))
    assert stack.reaches("cache", database, cache) == {cache}
    assert stack.reaches("db", database, cache) == {database}


def test_a_neighbour_with_a_route_gets_in_by_the_published_port_only(stack):
    ext = stack.host.lan.ext
    inside = [(address, port) for service, port in (("nginx", 80), ("app", 8000), ("db", 5432), ("cache", 6379))
              for address in stack.at[service].values()]  # fmt: skip
    ext.ip("route", "add", "10.0.0.0/8", "via", stack.address)
    try:
        for address, port in inside:
            assert ext.probe("tcp", address, port, timeout=0.3).keys() == {"error"}, (address, port)
        assert stack.page()[0] == 200
    finally:
        ext.ip("route", "del", "10.0.0.0/8")


@pytest.mark.parametrize("service", ["db", "cache"])
def test_a_member_of_an_internal_network_has_no_way_out(stack, service):
    lan = stack.host.lan
    server = lan.ext.listen("tcp", "192.0.2.200", 0)
    try:
        target = f"192.0.2.200:{server.port}"
        assert stack.reaches("nginx", target) == {target}
        assert stack.reaches(service, target, f"{stack.address}:{PORT}") == set()
    finally:
        server.close()


def test_a_plain_process_talks_to_what_its_networks_have_and_no_longer_when_it_leaves(stack):
    database, cache = stack.at["db"]["data"], stack.at["cache"]["cache"]
    with stack.host.workload("real_cache", "guest") as guest:
        assert guest.ns.sh("redis-cli", "-h", cache, "ping").strip() == "PONG"
        ready = ("pg_isready", "-h", database, "-t", "1")
        assert guest.ns.run(*ready).returncode != 0
        guest.attach("real_data")
        assert guest.ns.run(*ready).returncode == 0
        assert guest.ns.sh("redis-cli", "-h", cache, "ping").strip() == "PONG"
        guest.detach("real_data")
        assert guest.ns.run(*ready).returncode != 0
        assert guest.ns.sh("redis-cli", "-h", cache, "ping").strip() == "PONG"


# --- and stays so ---------------------------------------------------------------------------------------------------


class Readers:
    """Three who read pages from outside all the time, for some seconds, and keep what did not go well.

    They live in the agent of `ext`, which answers nothing else meanwhile.
    """

    SOURCE = """
import http.client, sys, threading, time
good, bad, end = [0], [], threading.Event()
def read():
    while not end.is_set():
        try:
            connection = http.client.HTTPConnection({address!r}, {port}, timeout=100)
            connection.request("GET", "/")
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            if answer.status == 200:
                good[0] += 1
            else:
                bad.append("HTTP %d: %s" % (answer.status, text))
        except Exception as error:
            bad.append(repr(error))
        time.sleep(0.01)
threads = [threading.Thread(target=read) for _ in range(3)]
for thread in threads:
    thread.start()
time.sleep({seconds})
end.set()
for thread in threads:
    thread.join()
result = [good[0], bad]
"""

    def __init__(self, stack, seconds):
        self.result = None
        source = self.SOURCE.format(address=stack.address, port=PORT, seconds=seconds)
        ext = stack.host.lan.ext
        self._thread = threading.Thread(target=lambda: setattr(self, "result", ext.python(source)))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()


def test_no_request_fails_while_the_daemon_is_killed_and_started_again(stack):
    with Readers(stack, 4.0) as readers:
        for _ in range(2):
            time.sleep(0.3)
            stack.host.kill9()
            time.sleep(0.3)
            stack.host.start()
            # The kernel is as it was left: a daemon that finds nothing to do writes nothing.
            assert stack.host.api.status()["writes"] == 0
    good, bad = readers.result
    assert bad == []
    assert good > 20
    assert audit(stack.host) == []


def test_open_connections_live_on_without_the_daemon(stack):
    cache = stack.at["cache"]["cache"]
    with stack.host.workload("real_cache", "holder") as holder:
        ask = "held.sendall(b'PING\\r\\n'); result = held.recv(100).decode()"
        hold = f"import builtins, socket; builtins.held = socket.create_connection(({cache!r}, 6379)); {ask}"
        assert holder.ns.python(hold) == "+PONG\r\n"
        stack.host.kill9()
        try:
            assert holder.ns.python(ask) == "+PONG\r\n"
        finally:
            stack.host.start()
        assert holder.ns.python(ask) == "+PONG\r\n"


def test_a_flushed_ruleset_is_back_and_pages_come_again(stack):
    stack.host.ns.sh("nft", "flush", "ruleset")
    settle(stack.host, HEAL_S)
    assert stack.page()[0] == 200
    assert stack.reaches("nginx", *stack.stores) == set()


def test_stores_keep_their_contents_when_the_front_is_made_anew(stack):
    stack.page("name=Bo&text=still+here")
    stack.host.sealane("stop", "real-nginx-1")
    assert "answer" not in stack.host.lan.ext.probe("tcp", stack.address, PORT, timeout=0.3)
    stack.up()
    assert stack.read()["entries"][-1]["text"] == "still here"


# --- and goes -------------------------------------------------------------------------------------------------------


def test_down_leaves_nothing(host):
    """The fixture's audit and its comparison of foreign objects come after."""
    stack = Stack(host).up()
    assert stack.page()[0] == 200
    assert all(is_running(pid) for pid in stack.pids.values())
    assert all(leftovers(host))
    host.sealane("down", "-f", FILE)
    for verb in (("ps", "-a"), ("network", "ls"), ("endpoint", "ls"), ("sandbox", "ls")):
        assert json.loads(host.sealane(*verb, "--json").stdout) == []
    assert host.ns.json("nft", "list", "tables")["nftables"][1:] == []
    assert [link["ifname"] for link in host.ns.json("ip", "link", "show")] == ["lo", "eth0"]
    assert [pid for pid in stack.pids.values() if is_running(pid)] == []
    assert leftovers(host) == ("", "")


def leftovers(host):
    """Mounts that keep namespaces, and folders of containers."""
    mounts = host.ns.sh("cat", "/proc/self/mounts").splitlines()
    folders = host.ns.sh("find", "/run/sealane", "-path", "*containers/containers/*")
    return "\n".join(line for line in mounts if line.startswith("nsfs ")), folders


def test_down_after_the_daemon_was_killed_leaves_nothing_either(host):
    stack = Stack(host).up()
    os.kill(stack.pids["cache"], signal.SIGKILL)
    host.kill9()
    host.start()
    host.sealane("down", "-f", FILE)
    assert [pid for pid in stack.pids.values() if is_running(pid)] == []


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False

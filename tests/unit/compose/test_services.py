"""The `services` section: what a service becomes, and every problem one can have."""

import msgspec
import pytest

from sealane.compose.parse import parse_project
from sealane.compose.ports import PortRange, parse_port_spec
from sealane.compose.problems import ComposeError
from sealane.compose.schema import (
    Attachment,
    Bind,
    Healthcheck,
    Limits,
    RestartPolicy,
    Service,
    Tmpfs,
)

ENVIRON = {"HOME": "/home/u", "FROM_OUTSIDE": "out"}
FILES = {
    "/srv/web.env": "A=file\nB=file\nFROM_OUTSIDE=file\n",
    "/srv/bad.env": "A=1\n?",
    "/srv/open.env": "A=$NONE",
}


def read_file(path: str) -> str:
    if path == "/srv/secret.env":
        raise PermissionError(13, "Permission denied")
    if path == "/srv/binary.env":
        raise ValueError("longer than 1048576 bytes")
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[path]


def parse(text: str):
    return parse_project(text, name="p", environ=ENVIRON, directory="/srv", read_file=read_file)


def service_text(body: str) -> str:
    return f"networks: {{n: , m: }}\nservices:\n  s: {{command: c, {body}}}\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ComposeError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def changed(**fields: object) -> Service:
    base = Service(name="s", command=("c",), attachments=(Attachment(network="default"),))
    return msgspec.structs.replace(base, **fields)


def on(**fields: object) -> Service:
    return changed(attachments=(Attachment(network="n", **fields),))


ACCEPTED = [
    ("", changed()),
    ("x-any: {a: b}", changed()),
    ("entrypoint: [a, 'b c']", changed(entrypoint=("a", "b c"))),
    ("entrypoint: sh -c 'a \"b c\"'", changed(entrypoint=("sh", "-c", 'a "b c"'))),
    ("entrypoint: []", changed(entrypoint=())),
    (
        "environment: {A: 1, B: , FROM_OUTSIDE: , C: ''}",
        changed(environment=(("A", "1"), ("FROM_OUTSIDE", "out"), ("C", ""))),
    ),
    (
        "environment: [A=1, B, FROM_OUTSIDE, C=, A=2, D=x=y]",
        changed(environment=(("A", "2"), ("FROM_OUTSIDE", "out"), ("C", ""), ("D", "x=y"))),
    ),
    ("env_file: web.env", changed(environment=(("A", "file"), ("B", "file"), ("FROM_OUTSIDE", "file")))),
    (
        "env_file: [./web.env, {path: none.env, required: false}], environment: {B: own, FROM_OUTSIDE: }",
        changed(environment=(("A", "file"), ("B", "own"), ("FROM_OUTSIDE", "out"))),
    ),
    ("networks: [m, n]", changed(attachments=(Attachment(network="m"), Attachment(network="n")))),
    ("networks: {n: , m: {}}", changed(attachments=(Attachment(network="n"), Attachment(network="m")))),
    (
        "networks: {n: {aliases: [a, b.c], priority: -1, gw_priority: 10}}",
        on(aliases=("a", "b.c"), priority=-1, gw_priority=10),
    ),
    (
        "networks: {n: {ipv4_address: 10.0.0.9, ipv6_address: 'FD00::9'}}",
        on(ipv4_address="10.0.0.9", ipv6_address="fd00::9"),
    ),
    (
        "networks: {n: {mac_address: '02:AA:00:00:00:01', interface_name: lan0}}",
        on(mac_address="02:aa:00:00:00:01", interface_name="lan0"),
    ),
    (
        "networks: {n: {driver_opts: {com.docker.network.endpoint.ifname: e1, own: x}}}",
        on(driver_opts=(("com.docker.network.endpoint.ifname", "e1"), ("own", "x"))),
    ),
    ("networks: [n], mac_address: '02:00:00:00:00:01'", on(mac_address="02:00:00:00:00:01")),
    (
        "mac_address: '02:00:00:00:00:01'",
        changed(attachments=(Attachment(network="default", mac_address="02:00:00:00:00:01"),)),
    ),
    ("networks: []", changed()),
    ("network_mode: host", changed(attachments=(), network_mode="host")),
    ("userns_mode: host", changed(userns_mode="host")),
    ("userns_mode: private", changed(userns_mode="private")),
    ("network_mode: none", changed(attachments=(), network_mode="none")),
    (
        "network_mode: 'container:other'",
        changed(attachments=(), network_mode="container", network_mode_target="other"),
    ),
    (
        "ports: [80, 22:22, '8000-8009:80/udp']",
        changed(ports=tuple(map(parse_port_spec, ["80", "22:22", "8000-8009:80/udp"]))),
    ),
    (
        "ports: [{target: 80, published: '8080', host_ip: '::1', protocol: udp, mode: ingress, name: web, app_protocol: h3}]",
        changed(ports=(parse_port_spec("[::1]:8080:80/udp"),)),
    ),
    ("ports: [{target: 80, published: 8000-8009}]", changed(ports=(parse_port_spec("8000-8009:80"),))),
    ("ports: [{target: 80, host_ip: '[::1]'}]", changed(ports=(parse_port_spec("[::1]::80"),))),
    (
        "expose: [3000, '8000-8001/udp']",
        changed(
            expose=(
                PortRange(first=3000, last=3000, proto="tcp"),
                PortRange(first=8000, last=8001, proto="udp"),
            )
        ),
    ),
    (
        "dns: 9.9.9.9, dns_search: a.b, dns_opt: ['ndots:2']",
        changed(dns=("9.9.9.9",), dns_search=("a.b",), dns_options=("ndots:2",)),
    ),
    (
        "dns: [9.9.9.9, 'fd00::35'], dns_search: [., a]",
        changed(dns=("9.9.9.9", "fd00::35"), dns_search=(".", "a")),
    ),
    (
        "extra_hosts: ['a:10.0.0.1', 'b=fd00::1', 'c:::1', 'd=[::1]', 'h:host-gateway']",
        changed(
            extra_hosts=(
                ("a", "10.0.0.1"),
                ("b", "fd00::1"),
                ("c", "::1"),
                ("d", "::1"),
                ("h", "host-gateway"),
            )
        ),
    ),
    (
        "extra_hosts: {a: 10.0.0.1, b: [10.0.0.2, 'fd00::2']}",
        changed(extra_hosts=(("a", "10.0.0.1"), ("b", "10.0.0.2"), ("b", "fd00::2"))),
    ),
    ("sysctls: {net.core.somaxconn: 1024}", changed(sysctls=(("net.core.somaxconn", "1024"),))),
    ("sysctls: [net.ipv4.tcp_syncookies=0]", changed(sysctls=(("net.ipv4.tcp_syncookies", "0"),))),
    (
        "cap_add: [NET_ADMIN, cap_sys_time], cap_drop: [all]",
        changed(cap_add=("NET_ADMIN", "SYS_TIME"), cap_drop=("ALL",)),
    ),
    (
        "healthcheck: {test: [CMD, curl, x], interval: 1m30s, timeout: 5s, retries: 5, start_period: 0s}",
        changed(
            healthcheck=Healthcheck(test=("CMD", "curl", "x"), interval_s=90.0, timeout_s=5.0, retries=5)
        ),
    ),
    (
        "healthcheck: {test: curl x || exit 1}",
        changed(healthcheck=Healthcheck(test=("CMD-SHELL", "curl x || exit 1"))),
    ),
    ("healthcheck: {test: [NONE]}", changed()),
    ("healthcheck: {disable: true}", changed()),
    (
        "deploy: {replicas: 3, resources: {limits: {cpus: '0.5', memory: 64m, pids: 100}}}",
        changed(replicas=3, limits=Limits(cpus=0.5, memory_bytes=64 << 20, pids=100)),
    ),
    (
        "scale: 0, cpus: 2, mem_limit: 1g, pids_limit: -1",
        changed(replicas=0, limits=Limits(cpus=2.0, memory_bytes=1 << 30)),
    ),
    (
        "scale: 2, mem_limit: 1024m, deploy: {replicas: 2, resources: {limits: {memory: 1g}}}",
        changed(replicas=2, limits=Limits(memory_bytes=1 << 30)),
    ),
    ("restart: no", changed()),
    ("restart: 'on-failure:3'", changed(restart=RestartPolicy(kind="on-failure", maximum=3))),
    (
        "hostname: web, domainname: a.b, container_name: c1",
        changed(hostname="web", domainname="a.b", container_name="c1"),
    ),
    (
        "user: 1000, working_dir: /w/, read_only: true, init: true",
        changed(user="1000", working_dir="/w", read_only=True, init=True),
    ),
    ("stop_signal: SIGINT, stop_grace_period: 1m", changed(stop_signal=2, stop_grace_period_s=60.0)),
    ("tty: false, stdin_open: false, privileged: false", changed()),
    ("tty: true, stdin_open: true", changed(tty=True, stdin_open=True)),
    ("labels: {a: 1}", changed(labels=(("a", "1"),))),
    (
        "volumes: [./d:/data:ro, '~:/h', /etc:/e:rw]",
        changed(
            binds=(
                Bind(source="/srv/d", target="/data", read_only=True),
                Bind(source="/home/u", target="/h"),
                Bind(source="/etc", target="/e"),
            )
        ),
    ),
    (
        "volumes: [{type: bind, source: ../d, target: /d, read_only: true, bind: {create_host_path: false}}, {type: tmpfs, target: /t, tmpfs: {size: 64m, mode: 0700}}]",
        changed(
            binds=(Bind(source="/d", target="/d", read_only=True, create_source=False),),
            tmpfs=(Tmpfs(target="/t", size_bytes=64 << 20, mode=0o700),),
        ),
    ),
    ("tmpfs: /run", changed(tmpfs=(Tmpfs(target="/run"),))),
    (
        "tmpfs: ['/run:size=1m', /tmp]",
        changed(tmpfs=(Tmpfs(target="/run", size_bytes=1 << 20), Tmpfs(target="/tmp"))),
    ),
    ("image: host", changed()),
    ("image: 'rootfs:./root'", changed(rootfs="/srv/root")),
    ("image: 'oci:./web:v1'", changed(rootfs="oci:/srv/web:v1")),
    ("image: 'oci-archive:../web.tar'", changed(rootfs="oci-archive:/web.tar")),
    ("x-sealane: {rootfs: /images/web}", changed(rootfs="/images/web")),
    ("x-sealane: {rootfs: host}, image: host", changed()),
    ("networks: , ports: , environment: , healthcheck: , deploy: ", changed()),
]


@pytest.mark.parametrize(("body", "expected"), ACCEPTED, ids=[body[:50] for body, _ in ACCEPTED])
def test_a_service_becomes_a_record(body, expected):
    (service,) = parse(service_text(body)).services
    assert service == expected


def test_an_image_has_a_command_of_its_own():
    (service,) = parse("name: p\nservices:\n  s: {image: 'oci:/srv/web'}\n").services
    assert (service.command, service.entrypoint) == (None, None)


def test_booleans_of_yaml_1_1_stay_texts_with_a_warning():
    project = parse(service_text("environment: {A: yes, B: 'no', C: true, D: True, E: Off, F: 0777}"))
    assert dict(project.services[0].environment) == {
        "A": "yes",
        "B": "no",
        "C": "true",
        "D": "True",
        "E": "Off",
        "F": "0777",
    }
    reason = "is taken as a text; quote it, other readers of YAML make it a boolean"
    assert project.warnings == (
        f"line 3: services.s.environment.A: unquoted yes {reason}",
        f"line 3: services.s.environment.D: unquoted True {reason}",
        f"line 3: services.s.environment.E: unquoted Off {reason}",
    )


def test_a_variable_without_value_in_an_env_file_is_a_warning():
    project = parse(service_text("env_file: open.env"))
    assert project.services[0].environment == (("A", ""),)
    assert project.warnings == (
        "line 3: services.s.env_file: variable 'NONE' in '/srv/open.env' is not set; it is replaced by nothing",
    )

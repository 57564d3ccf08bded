"""Every problem that one service can have."""

import pytest

from sealane.compose.parse import parse_project
from sealane.compose.problems import ComposeError

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


S = "line 3: services.s"
IMAGE_CURE = "write image: oci:PATH[:TAG] for one that is here, rootfs:DIR for an unpacked one, or host for the host's own files"
VOLUMES_CURE = "bind a directory: ./dir:/path"
REFUSED = [
    (
        "volumes: [{type: tmpfs, target: a}]",
        [f"{S}.volumes[0].target: 'a' is not an absolute path; begin it with / and leave .. out"],
    ),
    ("comand: x", [f"{S}.comand: unknown key 'comand'; write command if that is meant"]),
    (
        "build: .",
        [
            f"{S}.build: build is not supported: images are made by other tools; write image: oci:PATH[:TAG] for one that is here"
        ],
    ),
    (
        "secrets: [a], configs: [b]",
        [
            f"{S}.secrets: secrets is not supported: there is no store for it; bind a file: ./file:/path:ro",
            f"{S}.configs: configs is not supported: there is no store for it; bind a file: ./file:/path:ro",
        ],
    ),
    ("devices: [/dev/kvm]", [f"{S}.devices: devices is not supported: no devices are passed in; remove it"]),
    (
        "privileged: true",
        [
            f"{S}.privileged: privileged is not supported: a process with every right can undo its own network; add the one right it needs with cap_add"
        ],
    ),
    (
        "links: [db]",
        [
            f"{S}.links: links is not supported: links are superseded; attach both to one network and use aliases"
        ],
    ),
    (
        "image: 'nginx:1.27'",
        [f"{S}.image: image 'nginx:1.27': images of registries are not supported; {IMAGE_CURE}"],
    ),
    (
        "image: 'oci:a:b:c'",
        [
            f"{S}.image: 'oci:a:b:c': a path is needed, without a colon in it; write oci:PATH[:TAG] or oci-archive:FILE[:TAG]"
        ],
    ),
    (
        "image: 'rootfs:'",
        [f"{S}.image: image 'rootfs:': images of registries are not supported; {IMAGE_CURE}"],
    ),
    (
        "image: host, x-sealane: {rootfs: /r}",
        [f"{S}.x-sealane.rootfs: another root than `image` says; keep one of them"],
    ),
    ("x-sealane: {rotfs: /r}", [f"{S}.x-sealane.rotfs: unknown key 'rotfs'; write rootfs if that is meant"]),
    (
        'entrypoint: "sh \'x"',
        [
            f'{S}.entrypoint: "sh \'x" cannot be split into words: No closing quotation; close it, or write a list'
        ],
    ),
    ("entrypoint: {a: b}", [f"{S}.entrypoint: a mapping where a text is expected; write a text"]),
    ("entrypoint: [a, [b]]", [f"{S}.entrypoint[1]: a list where a text is expected; write a text"]),
    ('entrypoint: ["\\0"]', [f"{S}.entrypoint[0]: a NUL character; remove it"]),
    (
        "environment: {'A B': 1}",
        [
            f"{S}.environment['A B']: 'A B' is not a variable's name; use 1 to 256 characters without = and spaces"
        ],
    ),
    ("environment: {A: [1]}", [f"{S}.environment.A: a list where a text is expected; write a text"]),
    ("environment: [{A: 1}]", [f"{S}.environment[0]: a mapping where a text is expected; write a text"]),
    ("environment: 5", [f"{S}.environment: a text where a list is expected; write a list"]),
    (
        "environment: ['=x']",
        [f"{S}.environment[0]: '' is not a variable's name; use 1 to 256 characters without = and spaces"],
    ),
    (
        "env_file: none.env",
        [
            f"{S}.env_file: there is no file '/srv/none.env'; create it, or write {{path: FILE, required: false}}"
        ],
    ),
    (
        "env_file: [secret.env, bad.env, binary.env]",
        [
            f"{S}.env_file[0]: '/srv/secret.env' cannot be read: Permission denied; make it readable",
            f"{S}.env_file[1]: '/srv/bad.env' line 2: '?' is not NAME=value; write NAME=value, or # before a comment",
            f"{S}.env_file[2]: '/srv/binary.env': longer than 1048576 bytes; save it as UTF-8 text of at most 1 MiB",
        ],
    ),
    ("env_file: [{required: false}]", [f"{S}.env_file[0]: no path; write path: FILE"]),
    (
        "env_file: [{path: web.env, format: raw}]",
        [f"{S}.env_file[0].format: format is not supported: one format is read; remove it"],
    ),
    ("networks: n", [f"{S}.networks: a text where a list is expected; write a list"]),
    ("networks: [n, n]", [f"{S}.networks[1]: 'n' is in the list twice; remove one of them"]),
    (
        "networks: {'': }",
        [
            f"{S}.networks['']: '' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit"
        ],
    ),
    (
        "networks: {n: {link_local_ips: [fe80::1]}}",
        [
            f"{S}.networks.n.link_local_ips: link_local_ips is not supported: the kernel chooses link-local addresses; use ipv4_address or ipv6_address"
        ],
    ),
    (
        "networks: {n: {ipv4_address: fd00::1, ipv6_address: 10.0.0.1}}",
        [
            f"{S}.networks.n.ipv4_address: 'fd00::1' is not an IPv4 address; move it to ipv6_address",
            f"{S}.networks.n.ipv6_address: '10.0.0.1' is not an IPv6 address; move it to ipv4_address",
        ],
    ),
    (
        "networks: {n: {priority: 1.5, gw_priority: 9999999999}}",
        [
            f"{S}.networks.n.priority: '1.5' is not a whole number; write a number from -2147483648 to 2147483647",
            f"{S}.networks.n.gw_priority: 9999999999 is out of range; write a number from -2147483648 to 2147483647",
        ],
    ),
    (
        "networks: {n: {driver_opts: {com.docker.network.driver.mtu: 9}}}",
        [
            f"{S}.networks.n.driver_opts['com.docker.network.driver.mtu']: unknown option 'com.docker.network.driver.mtu'; remove it"
        ],
    ),
    (
        "networks: [n, m], mac_address: '02:00:00:00:00:01'",
        [f"{S}.mac_address: mac_address with several networks; write it under the network it is for"],
    ),
    (
        "networks: {n: {mac_address: '02:00:00:00:00:02'}}, mac_address: '02:00:00:00:00:01'",
        [f"{S}.mac_address: another mac_address than the network's; keep one of them"],
    ),
    (
        "network_mode: 'host:x'",
        [
            f"{S}.network_mode: network_mode 'host:x' is not supported; write host, none, service:NAME or container:NAME"
        ],
    ),
    (
        "network_mode: service",
        [
            f"{S}.network_mode: network_mode 'service' is not supported; write host, none, service:NAME or container:NAME"
        ],
    ),
    (
        "network_mode: bridge",
        [
            f"{S}.network_mode: network_mode 'bridge' is not supported; write host, none, service:NAME or container:NAME"
        ],
    ),
    (
        "network_mode: 'service:'",
        [
            f"{S}.network_mode: '' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit"
        ],
    ),
    (
        "network_mode: host, networks: [n], ports: [80], mac_address: '02:00:00:00:00:01'",
        [
            f"{S}.networks: networks together with network_mode; remove networks or network_mode",
            f"{S}.ports: ports together with network_mode; remove ports or network_mode",
            f"{S}.mac_address: mac_address together with network_mode; remove mac_address or network_mode",
        ],
    ),
    ("ports: '80'", [f"{S}.ports: a text where a list is expected; write a list"]),
    (
        "ports: [80.0, ok]",
        [
            f"{S}.ports[0]: '80.0' is not a port number; write [host_ip:][port[-end]:]port[-end][/tcp|udp|sctp]",
            f"{S}.ports[1]: 'ok' is not a port number; write [host_ip:][port[-end]:]port[-end][/tcp|udp|sctp]",
        ],
    ),
    ("ports: [{published: 80}]", [f"{S}.ports[0]: no target; write target: PORT, the container's port"]),
    (
        "ports: [{target: 80, mode: global, port: 1}]",
        [
            f"{S}.ports[0].mode: 'global' is not a mode; write host or ingress; on one host they are the same",
            f"{S}.ports[0].port: unknown key 'port'; remove it; keys of your own begin with x-",
        ],
    ),
    (
        "ports: [{target: 80-81, published: 1}]",
        [
            f"{S}.ports[0]: 1 host ports cannot serve 2 container ports; make both ranges equally long, or name one container port"
        ],
    ),
    (
        "expose: ['80:80']",
        [
            f"{S}.expose[0]: '80:80' is not a port number; write [host_ip:][port[-end]:]port[-end][/tcp|udp|sctp]"
        ],
    ),
    (
        "dns: [9.9.9.9, localhost]",
        [f"{S}.dns[1]: 'localhost' is not an IP address; write a numeric IPv4 or IPv6 address"],
    ),
    (
        "extra_hosts: [a, 'a b:1.1.1.1', 'a:x']",
        [
            f"{S}.extra_hosts[0]: 'a' has no address; write name=address",
            f"{S}.extra_hosts[1]: 'a b' is not a host name; use letters, digits and - in parts of at most 63, joined by dots",
            f"{S}.extra_hosts[2]: 'x' is not an IP address; write a numeric IPv4 or IPv6 address",
        ],
    ),
    (
        "extra_hosts: {'a b': 1.1.1.1}",
        [
            f"{S}.extra_hosts['a b']: 'a b' is not a host name; use letters, digits and - in parts of at most 63, joined by dots"
        ],
    ),
    (
        "sysctls: {kernel.x: 1}",
        [
            f"{S}.sysctls['kernel.x']: sysctl 'kernel.x' is not of the network namespace; only net.* names joined by dots are"
        ],
    ),
    (
        "sysctls: {net.x: 'a=b'}",
        [f"{S}.sysctls['net.x']: 'a=b' is not a sysctl's value; use letters, digits, spaces and _ . , -"],
    ),
    (
        "cap_add: [NET_RAW, CAP_NET_RAW]",
        [f"{S}.cap_add[1]: 'NET_RAW' is in the list twice; remove one of them"],
    ),
    (
        "healthcheck: {interval: 5s}",
        [f"{S}.healthcheck: no test; write test: [CMD, program, ...] or disable: true"],
    ),
    (
        "healthcheck: {test: [curl, x]}",
        [
            f"{S}.healthcheck.test: test does not begin with its kind; write [CMD, program, ...], [CMD-SHELL, text] or [NONE]"
        ],
    ),
    (
        "healthcheck: {test: x, interval: 0s, timeout: 5, retries: 0, start_interval: 1s}",
        [
            f"{S}.healthcheck.interval: a duration of 0; write 1ms or more",
            f"{S}.healthcheck.timeout: duration '5' has no unit; write 5s for seconds",
            f"{S}.healthcheck.retries: 0 is out of range; write a number from 1 to 1000000",
            f"{S}.healthcheck.start_interval: start_interval is not supported: one interval is used throughout; set interval",
        ],
    ),
    (
        "deploy: {mode: global, resources: {reservations: {}, limits: {devices: []}}}",
        [
            f"{S}.deploy.resources.limits.devices: devices is not supported: no devices are passed in; remove it",
            f"{S}.deploy.resources.reservations: reservations is not supported: nothing is reserved on one host; remove it or set limits",
            f"{S}.deploy.mode: mode is not supported: only replicas and resources.limits are; remove it",
        ],
    ),
    (
        "scale: 2, cpus: 1, deploy: {replicas: 3, resources: {limits: {cpus: 2}}}",
        [
            f"{S}.deploy.resources.limits.cpus: another value than the service's cpus; keep one; remove cpus to keep this",
            f"{S}.deploy.replicas: another value than the service's scale; keep one; remove scale to keep this",
        ],
    ),
    ("scale: 1001", [f"{S}.scale: 1001 is out of range; write a number from 0 to 1000"]),
    (
        "restart: never",
        [
            f"{S}.restart: 'never' is not a restart policy; write no, always, unless-stopped or on-failure[:TIMES]"
        ],
    ),
    (
        "volumes: ['data:/data', /data, './a:/a:z']",
        [
            f"{S}.volumes[0]: named volume 'data': there is no volume store; {VOLUMES_CURE}",
            f"{S}.volumes[1]: '/data' is an anonymous volume, and there is no volume store; write it under tmpfs, or ./dir:/path",
            f"{S}.volumes[2]: mount option 'z' is not supported; write ro, rw or nothing",
        ],
    ),
    (
        "volumes: [{type: volume, source: a, target: /a, volume: {}}]",
        [
            f"{S}.volumes[0].type: named volumes are not supported: there is no volume store; write type: bind and a directory",
        ],
    ),
    (
        "volumes: [{type: bind}]",
        [f"{S}.volumes[0]: no source; write source", f"{S}.volumes[0]: no target; write target"],
    ),
    (
        "volumes: [{type: npipe, source: a, target: /a, tmpfs: {}}]",
        [f"{S}.volumes[0].type: mount type 'npipe' is not supported; write bind or tmpfs"],
    ),
    (
        "volumes: [{type: bind, source: ., target: /a, bind: {propagation: shared}, consistency: x}]",
        [
            f"{S}.volumes[0].bind.propagation: propagation is not supported: mounts are private to the service; remove it",
            f"{S}.volumes[0].consistency: consistency is not supported: it means nothing on Linux; remove it",
        ],
    ),
    (
        "volumes: [.:/a, .:/a/], tmpfs: /a",
        [
            f"{S}.volumes: two mounts on '/a'; keep one of them",
            f"{S}.volumes: two mounts on '/a'; keep one of them",
        ],
    ),
    (
        "volumes: [.:/]",
        [f"{S}.volumes[0]: a mount over /; mount on a directory below it; x-sealane.rootfs chooses the root"],
    ),
    (
        "container_name: 'a b', hostname: -a, user: 'a b', working_dir: w",
        [
            f"{S}.container_name: 'a b' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit",
            f"{S}.user: 'a b' is not a user; write it as name, 1000, name:group or 1000:1000",
            f"{S}.working_dir: 'w' is not an absolute path; begin it with / and leave .. out",
            f"{S}.hostname: '-a' is not a host name; use letters, digits and - in parts of at most 63, joined by dots",
        ],
    ),
    ("hostname: $", [f"{S}.hostname: '$' without a variable's name in '$'; write $$ for a dollar sign"]),
]


@pytest.mark.parametrize(("body", "expected"), REFUSED, ids=[body[:60] for body, _ in REFUSED])
def test_a_bad_service_is_refused_with_every_problem(body, expected):
    assert problems(service_text(body)) == expected


def test_a_service_needs_a_command():
    assert problems("services:\n  s: {image: host}\n") == [
        "line 2: services.s: no command; write command: there is no image that could name one"
    ]
    assert parse("services: {s: {entrypoint: [x]}}").services[0].command is None


@pytest.mark.parametrize(
    ("body", "kind"), [("", "a text"), ("[]", "a list"), ("x", "a text")], ids=["null", "list", "text"]
)
def test_a_service_is_a_mapping(body, kind):
    assert problems(f"services:\n  s: {body}\n") == [
        f"line 2: services.s: {kind} where a mapping is expected; write a mapping"
    ]


def test_aliases_and_ports_are_bounded():
    def service(count: int, ports: int) -> str:
        aliases = ", ".join(f"a{i}" for i in range(count))
        return service_text(f"networks: {{n: {{aliases: [{aliases}]}}}}, ports: {list(range(1, ports + 1))}")

    parse(service(64, 256))
    assert problems(service(65, 257)) == [
        f"{S}.networks.n.aliases: 65 aliases; give at most 64",
        f"{S}.ports: 257 ports; use ranges; a service has at most 256",
    ]


def test_a_command_line_is_bounded():
    assert problems(f"services:\n  s:\n    command: {'a ' * 40_000}\n") == [
        "line 3: services.s.command: a command of more than 65536 characters; put it into a script"
    ]


def test_a_bad_service_name_hides_no_other_problem():
    assert problems("services:\n  'a/b': {command: x, build: .}\n") == [
        "line 2: services['a/b']: 'a/b' is not a name; use 1 to 63 of A-Z a-z 0-9 _ . -, beginning with a letter or digit",
        "line 2: services['a/b'].build: build is not supported: images are made by other tools; write image: oci:PATH[:TAG] for one that is here",
    ]


def test_an_env_file_needs_somebody_who_reads_it():
    with pytest.raises(ComposeError) as caught:
        parse_project("services: {s: {command: x, env_file: a}}", name="p", environ={}, directory="/srv")
    assert [problem.message for problem in caught.value.problems] == ["files are not read here"]

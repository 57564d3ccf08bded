"""Compose projects become manifests in Docker Compose's names."""

import msgspec
import pytest

from sealane.cli.manifest import ManifestError, container_names, manifest_of, missing_sources
from sealane.compose.parse import parse_project
from unit.cli.test_containers import spec_of


def manifest(text):
    return manifest_of(project(text))


def project(text):
    return parse_project(text, name="shop", environ={}, directory="/srv/shop")


SHOP = """
services:
  web:
    command: [nginx, -g, daemon off;]
    networks: {front: {aliases: [www]}, back: {}}
    ports: ["8080:80", "8000-8009:81", "53/udp", "9000-9001:90-91"]
    depends_on:
      api: {condition: service_healthy}
      seed: {condition: service_completed_successfully}
  api:
    entrypoint: [python3, app.py]
    command: [--port, "80"]
    scale: 2
    networks: [back]
    healthcheck: {test: [CMD, "true"], interval: 2s, retries: 5}
    depends_on: [db]
  seed: {command: seed, networks: [back], depends_on: [db]}
  db:
    command: postgres
    container_name: shop-database
    networks:
      back: {ipv4_address: 10.7.0.9, mac_address: "02:00:00:00:00:09", gw_priority: 3, interface_name: db0}
networks:
  front: {}
  back:
    internal: true
    enable_ipv6: true
    driver_opts: {com.docker.network.driver.mtu: "1400"}
    labels: {tier: back}
    ipam:
      config:
        - {subnet: 10.7.0.0/24, gateway: 10.7.0.254, ip_range: 10.7.0.128/25, aux_addresses: {printer: 10.7.0.7}}
"""


def test_networks_carry_the_projects_name_and_label():
    front, back = manifest(SHOP).networks
    assert (front.name, front.driver, front.subnets, front.labels) == (
        "shop_front",
        "bridge",
        [],
        {"sealane.project": "shop"},
    )
    assert (back.name, back.internal, back.ipv6, back.ipv4) == ("shop_back", True, True, True)
    assert back.options == {"com.docker.network.driver.mtu": "1400"}
    assert back.labels == {"tier": "back", "sealane.project": "shop"}
    (subnet,) = back.subnets
    assert (subnet.prefix, subnet.gateway, subnet.ip_range) == ("10.7.0.0/24", "10.7.0.254", "10.7.0.128/25")
    assert subnet.reserved == {"printer": "10.7.0.7"}


def test_containers_carry_the_services_name_and_number():
    found = manifest(SHOP)
    assert found.project == "shop"
    assert [c.name for c in found.containers] == [
        "shop-web-1", "shop-api-1", "shop-api-2", "shop-seed-1", "shop-database",
    ]  # fmt: skip
    assert found.containers[0].labels == {"sealane.project": "shop", "sealane.service": "web"}


def test_a_service_is_known_by_its_name_and_its_aliases_on_each_network():
    web, api, *_, db = manifest(SHOP).containers
    assert [(a.network, a.aliases) for a in web.attachments] == [
        ("shop_front", ["web", "www"]),
        ("shop_back", ["web"]),
    ]
    assert api.attachments[0].aliases == ["api"]
    (place,) = db.attachments
    assert (place.addresses, place.mac, place.gateway_priority, place.ifname) == (
        ["10.7.0.9"], "02:00:00:00:00:09", 3, "db0",
    )  # fmt: skip


def test_a_service_waits_for_every_replica_of_what_it_depends_on():
    web, api, *_ = manifest(SHOP).containers
    assert web.depends_on == {"shop-api-1": "healthy", "shop-api-2": "healthy", "shop-seed-1": "completed"}
    assert api.depends_on == {"shop-database": "started"}


def test_what_is_not_required_and_not_there_is_not_waited_for():
    text = "services: {a: {command: x, depends_on: {b: {condition: service_started, required: false}}}}"
    assert manifest(text).containers[0].depends_on == {}


def test_ports_keep_their_ranges():
    shape = [
        (p.proto, p.host_first, p.host_last, p.port, p.count, p.one_of)
        for p in manifest(SHOP).containers[0].publish
    ]
    assert shape == [
        ("tcp", 8080, 8080, 80, 1, False),
        ("tcp", 8000, 8009, 81, 1, True),
        ("udp", 0, 0, 53, 1, False),
        ("tcp", 9000, 9001, 90, 2, False),
    ]


def test_the_entrypoint_stands_before_the_command():
    assert spec_of(manifest(SHOP).containers[1]).command == ("python3", "app.py", "--port", "80")


def test_a_spec_says_only_what_the_file_says():
    spec = msgspec.json.decode(manifest("services: {a: {command: sleep 1}}").containers[0].spec)
    assert spec == {
        "command": ["sleep", "1"], "rootfs": "host", "restart": "no", "stop_signal": "15", "stop_timeout_s": 10.0,
    }  # fmt: skip


def test_everything_about_the_process_reaches_the_runtimes_record():
    text = """
services:
  a:
    command: x
    x-sealane: {rootfs: ./root}
    environment: {A: "1", EMPTY: ""}
    working_dir: /w
    user: "7:8"
    read_only: true
    init: true
    hostname: box
    domainname: corp.example
    cap_add: [NET_RAW]
    cap_drop: [ALL]
    cpus: 0.5
    mem_limit: 64m
    pids_limit: 9
    restart: on-failure:2
    stop_signal: SIGINT
    stop_grace_period: 0s
    volumes: ["./data:/data:ro", {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]
    tmpfs: ["/u:nosuid"]
    healthcheck: {test: curl localhost, interval: 1s, timeout: 2s, start_period: 3s, retries: 4}
    labels: {k: v}
    sysctls: {net.core.somaxconn: 5}
    dns: 9.9.9.9
    dns_search: [corp]
    dns_opt: ["ndots:1"]
    extra_hosts: ["db:10.0.0.1", "up=host-gateway"]
"""
    request = manifest(text).containers[0]
    spec = spec_of(request)
    assert (spec.rootfs, spec.env, spec.working_dir, spec.user) == (
        "/srv/shop/root",
        {"A": "1", "EMPTY": ""},
        "/w",
        "7:8",
    )
    assert (spec.read_only, spec.init, spec.hostname) == (True, True, "box.corp.example")
    assert (spec.cap_add, spec.cap_drop) == (("NET_RAW",), ("ALL",))
    assert (spec.limits.cpus, spec.limits.memory_bytes, spec.limits.pids) == (0.5, 64 << 20, 9)
    assert (spec.restart, spec.stop_signal, spec.stop_timeout_s) == ("on-failure:2", "2", 0.0)
    assert [(m.target, getattr(m, "source", None)) for m in spec.mounts] == [
        ("/data", "/srv/shop/data"), ("/t", None), ("/u", None),
    ]  # fmt: skip
    assert (spec.mounts[1].size_bytes, spec.mounts[1].mode) == (1 << 20, 0o700)
    assert spec.health.test == ("CMD-SHELL", "curl localhost")
    assert (
        spec.health.interval_s,
        spec.health.timeout_s,
        spec.health.start_period_s,
        spec.health.retries,
    ) == (1, 2, 3, 4)
    assert request.labels["k"] == "v"
    assert request.sysctls == {"net.core.somaxconn": "5"}
    assert (request.dns, request.dns_search, request.dns_options) == (["9.9.9.9"], ["corp"], ["ndots:1"])
    assert request.hosts == {"db": "10.0.0.1", "up": "host-gateway"}


def test_external_and_named_networks_go_by_their_own_names():
    text = """
services: {a: {command: x, networks: [there, other, named]}}
networks:
  there: {external: true}
  other: {external: true, name: corp-lan}
  named: {name: fixed}
"""
    found = manifest(text)
    assert [n.name for n in found.networks] == ["fixed"]
    assert [a.network for a in found.containers[0].attachments] == ["there", "corp-lan", "fixed"]


def test_the_default_network_is_the_projects():
    found = manifest("services: {a: {command: x}}")
    assert [n.name for n in found.networks] == ["shop_default"]
    assert found.containers[0].attachments[0].network == "shop_default"


def test_priority_orders_networks_and_among_equals_those_with_a_way_out_come_first():
    text = """
services: {a: {command: x, networks: {inner: {}, outer: {}, first: {priority: 5}}}}
networks: {inner: {internal: true}, outer: {}, first: {internal: true}}
"""
    names = [a.network for a in manifest(text).containers[0].attachments]
    assert names == ["shop_first", "shop_outer", "shop_inner"]


@pytest.mark.parametrize(
    ("mode", "asked"),
    [("host", "host"), ("none", "none"), ("service:b", "container:shop-b-1"), ("container:x", "container:x")],
)
def test_network_modes(mode, asked):
    text = f"services: {{a: {{command: x, network_mode: '{mode}'}}, b: {{command: y}}}}"
    request = manifest(text).containers[0]
    assert (request.network_mode, request.attachments) == (asked, [])


def test_a_network_of_the_host_driver_is_a_mode_and_no_network():
    text = "services: {a: {command: x, networks: [h]}}\nnetworks: {h: {driver: host}}"
    found = manifest(text)
    assert (found.networks, found.containers[0].network_mode) == ([], "host")


def test_endpoint_options_have_places_of_their_own():
    text = """
services:
  a:
    command: x
    networks:
      default:
        driver_opts:
          com.docker.network.endpoint.sysctls: net.ipv4.conf.IFNAME.rp_filter=1,net.ipv4.conf.IFNAME.log_martians=1
          com.docker.network.endpoint.ifname: net7
"""
    (place,) = manifest(text).containers[0].attachments
    assert (place.ifname, place.sysctls["net.ipv4.conf.IFNAME.log_martians"], len(place.sysctls)) == (
        "net7",
        "1",
        2,
    )


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("tmpfs: ['/x:ro']", "services.a.tmpfs"),
        ("tmpfs: ['/x:noexec']", "services.a.tmpfs"),
        ("extra_hosts: {db: [10.0.0.1, 10.0.0.2]}", "services.a.extra_hosts"),
        ("networks: {default: {driver_opts: {other: x}}}", "services.a.networks.default.driver_opts"),
    ],
)
def test_what_a_manifest_cannot_say_is_named_and_not_dropped(service, path):
    with pytest.raises(ManifestError) as caught:
        manifest(f"services: {{a: {{command: x, {service}}}}}")
    assert caught.value.path == path


def test_folders_to_be_made_are_those_of_binds_that_may():
    text = """
services:
  a: {command: x, volumes: ["./b:/b", "./a:/a", {type: bind, source: ./c, target: /c, bind: {create_host_path: false}}]}
  b: {command: x, volumes: ["./a:/a"]}
"""
    assert missing_sources(project(text)) == ["/srv/shop/a", "/srv/shop/b"]


def test_a_manifest_survives_json():
    from sealane.wire.requests import Manifest

    found = manifest(SHOP)
    again = msgspec.json.decode(msgspec.json.encode(found), type=Manifest)
    assert [bytes(c.spec) for c in again.containers] == [bytes(c.spec) for c in found.containers]
    assert again.networks == found.networks


def test_names_of_replicas():
    services = {s.name: s for s in project(SHOP).services}
    assert container_names(project(SHOP), services["api"]) == ["shop-api-1", "shop-api-2"]
    assert container_names(project(SHOP), services["db"]) == ["shop-database"]

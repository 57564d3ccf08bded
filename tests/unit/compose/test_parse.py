"""Whole files: one that uses nearly everything, and what is reported at the level of the document."""

import pytest

from harness.effort import calls_of
from sealane.compose.parse import MAX_SERVICES, parse_project
from sealane.compose.ports import parse_port_spec
from sealane.compose.problems import MAX_REPORTED, ComposeError
from sealane.compose.schema import (
    Attachment,
    ComposeNetwork,
    ComposeSubnet,
    Dependency,
    Healthcheck,
    Project,
    Service,
)

FILE = """\
version: "3.9"
name: shop
x-common: &common
  x-sealane: {rootfs: /images/base}
  restart: unless-stopped
  environment: &env
    LEVEL: ${LEVEL:-info}
networks:
  front:
  back:
    internal: true
    ipam: {config: [{subnet: 10.5.0.0/24}]}
services:
  web:
    <<: *common
    command: serve --port 80
    environment:
      <<: *env
      DB: db:5432
    networks:
      front:
      back: {aliases: [frontend], ipv4_address: 10.5.0.10}
    ports: ["${PORT}:80"]
    depends_on:
      db: {condition: service_healthy}
  db:
    <<: *common
    command: ["postgres", "-c", "fsync=$$x"]
    networks: [back]
    healthcheck: {test: [CMD, pg_isready], interval: 5s}
"""


def parse(text: str, **environ: str) -> Project:
    return parse_project(text, name="dir", environ=environ, directory="/srv")


def problems(text: str) -> list[str]:
    with pytest.raises(ComposeError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def test_a_file_becomes_a_project():
    restart = parse("services: {s: {command: c, restart: unless-stopped}}").services[0].restart
    assert parse(FILE, PORT="8080") == Project(
        name="shop",
        networks=(
            ComposeNetwork(name="front"),
            ComposeNetwork(name="back", internal=True, subnets=(ComposeSubnet(subnet="10.5.0.0/24"),)),
        ),
        services=(
            Service(
                name="web",
                rootfs="/images/base",
                restart=restart,
                command=("serve", "--port", "80"),
                environment=(("LEVEL", "info"), ("DB", "db:5432")),
                attachments=(
                    Attachment(network="front"),
                    Attachment(network="back", aliases=("frontend",), ipv4_address="10.5.0.10"),
                ),
                ports=(parse_port_spec("8080:80"),),
                depends_on=(Dependency(service="db", condition="service_healthy"),),
            ),
            Service(
                name="db",
                rootfs="/images/base",
                restart=restart,
                command=("postgres", "-c", "fsync=$x"),
                environment=(("LEVEL", "info"),),
                attachments=(Attachment(network="back"),),
                healthcheck=Healthcheck(test=("CMD", "pg_isready"), interval_s=5.0),
            ),
        ),
        warnings=("line 1: version: version is obsolete and means nothing; remove it",),
    )


def test_all_problems_of_a_file_are_reported_at_once_in_the_order_of_lines():
    text = FILE.replace("front:\n  back:", "front: {driver: x}\n  back:").replace("10.5.0.10", "10.6.0.10")
    text = text.replace("pg_isready]", "pg_isready], foo: 1").replace("$$x", "${")
    with pytest.raises(ComposeError) as caught:
        parse(text)
    assert str(caught.value).split("\n") == [
        "compose file: 5 problems",
        "  line 9: networks.front.driver: no driver 'x'; write bridge, routed, host, none",
        "  line 22: services.web.networks.back.ipv4_address: 10.6.0.10 is in no subnet of network back; choose an address of 10.5.0.0/24",
        "  line 23: services.web.ports[0]: ':80' has nothing before its colon; remove the colon for any free port",
        "  line 28: services.db.command[2]: '$' without a variable's name in 'fsync=${'; write $$ for a dollar sign",
        "  line 30: services.db.healthcheck.foo: unknown key 'foo'; remove it; keys of your own begin with x-",
    ]


DOCUMENTS = [
    ("", ["the file is empty; write services:"]),
    ("# nothing", ["the file is empty; write services:"]),
    ("[]", ["line 1: the file is not a mapping; begin it with services:"]),
    ("text", ["line 1: the file is not a mapping; begin it with services:"]),
    ("{}", ["line 1: no services and no networks; write services:"]),
    ("services:", ["line 1: no services and no networks; write services:"]),
    (
        "a: [",
        [
            "line 1: not YAML: while parsing a flow node, did not find expected node content; correct the syntax on this line or just above"
        ],
    ),
    ("a: 1\na: 2", ["line 2: duplicate key 'a'; remove this one or the one on line 1"]),
    ("services: []", ["line 1: services: a list where a mapping is expected; write a mapping"]),
    ("networks: text", ["line 1: networks: a text where a mapping is expected; write a mapping"]),
    ("service: {}", ["line 1: service: unknown key 'service'; write services if that is meant"]),
    (
        "volumes: {data: }\nservices: {s: {command: c}}",
        [
            "line 1: volumes: volumes is not supported: there is no store of named volumes; bind directories in the service: ./dir:/path"
        ],
    ),
    (
        "include: [a]\nsecrets: {}",
        [
            "line 1: include: include is not supported: one file is read; put the services into this file",
            "line 2: secrets: secrets is not supported: there is no store for it; bind a file: ./file:/path:ro",
        ],
    ),
    (
        "name: My App\nnetworks: {n: }",
        [
            "line 1: name: 'My App' is not a project name; use 1 to 63 of a-z 0-9 _ -, beginning with a letter or digit"
        ],
    ),
    (
        "x-sealane: {}\nnetworks: {n: }",
        ["line 1: x-sealane: x-sealane means nothing here; write it in a service"],
    ),
    ("services: {s: {command: '$A$A$A'}}", None),
]


@pytest.mark.parametrize(("text", "expected"), DOCUMENTS, ids=[ascii(text[:30]) for text, _ in DOCUMENTS])
def test_a_document_is_refused_with_what_to_write(text, expected):
    if expected is None:
        with pytest.raises(ComposeError, match="more than 1048576 characters after substitution"):
            parse(text, A="x" * 400_000)
    else:
        assert problems(text) == expected


def test_the_name_of_the_file_wins_over_the_given_one():
    assert parse("networks: {n: }").name == "dir"
    assert parse("name: own\nnetworks: {n: }").name == "own"


def test_unset_variables_are_warnings():
    project = parse("services:\n  s:\n    command: [a, $NO, '${NO}']\n")
    assert project.services[0].command == ("a", "", "")
    assert project.warnings == (
        "line 3: services.s.command[1]: variable 'NO' is not set; it is replaced by nothing",
    )


def test_problems_are_bounded_and_counted():
    text = "services:\n  s:\n    command: c\n" + "".join(f"    k{i}: 1\n" for i in range(MAX_REPORTED + 7))
    found = problems(text)
    assert len(found) == MAX_REPORTED + 1
    assert found[-1] == "7 more problems are not listed; mend the ones above first"


def test_warnings_are_bounded():
    text = "services: {s: {command: [" + ", ".join(f"$V{i}" for i in range(MAX_REPORTED + 7)) + "]}}"
    assert len(parse(text).warnings) == MAX_REPORTED


def test_services_are_bounded():
    names = "".join(f"  s{i}: {{command: c, x: 1}}\n" for i in range(MAX_SERVICES + 1))
    found = problems("services:\n" + names.replace(", x: 1", ""))
    assert found == [
        f"line 1: services: {MAX_SERVICES + 1} services; split the project; a file has at most 1000"
    ]


@pytest.mark.parametrize("hostile", ["\\e[31m", "\\u202e", "\\r\\n", "\\x9b"])
def test_foreign_text_cannot_move_a_cursor(hostile):
    key = f'"{hostile}"'
    text = (
        f"{key}: 1\nnetworks: {{{key}: , n: {{{key}: 1, driver: {key}}}}}\n"
        f"services:\n  {key}: {{}}\n  s: {{command: c, {key}: 1, ports: [{key}], networks: [{key}],"
        f" depends_on: {{{key}: }}, environment: {{{key}: 1}}, sysctls: {{{key}: 1}}}}\n"
    )
    found = problems(text)
    assert len(found) >= 10
    assert all(line.isascii() and line.isprintable() for line in found)


def test_services_cost_what_they_are():
    """Ten times as many take about ten times as much: nothing grows with their square."""

    def calls(count):
        text = (
            "x-b: &b {command: x, environment: {A: b}, labels: {a: b}, networks: [n, m]}\n"
            "networks: {n: , m: }\nservices:\n"
            + "".join(
                f"  s{i}: {{<<: *b, ports: ['{i + 1}:80'], depends_on: [s{max(0, i - 1)}]}}\n"
                for i in range(1, count)
            )
            + "  s0: {<<: *b}\n"
        )
        return calls_of(lambda: parse(text))

    # The square would be 100 times.
    assert calls(1000) < 12 * calls(100)

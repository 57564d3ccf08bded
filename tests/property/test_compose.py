"""Laws of the compose package."""

import ipaddress
import itertools

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sealane.compose.check import needs
from sealane.compose.duration import parse_duration
from sealane.compose.envfile import EnvFileError, parse_env_file
from sealane.compose.interpolate import interpolate
from sealane.compose.order import CycleError, waves
from sealane.compose.overlaps import Claim, distinct, find_clashes
from sealane.compose.parse import parse_project
from sealane.compose.ports import PROTOCOLS, PortSpec, parse_port_spec, render_port_spec
from sealane.compose.problems import BadValue, ComposeError
from sealane.compose.schema import Project
from sealane.compose.sizes import parse_size
from sealane.model.net import WILDCARDS, family_of

# The machine is shared: how long one example takes says nothing here.
quick = settings(deadline=None)
thorough = settings(max_examples=300, deadline=None)


def outcome(parser, *arguments):
    """The value and no error, or no value and the refusal."""
    try:
        return parser(*arguments), None
    except (BadValue, EnvFileError, ComposeError, CycleError) as error:
        return None, error


ports = st.integers(1, 65535)
host_ips = st.none() | st.ip_addresses().filter(
    lambda address: not address.is_multicast and getattr(address, "ipv4_mapped", None) is None
).map(str)


@st.composite
def port_specs(draw, numbers=ports, addresses=host_ips):
    first = draw(numbers)
    last = draw(st.just(first) | st.integers(first, min(65535, first + 100)))
    host_first = draw(st.none() | numbers)
    host_last = None
    if host_first is not None:
        length = draw(st.integers(0, 100)) if first == last else last - first
        host_first = min(host_first, 65535 - length)
        host_last = host_first + length
    return PortSpec(
        host_ip=draw(addresses),
        host_first=host_first,
        host_last=host_last,
        container_first=first,
        container_last=last,
        proto=draw(st.sampled_from(PROTOCOLS)),
    )


@quick
@given(port_specs())
def test_parsing_a_rendered_port_gives_it_back(spec):
    assert parse_port_spec(render_port_spec(spec)) == spec


@quick
@given(st.text(alphabet="0123456789:-/[].tcpudx\n٣ ", max_size=30) | st.text(max_size=30))
@example("[::1]:80:80/tcp\n")
@example(":٣")
def test_a_port_text_is_refused_or_has_one_canonical_form(text):
    spec, error = outcome(parse_port_spec, text)
    if error is not None:
        assert str(error).isascii()
        return
    canonical = render_port_spec(spec)
    assert parse_port_spec(canonical) == spec
    assert render_port_spec(parse_port_spec(canonical)) == canonical
    assert text.isascii()


def overlap(one: PortSpec, other: PortSpec) -> bool:
    """The definition, port by port and address by address, over a small world."""
    world = ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2")

    def addresses(spec: PortSpec) -> set[str]:
        if spec.host_ip is None:
            return set(world)
        if spec.host_ip in {"0.0.0.0", "::"}:
            version = ipaddress.ip_address(spec.host_ip).version
            return {address for address in world if ipaddress.ip_address(address).version == version}
        return {spec.host_ip}

    def numbers(spec: PortSpec) -> set[int]:
        return (
            set(range(spec.host_first, spec.host_last + 1)) if spec.host_first and spec.host_last else set()
        )

    if one.proto != other.proto or not addresses(one) & addresses(other):
        return False
    mine, theirs = numbers(one), numbers(other)
    if one.picks_one and other.picks_one:
        return False
    if one.picks_one or other.picks_one:
        picked, held = (mine, theirs) if one.picks_one else (theirs, mine)
        # Only a wider or equal address in one claim can take away the whole choice.
        return bool(picked) and picked <= held
    return bool(mine & theirs)


small_specs = port_specs(
    numbers=st.integers(1, 6),
    addresses=st.sampled_from([None, "0.0.0.0", "::", "10.0.0.1", "10.0.0.2", "fd00::1"]),
).filter(lambda spec: (spec.host_last or 0) - (spec.host_first or 0) < 4)


@thorough
@given(st.lists(small_specs, max_size=7))
def test_clashes_are_found_exactly_where_there_are_some(specs):
    claims = [Claim(index, spec) for index, spec in enumerate(specs)]
    found = {(later.owner, earlier.owner) for later, earlier in find_clashes(claims)}
    expected = {
        (second.owner, first.owner)
        for first, second in itertools.combinations(claims, 2)
        if overlap(first.spec, second.spec)
    }
    assert found <= expected
    assert bool(found) == bool(expected)


@thorough
@given(st.lists(small_specs.filter(lambda spec: not spec.picks_one), max_size=7))
def test_what_agrees_is_said_once_and_all_of_it_is_said(specs):
    places = [None, "0.0.0.0", "::", "10.0.0.1", "10.0.0.2", "fd00::1"]

    def led(some):
        """What of the host leads where."""
        return {
            (msgspec.structs.replace(spec, host_ip=None), place)
            for spec in some
            for place in places
            if spec.host_first is not None and holds(spec.host_ip, place)
        }

    kept = distinct(specs, lambda spec: spec)
    assert led(kept) == led(specs)
    fixed = [spec for spec in kept if spec.host_first is not None]
    for one, other in itertools.permutations(fixed, 2):
        same = msgspec.structs.replace(one, host_ip=None) == msgspec.structs.replace(other, host_ip=None)
        assert not (same and holds(one.host_ip, other.host_ip))


def holds(wider, address):
    """Whether the first names every address of the host that the second does."""
    if wider is None or wider == address:
        return True
    return address is not None and wider in WILDCARDS.values() and WILDCARDS[family_of(address)] == wider


scalars = st.text(max_size=12) | st.sampled_from(
    [
        "80:80",
        "host",
        "true",
        "yes",
        "null",
        "10s",
        "512m",
        "10.0.0.0/24",
        "10.0.0.9",
        "$A",
        "${A:-b}",
        "${",
        "bridge",
    ]
)
keys = st.sampled_from(
    "name networks services version x-a x-sealane rootfs command environment env_file ports expose target published "
    "networks ipv4_address aliases driver driver_opts ipam config subnet gateway aux_addresses external internal "
    "depends_on condition healthcheck test interval deploy replicas resources limits cpus memory volumes type source "
    "tmpfs size network_mode dns extra_hosts sysctls cap_add labels mac_address image a b".split()
) | st.text(max_size=6)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=30,
)
sections = st.dictionaries(
    st.sampled_from(["a", "b", "web", "-"]), st.dictionaries(keys, trees, max_size=8), max_size=3
)
documents = st.fixed_dictionaries(
    {}, optional={"services": sections | trees, "networks": sections | trees, "name": scalars, "x-a": trees}
)


def write(tree: object) -> str:
    """Flow YAML with every text in double quotes, which JSON's escapes are a subset of, or bare."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{write(str(key))}: {write(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(write, tree)) + "]"
    text = str(tree)
    if text.isascii() and text.isalnum():
        return text
    return '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'


def attempt(text: str) -> Project | None:
    """A project whose claims hold, or None for a ComposeError that says where and what to do."""
    project, error = outcome(lambda: parse_project(text, name="p", environ={"A": "1"}, directory="/srv"))
    if error is not None:
        assert error.problems
        for problem in error.problems:
            assert problem.hint
            assert str(problem).isascii()
            assert str(problem).isprintable()
        return None
    names = {network.name for network in project.networks}
    for service in project.services:
        assert {attachment.network for attachment in service.attachments} <= names
    waves({service.name: needs(service) for service in project.services})
    return project


@thorough
@given(st.text(max_size=200) | st.text(alphabet="abk:-[]{}&*!|>'\"#%,? \n\t<", max_size=60))
@example("a: &a\n  <<: *a")
@example("<<: []")
@example("? \n")
def test_any_text_is_a_project_or_a_compose_error(text):
    attempt(text)


@thorough
@given(documents)
def test_any_document_is_a_project_or_a_compose_error(document):
    attempt(write(document))


FILE = (
    "name: p\nx-b: &b {command: run $A, restart: no, environment: [A=1, B]}\n"
    "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24}]}}}\nservices:\n"
    "  web: {<<: *b, ports: ['8080:80', {target: 81}], networks: {n: {ipv4_address: 10.0.0.9}}, depends_on: [db]}\n"
    "  db: {<<: *b, volumes: ['./d:/d'], healthcheck: {test: [CMD, x], interval: 5s}, networks: [n]}\n"
)


@thorough
@given(
    st.lists(
        st.tuples(st.integers(0, len(FILE) - 1), st.sampled_from("\0 \n:[]{}'&*$-09a\x1b")),
        min_size=1,
        max_size=3,
    )
)
def test_a_damaged_file_is_a_project_or_a_compose_error(damage):
    assert attempt(FILE) is not None
    text = list(FILE)
    for place, char in damage:
        text[place] = char
    attempt("".join(text))


class Model:
    """Interpolation by the table of the specification, on a template kept as a tree."""

    def __init__(self, environ):
        self.environ = environ

    def value(self, parts):
        return "".join(part if isinstance(part, str) else self.reference(*part) for part in parts)

    def reference(self, name, operator, word):
        value = self.environ.get(name)
        state = "unset" if value is None else "set" if value else "empty"
        table = {
            "": {"unset": "", "empty": "", "set": value},
            ":-": {"unset": word, "empty": word, "set": value},
            "-": {"unset": word, "empty": "", "set": value},
            ":?": {"unset": None, "empty": None, "set": value},
            "?": {"unset": None, "empty": "", "set": value},
            ":+": {"unset": "", "empty": "", "set": word},
            "+": {"unset": "", "empty": word, "set": word},
        }
        result = table[operator][state]
        if result is None:
            raise LookupError
        return result if isinstance(result, str) else self.value(result)


def render(parts) -> str:
    rendered = ""
    for part in parts:
        if isinstance(part, str):
            rendered += part.replace("$", "$$")
        else:
            name, operator, word = part
            rendered += f"${{{name}{operator}{render(word)}}}"
    return rendered


literals = st.text(alphabet="ab$:-?+ é{", max_size=4)
names = st.sampled_from(["A", "B", "_c1"])
operators = st.sampled_from([":-", "-", ":?", "?", ":+", "+"])
templates = st.recursive(
    st.lists(literals | st.tuples(names, st.just(""), st.just([])), max_size=3),
    lambda inner: st.lists(literals | st.tuples(names, operators, inner), max_size=3),
    max_leaves=8,
)


@thorough
@given(templates, st.dictionaries(names, st.text(alphabet="xy$}", max_size=3)))
def test_interpolation_follows_its_table(template, environ):
    try:
        expected = Model(environ).value(template)
    except LookupError:
        expected = None
    try:
        result = interpolate(render(template), environ).text
    except BadValue:
        result = None
    assert result == expected


@quick
@given(st.text(max_size=60) | st.text(alphabet="${}AB:-?+", max_size=30))
def test_interpolating_any_text_ends_in_a_text_or_a_bad_value(text):
    result, error = outcome(interpolate, text, {"A": "a", "B": ""})
    assert error.hint if result is None else isinstance(result.text, str)


@quick
@given(st.text(max_size=200))
def test_a_text_with_its_dollars_doubled_is_itself(text):
    assert interpolate(text.replace("$", "$$"), {}).text == text


@quick
@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), st.text(alphabet="ab '#$=\\ \"é", max_size=10)
    ),
    st.sampled_from(["single", "double"]),
)
def test_quoted_values_of_an_env_file_come_back(values, quote):
    lines = []
    for name, value in values.items():
        if quote == "single" and "'" not in value:
            lines.append(f"{name}='{value}'")
        else:
            escaped = "".join(f"\\{char}" if char in '\\"$' else char for char in value)
            lines.append(f'{name}="{escaped}" # note')
    assert dict(parse_env_file("\n".join(lines), {}).values) == values


@quick
@given(st.text(max_size=100) | st.text(alphabet="AB='\"\\$#{ \n", max_size=40))
def test_any_env_file_is_read_or_refused_with_its_line(text):
    result, error = outcome(parse_env_file, text, {"A": "1"})
    assert result is not None or 1 <= error.line <= text.count("\n") + 1


graphs = st.integers(0, 8).flatmap(
    lambda count: st.fixed_dictionaries(
        {index: st.sets(st.integers(0, max(0, count - 1)), max_size=3) for index in range(count)}
    )
)


@quick
@given(graphs)
def test_waves_hold_everything_once_after_what_it_needs(graph):
    graph_needs = {str(name): {str(need) for need in desired} for name, desired in graph.items()}
    ordered, error = outcome(waves, graph_needs)
    if error is not None:
        for name, need in zip(error.cycle, (*error.cycle[1:], error.cycle[0]), strict=True):
            assert need in graph_needs[name]
        assert len(set(error.cycle)) == len(error.cycle)
        return
    wave_of = {name: number for number, wave in enumerate(ordered) for name in wave}
    assert sorted(wave_of) == sorted(graph_needs)
    assert sum(map(len, ordered)) == len(graph_needs)
    for name, desired in graph_needs.items():
        assert wave_of[name] == 1 + max((wave_of[need] for need in desired), default=-1)


@quick
@given(st.text(alphabet="0123456789.hmsun-", max_size=12))
def test_a_duration_is_refused_or_not_negative(text):
    seconds, error = outcome(parse_duration, text)
    assert error.hint if seconds is None else seconds >= 0


@quick
@given(st.integers(1, 4 << 20), st.sampled_from(["", "b", "k", "kb", "KiB", "m", "MB", "g"]))
def test_a_size_counts_in_powers_of_two(number, unit):
    factor = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[unit[:1].lower()]
    assert parse_size(f"{number}{unit}") == number * factor

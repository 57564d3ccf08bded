"""CNI SPEC 1.1.0 as a checklist, the executable's half: environment and standard input to a request."""

import json

import pytest

from sealane.programs.api import RefusedError
from sealane.programs.cni.errors import CniError, from_daemon
from sealane.programs.cni.runtime import CAPABILITIES
from sealane.programs.cni.spec import (
    OPTIONS,
    OWN_IPAM_OPTIONS,
    VERSIONS,
    read_args,
    read_request,
    version_of,
)
from sealane.wire.cni import CniCapabilities, CniConfig, CniIpam

ENVIRON = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/run/netns/a",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}


def read(verb="ADD", environ=None, stdin=None, **config):
    document = {"cniVersion": "1.1.0", "name": "pods", "type": "sealane", **config}
    given = {**ENVIRON, "CNI_COMMAND": verb, **(environ or {})}
    return read_request(
        {key: value for key, value in given.items() if value is not None},
        json.dumps(document).encode() if stdin is None else stdin,
    )


def refusal(*args, **fields):
    with pytest.raises(CniError) as caught:
        read(*args, **fields)
    return caught.value


def test_a_request_has_what_the_runtime_said():
    request = read(environ={"CNI_ARGS": "IP=10.1.0.5"}, mtu=1400)
    assert (request.verb, request.container_id, request.ifname, request.netns) == (
        "ADD",
        "c1",
        "eth0",
        "/run/netns/a",
    )
    assert request.path == ["/opt/cni/bin", "/usr/lib/cni"]
    assert (request.name, request.version, request.config["mtu"]) == ("pods", "1.1.0", 1400)
    assert request.args == {"IP": "10.1.0.5"}
    assert request.delegate == ""


@pytest.mark.parametrize(
    ("verb", "missing"),
    [
        ("ADD", ["CNI_PATH", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"]),
        ("CHECK", ["CNI_PATH", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"]),
        ("DEL", ["CNI_PATH", "CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC", ["CNI_PATH"]),
        ("STATUS", ["CNI_PATH"]),
    ],
)
def test_what_is_missing_from_the_environment_is_named_all_at_once(verb, missing):
    error = refusal(verb, environ={name: "" for name in ENVIRON if name != "CNI_COMMAND"})
    assert (error.code, error.message) == (4, f"required env variables [{','.join(missing)}] missing")


def test_del_needs_no_namespace_and_gc_and_status_no_container():
    assert read("DEL", environ={"CNI_NETNS": ""}).netns == ""
    for verb in ("GC", "STATUS"):
        assert (
            read(verb, environ={"CNI_CONTAINERID": None, "CNI_IFNAME": None, "CNI_NETNS": None}).container_id
            == ""
        )


def test_version_needs_nothing_and_reads_nothing():
    assert read_request({"CNI_COMMAND": "VERSION"}, b"garbage").verb == "VERSION"
    assert version_of(b"garbage") == version_of(b"[1]") == version_of(b'{"cniVersion": "9"}') == "1.1.0"
    assert version_of(b'{"cniVersion": "0.4.0"}') == "0.4.0"


def test_an_unknown_command_is_told_as_old_runtimes_probe_for_it():
    error = refusal("FLY")
    assert (error.code, error.message) == (4, "unknown CNI_COMMAND: FLY")


@pytest.mark.parametrize("stdin", [b"", b"{", b"[]", b"{} {}", b"\xff", b"[" * 100_000])
def test_a_configuration_that_is_none_is_code_6(stdin):
    assert refusal(stdin=stdin).code == 6


def test_a_configuration_that_is_too_long_is_code_6():
    assert refusal(stdin=b"{" + b" " * (1 << 20) + b"}").code == 6


@pytest.mark.parametrize("version", ["2.0.0", "", 1, None, ["1.0.0"], {}])
def test_a_version_that_is_not_known_is_code_1_and_says_which_are(version):
    error = refusal(cniVersion=version)
    assert error.code == 1
    assert "1.1.0" in error.details


@pytest.mark.parametrize(("verb", "since"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")])
def test_a_verb_is_of_its_version(verb, since):
    for version in VERSIONS:
        if VERSIONS.index(version) < VERSIONS.index(since):
            error = refusal(verb, cniVersion=version)
            assert (error.code, error.message) == (1, f"config version does not allow {verb}")
        else:
            assert read(verb, cniVersion=version).version == version


def test_no_version_is_the_first():
    assert read(stdin=b'{"name": "pods", "type": "sealane"}').version == "0.1.0"


@pytest.mark.parametrize("name", ["", "a/b", "-a", "ä", "a b", ".a", 7, None, "a\n"])
def test_a_network_name_is_of_the_grammar(name):
    assert refusal(name=name).code == 7


@pytest.mark.parametrize("identity", ["a/b", "-a", "ä", "a b", "../x", "a\n"])
def test_a_container_id_is_of_the_grammar(identity):
    assert refusal(environ={"CNI_CONTAINERID": identity}).code == 4


@pytest.mark.parametrize("ifname", [".", "..", "a/b", "a:b", "a b", "a" * 16, "ö" * 8, "a\tb"])
def test_a_link_name_is_one_that_the_kernel_takes(ifname):
    assert refusal(environ={"CNI_IFNAME": ifname}).code == 4


def test_the_longest_link_name_passes():
    assert read(environ={"CNI_IFNAME": "a" * 15}).ifname == "a" * 15


def test_a_key_that_is_not_known_is_code_2_with_key_and_value():
    error = refusal(ipMsaq=True)
    assert error.code == 2
    assert "ipMsaq" in error.message
    assert "true" in error.message
    error = refusal(ipam={"type": "sealane", "dataDir": "/x"})
    assert (error.code, error.message) == (2, 'unsupported field ipam.dataDir: "/x"')


def test_what_runtimes_put_in_is_no_unknown_key():
    keys = {"prevResult": {}, "runtimeConfig": {"x": 1}, "args": {}, "capabilities": {"x": True}, "dns": {}}
    assert read(**keys, **{"cni.dev/attachments": []}).name == "pods"


@pytest.mark.parametrize("key", ["ipam", "runtimeConfig", "args", "dns", "prevResult"])
def test_an_object_is_one_or_is_left_out(key):
    assert refusal(**{key: []}).code == 7
    assert key not in read(**{key: None}).config


@pytest.mark.parametrize("kind", ["", "../x", "a/b", "..", 5, None])
def test_an_ipam_plugin_is_a_plain_name(kind):
    assert refusal(ipam={"type": kind}).code == 7


def test_an_ipam_plugin_of_somebody_else_has_keys_of_its_own():
    assert read(ipam={"type": "host-local", "dataDir": "/x"}).delegate == "host-local"


def test_args_are_the_known_ones():
    words = "IgnoreUnknown=1;K8S_POD_NAME=web;FOO=bar;IP=10.1.0.5"
    assert read_args(words) == {"K8S_POD_NAME": "web", "IP": "10.1.0.5"}
    assert read_args("") == {}


@pytest.mark.parametrize("words", ["FOO=1", "IP", "IP=1;", "IgnoreUnknown=maybe", "IgnoreUnknown=0;FOO=1"])
def test_args_that_are_not_known_or_no_pairs_are_code_4(words):
    with pytest.raises(CniError) as caught:
        read_args(words)
    assert caught.value.code == 4


def test_keys_are_those_that_the_daemon_understands():
    fields = _names(CniConfig)
    fixed = {
        "name",
        "ipam",
        "dns",
        "runtimeConfig",
        "args",
        "cni.dev/valid-attachments",
        "cni.dev/attachments",
    }
    assert fields - fixed == OPTIONS
    assert _names(CniCapabilities) == CAPABILITIES
    assert _names(CniIpam) == OWN_IPAM_OPTIONS


def _names(kind):
    return set(kind.__struct_encode_fields__)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": "invalid", "field": "mtu"}, 7),
        ({"code": "invalid", "field": "netns"}, 8),
        ({"code": "not_found", "field": "netns"}, 8),
        ({"code": "conflict", "field": "ifname"}, 100),
        ({"code": "exists"}, 7),
        ({"code": "full"}, 101),
        ({"code": "kernel"}, 102),
        ({"code": "unavailable"}, 11),
        ({"code": "store"}, 11),
        ({"code": "internal"}, 103),
        ({}, 103),
    ],
)
def test_a_refusal_of_the_daemon_has_a_code_that_runtimes_know(body, code):
    assert from_daemon(RefusedError(body)).code == code


def test_an_error_is_a_document():
    error = from_daemon(RefusedError({"code": "invalid", "field": "mtu", "message": "no", "hint": "yes"}))
    assert error.document("0.4.0") == {"cniVersion": "0.4.0", "code": 7, "msg": "mtu: no", "details": "yes"}

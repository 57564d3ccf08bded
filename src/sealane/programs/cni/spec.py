"""From a CNI call's environment and standard input to a request. No I/O.

The order of the checks, and the codes, are those of the reference library (containernetworking/cni pkg/skel at
3f51e88): what is missing from the environment first, then the configuration, then each value's grammar.
"""

from __future__ import annotations

from sealane.programs import text
from sealane.programs.cni import CONFIG_BYTES_MAX, VERSIONS
from sealane.programs.cni.errors import (
    CONFIG,
    DECODE,
    ENVIRONMENT,
    INCOMPATIBLE_VERSION,
    UNSUPPORTED_FIELD,
    CniError,
)
from sealane.programs.cni.runtime import read_capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CURRENT = VERSIONS[-1]
UNSTATED = "0.1.0"
"""What a configuration without `cniVersion` is of (pkg/version/conf.go)."""

SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
ATTACHMENT_VERBS = frozenset({"ADD", "DEL", "CHECK"})
VERBS = frozenset({*ATTACHMENT_VERBS, "GC", "STATUS", "VERSION"})
MAKING_VERBS = frozenset({"ADD", "STATUS"})
"""Those that read the whole object. The others need the network's name and the IPAM plugin's, and do not judge the rest:
an object that was changed after ADD, or that ADD refused, must not keep a pod from being deleted."""
LINK_NAME_MAX = 15
OWN_IPAM = "sealane"

_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_ID = _ALNUM | frozenset("_.-")
ARGS = frozenset(
    {
        "IgnoreUnknown",
        "IP",
        "MAC",
        "K8S_POD_NAME",
        "K8S_POD_NAMESPACE",
        "K8S_POD_UID",
        "K8S_POD_INFRA_CONTAINER_ID",
    }
)
TRUE, FALSE = frozenset({"1", "true"}), frozenset({"0", "false"})

RESERVED = frozenset(
    {"cniVersion", "name", "type", "ipam", "dns", "prevResult", "runtimeConfig", "args", "capabilities"}
)
OPTIONS = frozenset(
    {"driver", "bridge", "mtu", "internal", "isGateway", "ipMasq", "portIsolation", "fastPath", "resolver"}
    | {"ingressRate", "ingressBurst", "egressRate", "egressBurst"}
)
"""Keys of ours; `wire.cni.CniConfig` says what they mean."""
OWN_IPAM_OPTIONS = frozenset({"type", "ranges"})


class Request:
    """One call. Empty is what the verb does not have."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.container_id = ""
        self.ifname = ""
        self.netns = ""
        self.path: list[str] = []
        self.args: dict[str, str] = {}
        self.version = CURRENT
        self.name = ""
        self.config: dict[str, Any] = {}
        self.stdin = b""

    @property
    def delegate(self) -> str:
        """The IPAM plugin that the configuration names; empty: addresses are ours to give."""
        kind = self.config.get("ipam", {}).get("type", OWN_IPAM)
        return "" if kind == OWN_IPAM else str(kind)

    def document(self, **more: Any) -> dict[str, Any]:
        """`wire.cni.CniRequest`: this, and `more` of its fields."""
        config = {
            key: value
            for key, value in self.config.items()
            if key not in {"prevResult", "capabilities"}
            and (self.verb in MAKING_VERBS or _is_known_to_all(key))
        }
        if self.delegate:
            config.pop("ipam", None)
        return {
            "verb": self.verb,
            "container_id": self.container_id,
            "ifname": self.ifname,
            "netns": self.netns,
            "args": self.args,
            "config": config,
            **more,
        }


def read_request(environ: Mapping[str, str], stdin: bytes) -> Request:
    """A call of the plugin `sealane`. Raises CniError. The version in the error's document is `version_of(stdin)`."""
    request = read_call(environ, stdin)
    if request.verb != "VERSION":
        _read_objects(request, request.config)
        if request.verb == "ADD":
            request.args = read_args(environ.get("CNI_ARGS", ""))
    return request


def read_call(environ: Mapping[str, str], stdin: bytes) -> Request:
    """What a call of any plugin has; of the configuration no more is judged than version and name. Raises CniError."""
    verb = environ.get("CNI_COMMAND", "")
    if verb not in VERBS:
        raise CniError(ENVIRONMENT, f"unknown CNI_COMMAND: {verb}")
    request = Request(verb)
    if verb == "VERSION":
        return request
    _check_present(verb, environ)
    request.path = [part for part in environ["CNI_PATH"].split(":") if part]
    _read_config(request, stdin)
    if verb in ATTACHMENT_VERBS:
        request.container_id = _container_id(environ["CNI_CONTAINERID"])
        request.ifname = _ifname(environ["CNI_IFNAME"])
        request.netns = environ.get("CNI_NETNS", "")
    return request


def version_of(stdin: bytes) -> str:
    """The version that an answer to this configuration has, whatever else is wrong with it."""
    try:
        version = text.loads(stdin)["cniVersion"]
    except (ValueError, KeyError, TypeError):
        return CURRENT
    return version if version in VERSIONS else CURRENT


def _check_present(verb: str, environ: Mapping[str, str]) -> None:
    needed = ["CNI_PATH"]
    if verb in ATTACHMENT_VERBS:
        needed += ["CNI_CONTAINERID", "CNI_IFNAME"]
        if verb != "DEL":
            needed.append("CNI_NETNS")
    missing = [name for name in needed if not environ.get(name)]
    if missing:
        raise CniError(ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")


def _read_config(request: Request, stdin: bytes) -> None:
    if len(stdin) > CONFIG_BYTES_MAX:
        raise CniError(DECODE, f"the network configuration has more than {CONFIG_BYTES_MAX} bytes")
    try:
        config = text.loads(stdin)
    except ValueError as error:
        raise CniError(DECODE, f"the network configuration is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise CniError(DECODE, "the network configuration is no JSON object")
    request.config, request.stdin = config, stdin
    request.version = _version(request.verb, config.get("cniVersion", UNSTATED))
    request.name = _network_name(config.get("name", ""))


def _read_objects(request: Request, config: dict[str, Any]) -> None:
    if request.verb not in MAKING_VERBS:
        _read_delegate(config)
        if request.verb == "CHECK":
            _check_objects(config, ("prevResult",))
        return
    _check_objects(config, ("ipam", "runtimeConfig", "args", "dns", "prevResult"))
    _check_keys(config)
    _check_ipam(request, config.get("ipam", {}))
    if "runtimeConfig" in config:
        config["runtimeConfig"] = read_capabilities(config["runtimeConfig"])


def _check_objects(config: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Each is an object, or is left out: null says nothing."""
    for key in keys:
        if config.get(key) is None:
            config.pop(key, None)
        elif not isinstance(config[key], dict):
            raise CniError(CONFIG, f"{key}: an object is meant, not {text.dumps(config[key])}")


def _read_delegate(config: dict[str, Any]) -> None:
    """Leave of `ipam` a plugin that can have given an address; of what no ADD has taken there is nothing to give back."""
    ipam = config.pop("ipam", None)
    if isinstance(ipam, dict) and _is_plugin(ipam.get("type")):
        config["ipam"] = ipam


def _is_known_to_all(key: str) -> bool:
    return key == "name" or key.startswith("cni.dev/")


def _version(verb: str, version: object) -> str:
    if version not in VERSIONS:
        details = f"config is {text.dumps(version)}, plugin supports {text.dumps(VERSIONS)}"
        raise CniError(INCOMPATIBLE_VERSION, "incompatible CNI versions", details)
    assert isinstance(version, str)
    since = SINCE.get(verb, UNSTATED)
    if VERSIONS.index(version) < VERSIONS.index(since):
        raise CniError(
            INCOMPATIBLE_VERSION, f"config version does not allow {verb}", f"{verb} came with {since}"
        )
    return version


def _network_name(name: object) -> str:
    if name == "":
        raise CniError(CONFIG, "missing network name")
    if not isinstance(name, str) or not is_id(name):
        raise CniError(CONFIG, f"invalid characters found in network name: {text.dumps(name)}")
    return name


def _check_keys(config: dict[str, Any]) -> None:
    """A key that is not known is refused, not ignored: a misspelt `ipMasq` would leave a network without its way out."""
    for key, value in config.items():
        if key not in RESERVED and key not in OPTIONS and not key.startswith("cni.dev/"):
            _unsupported(key, value, f"known are {', '.join(sorted(OPTIONS))}")


def _check_ipam(request: Request, ipam: dict[str, Any]) -> None:
    kind = ipam.get("type", OWN_IPAM)
    if not _is_plugin(kind):
        raise CniError(CONFIG, f"ipam.type: {text.dumps(kind)} is not the name of a plugin")
    if request.delegate:
        return
    for key, value in ipam.items():
        if key not in OWN_IPAM_OPTIONS:
            _unsupported(f"ipam.{key}", value, f"our own IPAM knows {', '.join(sorted(OWN_IPAM_OPTIONS))}")


def _is_plugin(kind: object) -> bool:
    return isinstance(kind, str) and kind not in {"", ".", ".."} and "/" not in kind


def _unsupported(key: str, value: object, details: str) -> None:
    raise CniError(UNSUPPORTED_FIELD, f"unsupported field {key}: {text.dumps(value)}", details)


def _container_id(value: str) -> str:
    if not is_id(value):
        raise CniError(ENVIRONMENT, f"invalid characters in containerID: {text.dumps(value)}")
    return value


def is_id(value: str) -> bool:
    return value[:1] in _ALNUM and _ID.issuperset(value) and value != ""


def _ifname(value: str) -> str:
    if len(value.encode("utf-8", "surrogateescape")) > LINK_NAME_MAX:
        raise CniError(ENVIRONMENT, f"interface name {value} is too long: at most {LINK_NAME_MAX} bytes")
    if value in {".", ".."} or any(sign in "/:" or sign.isspace() for sign in value):
        raise CniError(
            ENVIRONMENT, f"interface name {text.dumps(value)}: no `/`, `:` or blank, and not `.` or `..`"
        )
    return value


def read_args(words: str) -> dict[str, str]:
    """`K=V;K2=V2`. Unknown keys are an error unless IgnoreUnknown says otherwise (CONVENTIONS.md)."""
    args: dict[str, str] = {}
    for pair in words.split(";") if words else ():
        key, sign, value = pair.partition("=")
        if not sign:
            raise CniError(ENVIRONMENT, f"CNI_ARGS: invalid CNI_ARGS pair {text.dumps(pair)}")
        args[key] = value
    unknown = sorted(set(args) - ARGS)
    said = args.pop("IgnoreUnknown", "false").lower()
    if said not in TRUE | FALSE:
        raise CniError(ENVIRONMENT, f"CNI_ARGS: IgnoreUnknown is neither true nor false: {text.dumps(said)}")
    if unknown and said in FALSE:
        raise CniError(ENVIRONMENT, f"CNI_ARGS: unknown args {text.dumps(unknown)}", "or say IgnoreUnknown=1")
    return {key: value for key, value in args.items() if key in ARGS}

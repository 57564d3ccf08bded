"""From a container's annotations to requests to attach. Pure.

| annotation | as `sealane attach`'s |
|---|---|
| `sealane.networks` | NETWORK, a list; the first is the way out |
| `sealane.name` | `--name`; without it the container's id |
| `sealane.aliases`, `sealane.publish`, `sealane.sysctls`, `sealane.labels` | flag of that name, a list |
| `sealane.ip`, `sealane.mac`, `sealane.ifname` | flag of that name, where there is one network |
| `sealane.NETWORK.FIELD` | the same for one network, before what is said for all; and `gw-priority` |

Lists are of words with commas or blanks between them: podman 4 takes `--annotation a=b,c` for two annotations.
"""

from collections.abc import Mapping

import msgspec

from sealane.compose.ports import parse_port_spec
from sealane.compose.problems import BadValue
from sealane.compose.publish import publish_request
from sealane.engine.attachments import attach_requests
from sealane.engine.errors import InvalidError
from sealane.engine.labels import check_labels
from sealane.engine.problems import parsed
from sealane.model.ids import NAME_MAX, parse_name
from sealane.model.intent import Intent
from sealane.model.net import ParseError
from sealane.wire.oci import OciRequest
from sealane.wire.requests import Attachment, AttachRequest, ContainerRequest, PublishRequest

PREFIX = "sealane."
CONTAINER, PID = "sealane.oci.container", "sealane.oci.pid"
"""Labels of an attachment: whose it is."""
SHORT_ID = 12
"""Characters of an id that is too long for a name, as podman shows them."""
FIRST_PRIORITY = 1
NETWORKS_MAX = 64
"""Of one container. Whoever may start pods writes annotations, and the daemon has one thread."""

FOR_ALL = ("networks", "name", "aliases", "publish", "ip", "mac", "ifname", "sysctls", "labels")
FOR_ONE = ("name", "aliases", "ip", "mac", "ifname", "sysctls", "gw-priority")
_OF_ONE_NETWORK = ("ip", "mac", "ifname")
_ANNOTATIONS = {"addresses": "ip", "gateway_priority": "gw-priority", "network": "networks"}
"""Where the engine calls a field by another name."""


def desired(request: OciRequest, intent: Intent) -> list[AttachRequest]:
    """In the order of `sealane.networks`. Raises InvalidError with the annotation."""
    said = {key.removeprefix(PREFIX): value for key, value in request.annotations.items()}
    networks = _networks(said)
    _check_keys(said, networks)
    given = _pairs(said, "labels")
    check_labels(given, f"{PREFIX}labels")
    labels = {**given, CONTAINER: request.id, PID: str(request.pid)}
    container = ContainerRequest(
        name="",
        spec=msgspec.Raw(b"{}"),
        attachments=[
            _attachment(request.id, _narrowed(said, network), network, is_first=not number)
            for number, network in enumerate(networks)
        ],
        publish=_publish(said),
    )
    return [
        msgspec.structs.replace(
            each, sandbox=str(request.pid), sandbox_name=container.attachments[0].name, labels=labels
        )
        for each in attach_requests(container, intent)
    ]


def annotation_of(field: str, network: str, annotations: Mapping[str, str]) -> str:
    """The annotation that a field of an AttachRequest was made of; other fields stay."""
    name, bracket, rest = field.partition("[")
    name, dot, more = name.partition(".")
    name = _ANNOTATIONS.get(name, name)
    for key in (f"{PREFIX}{network}.{name}", f"{PREFIX}{name}"):
        if key in annotations:
            return f"{key}{dot}{more}{bracket}{rest}"
    return field


def _networks(said: Mapping[str, str]) -> list[str]:
    networks = _words(said, "networks")
    if not networks:
        some = next(iter(said), "")
        raise InvalidError(
            f"{PREFIX}{some} is of no network",
            field=f"{PREFIX}networks",
            hint="name the networks, as in front,back",
        )
    if len(networks) > NETWORKS_MAX:
        raise InvalidError(
            f"{len(networks)} networks for one container",
            field=f"{PREFIX}networks",
            hint=f"at most {NETWORKS_MAX}",
        )
    for name in networks:
        if networks.count(name) > 1:
            raise InvalidError(f"{name} is given twice", field=f"{PREFIX}networks", hint="keep one of them")
    return networks


def _check_keys(said: Mapping[str, str], networks: list[str]) -> None:
    for key in said:
        if key in FOR_ALL:
            if key in _OF_ONE_NETWORK and len(networks) > 1:
                raise InvalidError(
                    f"one {key} for {len(networks)} networks",
                    field=f"{PREFIX}{key}",
                    hint=f"write {PREFIX}{networks[0]}.{key}",
                )
            continue
        network, _, field = key.rpartition(".")
        if not network or field not in FOR_ONE:
            known = ", ".join(FOR_ALL), ", ".join(FOR_ONE)
            raise InvalidError(
                "there is no such annotation",
                field=f"{PREFIX}{key}",
                hint=f"{PREFIX} goes on with {known[0]}, or NETWORK. and {known[1]}",
            )
        if network not in networks:
            raise InvalidError(
                f"{network} is none of the container's networks",
                field=f"{PREFIX}{key}",
                hint=f"they are {', '.join(networks)} by {PREFIX}networks",
            )


def _narrowed(said: Mapping[str, str], network: str) -> dict[str, tuple[str, str]]:
    """By field, the annotation that says it for this network, and its value."""
    found = {}
    for field in FOR_ONE:
        for key in (f"{network}.{field}", field):
            if key in said and (key != field or field in FOR_ALL):
                found[field] = (f"{PREFIX}{key}", said[key])
                break
    return found


def _attachment(
    identity: str, said: Mapping[str, tuple[str, str]], network: str, *, is_first: bool
) -> Attachment:
    name, also = _names(identity, said.get("name"))

    def words(field: str) -> list[str]:
        key, value = said.get(field, ("", ""))
        return _split(value, key)

    def one(field: str) -> str:
        return said.get(field, ("", ""))[1]

    return Attachment(
        network=network,
        name=name,
        addresses=words("ip"),
        mac=one("mac"),
        ifname=one("ifname"),
        aliases=list(dict.fromkeys([*words("aliases"), *also])),
        gateway_priority=_priority(said.get("gw-priority"), is_first=is_first),
        sysctls=_equations(*reversed(said.get("sysctls", ("", "")))),
    )


def _names(identity: str, given: tuple[str, str] | None) -> tuple[str, list[str]]:
    """The name, and the id where it is another that can be a name, too."""
    own = identity[:SHORT_ID] if len(identity) > NAME_MAX else identity
    if given is None or not given[1]:
        try:
            return parse_name(own), []
        except ParseError as error:
            hint = f"give a name in {PREFIX}name"
            raise InvalidError(
                f"the container's id is none for DNS: {error}", field="id", hint=hint
            ) from error
    name = parsed(parse_name, given[1], given[0])
    try:
        return name, [parse_name(own)] if own != name else []
    except ParseError:
        return name, []


def _priority(given: tuple[str, str] | None, *, is_first: bool) -> int:
    if given is None:
        return FIRST_PRIORITY if is_first else 0
    key, text = given
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise InvalidError(f"{text!r} is not a number", field=key, hint="as 10")
    return int(text)


def _publish(said: Mapping[str, str]) -> list[PublishRequest]:
    requests = []
    for word in _words(said, "publish"):
        try:
            requests.append(publish_request(parse_port_spec(word)))
        except BadValue as error:
            raise InvalidError(error.message, field=f"{PREFIX}publish", hint=error.hint) from error
    return requests


def _pairs(said: Mapping[str, str], key: str) -> dict[str, str]:
    return _equations(said.get(key, ""), f"{PREFIX}{key}")


def _equations(text: str, key: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in _split(text, key):
        name, _, value = word.partition("=")
        if not name or name in found:
            what = f"{name!r} is given twice" if name else f"{word!r} has no key"
            raise InvalidError(what, field=key, hint="write KEY=VALUE,KEY=VALUE")
        found[name] = value
    return found


def _words(said: Mapping[str, str], key: str) -> list[str]:
    return _split(said.get(key, ""), f"{PREFIX}{key}")


def _split(text: str, key: str) -> list[str]:
    words = [word for part in text.split(",") for word in (part.split() or [""])] if text.strip() else []
    if "" in words:
        raise InvalidError(f"{text!r} has an empty word", field=key, hint="write a,b")
    return words

"""Paths to verbs: the table of `sealane.wire`, one line each. A route translates and does nothing else."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

from sealane.api.detach import Detacher
from sealane.api.follow import changes, events
from sealane.api.services import Containers, Images, Projects, Services
from sealane.containers.frames import PROTOCOL
from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError, NotFoundError
from sealane.engine.explaining import explain_packet
from sealane.engine.labels import belonging, check_labels
from sealane.engine.notices import notice, refuse_if_blind
from sealane.engine.sockets import list_sockets
from sealane.http.call import AsyncVerb, Call, Hijacker, Lines, MethodError, Query, Route, SyncVerb, Upgraded
from sealane.http.json import Body
from sealane.integrations.cni import forwarded
from sealane.integrations.cni.verbs import Cni
from sealane.integrations.netavark.verbs import Netavark
from sealane.integrations.oci.verbs import Oci
from sealane.model.signals import signal_number
from sealane.wire.cni import CniRequest
from sealane.wire.diagnosis import CheckRequest, DoctorRequest, ExplainRequest, TraceRequest
from sealane.wire.netavark import NetavarkRequest
from sealane.wire.oci import OciRequest
from sealane.wire.requests import (
    AttachRequest,
    ContainerRequest,
    DetachRequest,
    ExecRequest,
    ImageRequest,
    Manifest,
    NetworkRequest,
    SandboxRequest,
)

B = TypeVar("B")
L = TypeVar("L", NetworkRequest, SandboxRequest, AttachRequest)
Shape = tuple[str | None, ...]
"""Segments of a path below /v1; None stands for a REF."""
Methods = Mapping[str, Route]

DETACHES_MAX = 4096
"""Requests in one detach."""
SIGTERM = 15
SHOWN_CHARS = 80
SEGMENTS_MAX = 4


_OF_ITSELF = frozenset({"/v1/status", "/v1/version", "/v1/events"})
"""What the daemon says of itself, also while it knows nothing else."""
_DIAGNOSES = frozenset({"/v1/explain", "/v1/check", "/v1/trace", "/v1/doctor"})
"""Questions that are sent as POST."""


class Routes:
    def __init__(self, services: Services) -> None:
        detacher = Detacher(services.engine)
        self._engine = services.engine
        self._table: dict[Shape, Methods] = {
            **_daemon_routes(services),
            **_network_routes(services.engine),
            **_endpoint_routes(services.engine, detacher),
            **_integration_routes(services, detacher),
            **_project_routes(services.project),
            **_image_routes(services.images),
            **_container_routes(services.workloads),
        }

    def find(self, method: str, target: str) -> tuple[Route, Call[bytes]]:
        """The route, and the call with its body still to come. Raises NotFoundError, MethodError, InvalidError."""
        path, _, query = target.partition("?")
        methods, ref = self._match(path)
        route = methods.get(method)
        if route is None:
            raise MethodError(", ".join(sorted(methods)))
        if path not in _OF_ITSELF:
            refuse_if_blind(self._engine)
        return route, Call(ref, Query(_parse_query(query, route.query)), b"")

    def notice(self, method: str, target: str) -> str:
        path = target.partition("?")[0]
        is_question = method == "GET" or path in _DIAGNOSES
        return notice(self._engine) if is_question and path not in _OF_ITSELF else ""

    def _match(self, path: str) -> tuple[Methods, str]:
        head, *parts = path.removeprefix("/").split("/", SEGMENTS_MAX)
        shape: Shape = tuple(parts)
        if head == "v1" and 1 <= len(parts) < SEGMENTS_MAX:
            if shape in self._table:
                return self._table[shape], ""
            shape = (parts[0], None, *parts[2:])
            if len(parts) > 1 and shape in self._table:
                return self._table[shape], _unquoted(parts[1])
            shape = (parts[0], None, None)
            if len(parts) > 2 and shape in self._table:
                return self._table[shape], f"{_unquoted(parts[1])}/{_unquoted(parts[2])}"
        raise NotFoundError(f"there is no {path[:SHOWN_CHARS]!r}", hint="see the table in sealane.wire")


def _unquoted(segment: str) -> str:
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise InvalidError("the path is not UTF-8 under its percent signs", field="path") from None


def _parse_query(text: str, known: frozenset[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        name, _, value = pair.partition("=")
        if name not in known:
            hint = f"this path takes {', '.join(sorted(known))}" if known else "this path takes no parameters"
            raise InvalidError(f"there is no parameter {name[:SHOWN_CHARS]!r}", field="query", hint=hint)
        if name in values:
            raise InvalidError(f"{name} is given twice", field=name)
        values[name] = _unquoted(value)
    return values


def _route(
    verb: SyncVerb | AsyncVerb | Lines,
    *,
    query: tuple[str, ...] = (),
    body: type[Any] | object = None,
    upgraded: Upgraded | None = None,
) -> Route:
    return Route(
        verb=verb,
        upgraded=upgraded,
        query=frozenset(query),
        body=None if body is None else Body(body),  # type: ignore[arg-type]
    )


def _given(verb: Callable[[B], object]) -> SyncVerb:
    """A verb that takes the body."""

    def answer(call: Call[B]) -> object:
        return verb(call.body)

    return SyncVerb(answer)


def _labelling(verb: Callable[[L], object]) -> SyncVerb:
    """A verb that takes the body, whose labels become an object's."""

    def answer(call: Call[L]) -> object:
        check_labels(call.body.labels)
        return verb(call.body)

    return SyncVerb(answer)


def _about(verb: Callable[[str], object]) -> SyncVerb:
    """A verb that takes the reference."""
    return SyncVerb(lambda call: verb(call.ref))


def _daemon_routes(services: Services) -> dict[Shape, Methods]:
    resyncer, log = services.resyncer, services.engine.events
    follow = Lines(lambda call: events(log, call.query.whole("since"), follow=call.query.flag("follow")))
    feed = Lines(
        lambda call: changes(services.engine, call.query.whole("since"), follow=call.query.flag("follow"))
    )
    gc = SyncVerb(lambda call: resyncer.gc(confirmed=call.query.flag("confirm")))

    def explain(request: ExplainRequest) -> object:
        return explain_packet(services.engine, request)

    def sockets(call: Call[bytes]) -> object:
        return list_sockets(services.engine, call.query.text("sandbox"), every_state=call.query.flag("all"))

    return {
        ("version",): {"GET": _route(SyncVerb(lambda _: services.version()))},
        ("status",): {"GET": _route(SyncVerb(lambda _: services.status()))},
        ("gc",): {"POST": _route(gc, query=("confirm",))},
        ("explain",): {"POST": _route(_given(explain), body=ExplainRequest)},
        ("sockets",): {"GET": _route(SyncVerb(sockets), query=("sandbox", "all"))},
        ("check",): {"POST": _route(AsyncVerb(lambda call: services.check(call.body)), body=CheckRequest)},
        ("trace",): {"POST": _route(Lines(lambda call: services.trace(call.body)), body=TraceRequest)},
        ("doctor",): {"POST": _route(AsyncVerb(lambda call: services.doctor(call.body)), body=DoctorRequest)},
        ("audit",): {"GET": _route(SyncVerb(lambda _: resyncer.audit()))},
        ("events",): {"GET": _route(follow, query=("follow", "since"))},
        ("changes",): {"GET": _route(feed, query=("follow", "since"))},
    }


def _network_routes(engine: Engine) -> dict[Shape, Methods]:
    remove_network = SyncVerb(lambda call: engine.remove_network(call.ref, force=call.query.flag("force")))
    remove_sandbox = SyncVerb(lambda call: engine.remove_sandbox(call.ref, force=call.query.flag("force")))
    return {
        ("networks",): {
            "GET": _route(SyncVerb(lambda _: engine.networks())),
            "POST": _route(_labelling(engine.create_network), body=NetworkRequest),
        },
        ("networks", "prune"): {"POST": _route(SyncVerb(lambda _: engine.prune_networks()))},
        ("networks", None): {
            "GET": _route(_about(engine.network)),
            "DELETE": _route(remove_network, query=("force",)),
        },
        ("sandboxes",): {
            "GET": _route(SyncVerb(lambda _: engine.sandboxes())),
            "POST": _route(_labelling(engine.create_sandbox), body=SandboxRequest),
        },
        ("sandboxes", None): {
            "GET": _route(_about(engine.sandbox)),
            "DELETE": _route(remove_sandbox, query=("force",)),
        },
    }


def _endpoint_routes(engine: Engine, detacher: Detacher) -> dict[Shape, Methods]:
    listed = SyncVerb(lambda call: engine.endpoints(call.query.text("network"), call.query.text("sandbox")))
    one: Methods = {"GET": _route(_about(engine.endpoint))}

    def detach(call: Call[list[DetachRequest]]) -> object:
        if len(call.body) > DETACHES_MAX:
            raise InvalidError(f"{len(call.body)} detaches", hint=f"send at most {DETACHES_MAX} at once")
        return detacher.submit(call.body)

    return {
        ("endpoints",): {"GET": _route(listed, query=("network", "sandbox"))},
        ("endpoints", None): one,
        ("endpoints", None, None): one,
        ("attach",): {"POST": _route(_labelling(engine.attach), body=AttachRequest)},
        ("detach",): {"POST": _route(AsyncVerb(detach), body=list[DetachRequest])},  # type: ignore[arg-type]
    }


def _integration_routes(services: Services, detacher: Detacher) -> dict[Shape, Methods]:
    cni = Cni(services.engine, detacher.submit)
    netavark = Netavark(services.engine, services.resyncer, detacher.submit)
    oci = Oci(services.engine, detacher.submit)
    return {
        ("cni",): {"POST": _route(AsyncVerb(lambda call: cni.call(call.body, call.caller)), body=CniRequest)},
        ("cni", "forwarded"): {
            "POST": Route(
                verb=AsyncVerb(lambda call: forwarded.answer(cni, call.body, call.caller)),
                body=forwarded.ForwardedBody(),
            )
        },
        ("netavark",): {
            "POST": _route(
                AsyncVerb(lambda call: netavark.call(call.body, call.caller)), body=NetavarkRequest
            )
        },
        ("oci",): {"POST": _route(AsyncVerb(lambda call: oci.call(call.body)), body=OciRequest)},
    }


def _project_routes(project: Projects) -> dict[Shape, Methods]:
    plan = SyncVerb(lambda call: project.plan(belonging(call.body), delete=call.query.flag("delete")))
    apply = AsyncVerb(lambda call: project.apply(belonging(call.body)))
    delete = AsyncVerb(lambda call: project.delete(belonging(call.body)))
    return {
        ("plan",): {"POST": _route(plan, query=("delete",), body=Manifest)},
        ("apply",): {"POST": _route(apply, body=Manifest)},
        ("delete",): {"POST": _route(delete, body=Manifest)},
    }


def _image_routes(images: Images) -> dict[Shape, Methods]:
    return {
        ("images",): {
            "GET": _route(AsyncVerb(lambda _: images.list())),
            "POST": _route(Lines(lambda call: images.fetch(call.body)), body=ImageRequest),
        },
        ("images", "prune"): {"POST": _route(AsyncVerb(lambda _: images.prune()))},
        ("images", None): {"DELETE": _route(AsyncVerb(lambda call: images.remove(call.ref)))},
    }


def _container_routes(containers: Containers) -> dict[Shape, Methods]:
    listed = AsyncVerb(lambda call: containers.list(stopped=call.query.flag("all")))

    def create(call: Call[ContainerRequest]) -> Awaitable[object]:
        check_labels(call.body.labels)
        return containers.create(call.body, is_new=call.query.flag("new"))

    def attend(call: Call[ContainerRequest]) -> Awaitable[Hijacker]:
        check_labels(call.body.labels)
        return containers.create_attended(call.body)

    attended = Upgraded(PROTOCOL, attend)
    remove = AsyncVerb(lambda call: containers.remove(call.ref, force=call.query.flag("force")))
    stop = AsyncVerb(lambda call: containers.stop(call.ref, call.query.seconds("timeout")))
    kill = AsyncVerb(lambda call: containers.kill(call.ref, _signal(call.query)))
    wait = AsyncVerb(lambda call: containers.wait(call.ref), only_waits=True)
    execute = Lines(lambda call: containers.exec(call.ref, call.body))
    session = Upgraded(PROTOCOL, lambda call: containers.exec_session(call.ref, call.body))
    return {
        ("containers",): {
            "GET": _route(listed, query=("all",)),
            "POST": _route(AsyncVerb(create), query=("new",), body=ContainerRequest, upgraded=attended),
        },
        ("containers", None): {
            "GET": _route(AsyncVerb(lambda call: containers.get(call.ref))),
            "DELETE": _route(remove, query=("force",)),
        },
        ("containers", None, "request"): {
            "GET": _route(AsyncVerb(lambda call: containers.request(call.ref)))
        },
        ("containers", None, "start"): {"POST": _route(AsyncVerb(lambda call: containers.start(call.ref)))},
        ("containers", None, "stop"): {"POST": _route(stop, query=("timeout",))},
        ("containers", None, "kill"): {"POST": _route(kill, query=("signal",))},
        ("containers", None, "wait"): {"POST": _route(wait)},
        ("containers", None, "exec"): {"POST": _route(execute, body=ExecRequest, upgraded=session)},
        ("containers", None, "logs"): {"GET": _route(_logs(containers), query=("follow", "since", "tail"))},
    }


def _signal(query: Query) -> int:
    number = query.whole("signal")
    if number is None:
        return SIGTERM
    if signal_number(str(number)) is None:
        raise InvalidError(f"there is no signal {number}", field="signal")
    return number


def _logs(containers: Containers) -> Lines:
    return Lines(
        lambda call: containers.logs(
            call.ref,
            follow=call.query.flag("follow"),
            tail=call.query.whole("tail"),
            since=call.query.seconds("since"),
        )
    )

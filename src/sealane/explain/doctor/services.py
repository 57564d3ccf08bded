"""Causes in the application: where it listens, for which family, and whether it takes what comes."""

from collections.abc import Iterator, Sequence

from sealane.explain.doctor.case import DiagnosisInput, Finding, Publish, families_of
from sealane.explain.doctor.evidence import Listener
from sealane.model.endpoint import Endpoint
from sealane.model.net import Family

_SEEN_PROTOS = ("tcp", "udp")


def bound_to_loopback(case: DiagnosisInput) -> Iterator[Finding]:
    for publish, first, listeners in _published(case):
        lonely = [item for item in listeners if item.is_loopback]
        if lonely and len(lonely) == len(listeners):
            yield Finding(
                subject=case.name_of(publish.endpoint),
                message=f"{publish.port} is published, but {_who(lonely[0])} listens at {lonely[0].address} alone: only "
                "the sandbox itself reaches it",
                hint=f"let it listen at 0.0.0.0 or {_wanted(publish.endpoint)} port {first}",
                level="error",
            )


def nobody_listens(case: DiagnosisInput) -> Iterator[Finding]:
    for publish, first, listeners in _published(case):
        if not listeners:
            yield Finding(
                subject=case.name_of(publish.endpoint),
                message=f"{publish.port} is published, and nobody in the sandbox listens at port {first}",
                hint=f"start the service, or publish the port that it listens at: `sealane sockets "
                f"{publish.sandbox.name} --listening`",
                level="warning",
            )
        elif not any(_is_served(item, publish.endpoint) for item in listeners):
            others = [item for item in listeners if not item.is_loopback]
            if others:
                yield Finding(
                    subject=case.name_of(publish.endpoint),
                    message=f"{publish.port} is published, but {_who(others[0])} listens at {others[0].address}, which "
                    "is no address of the endpoint",
                    hint=f"let it listen at {_wanted(publish.endpoint)} or every address",
                    level="error",
                )


def wrong_family(case: DiagnosisInput) -> Iterator[Finding]:
    for sandbox, seen in case.seen():
        for endpoint in case.endpoints_of(sandbox):
            families = families_of(endpoint)
            if len(families) < 2:
                continue
            for proto, port in sorted({(i.proto, i.port) for i in seen.listeners if i.proto == "tcp"}):
                here = [i for i in seen.listeners if (i.proto, i.port) == (proto, port)]
                served = {f for item in here for f in _served_families(item, endpoint)}
                missing = [f for f in families if f not in served]
                if served and missing:
                    yield _half(case, endpoint, port, missing[0], here[0])


def _half(
    case: DiagnosisInput, endpoint: Endpoint, port: int, missing: Family, listener: Listener
) -> Finding:
    is_published = any(
        p.proto == "tcp" and p.port <= port <= p.port + p.host_last - p.host_first for p in endpoint.published
    )
    record = "AAAA" if missing == 6 else "A"
    return Finding(
        subject=case.name_of(endpoint),
        message=f"its name has an {record} record, but {_who(listener)} does not listen at port {port} over "
        f"IPv{missing}: who tries that family first is refused",
        hint=f"let it listen at {'[::]' if missing == 6 else '0.0.0.0'} too, or put the sandbox on a network without "
        f"IPv{missing}",
        level="warning" if is_published else "note",
    )


def backlog_full(case: DiagnosisInput) -> Iterator[Finding]:
    for sandbox, seen in case.seen():
        for item in seen.listeners:
            # The kernel takes one more than the backlog (sk_acceptq_is_full, include/net/sock.h).
            if item.proto == "tcp" and item.waiting > item.backlog:
                yield Finding(
                    subject=sandbox.name,
                    message=f"{_who(item)} at port {item.port} does not accept: {item.waiting} connections wait, and no "
                    "more are taken",
                    hint="see what the process is doing; a larger backlog (net.core.somaxconn) only makes them wait "
                    "longer",
                    level="error",
                )


# --- who listens where ----------------------------------------------------------------------------------------------


def _published(case: DiagnosisInput) -> Iterator[tuple[Publish, int, list[Listener]]]:
    """Publishes whose sandbox could be looked at, the port inside, and who listens there: of a range of ports, anywhere
    in it."""
    for publish in case.publishes():
        seen = case.evidence.sandboxes.get(publish.sandbox.id)
        if seen is None or publish.port.proto not in _SEEN_PROTOS:
            continue
        first = publish.port.port
        last = first + publish.port.host_last - publish.port.host_first
        yield (
            publish,
            first,
            [i for i in seen.listeners if i.proto == publish.port.proto and first <= i.port <= last],
        )


def _served_families(item: Listener, endpoint: Endpoint) -> Sequence[Family]:
    if item.is_wild:
        return item.families
    return [f for f in item.families if endpoint.address(f) == item.address]


def _is_served(item: Listener, endpoint: Endpoint) -> bool:
    return any(f in families_of(endpoint) for f in _served_families(item, endpoint))


def _who(item: Listener) -> str:
    return item.process or "a process"


def _wanted(endpoint: Endpoint) -> str:
    return " and ".join(address for f in families_of(endpoint) if (address := endpoint.address(f)))

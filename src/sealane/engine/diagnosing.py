"""`doctor`: which known causes of trouble are at work. Prepared at one instant, read in a thread, judged there too."""

from collections.abc import Callable, Mapping, Sequence

from sealane.compile.names import network_link
from sealane.compile.network import has_data_plane
from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError
from sealane.explain.doctor.case import DiagnosisInput, Finding
from sealane.explain.doctor.causes import CAUSES, SANDBOXES, diagnose
from sealane.explain.doctor.evidence import Evidence, Request
from sealane.explain.question import QuestionError, endpoints_named
from sealane.kernel.state import HOST, NamespaceState
from sealane.model.endpoint import NetnsRef, Sandbox
from sealane.model.ids import NetworkId, SandboxId
from sealane.model.intent import Intent
from sealane.model.net import FAMILIES, Family, family_of
from sealane.wire.diagnosis import DoctorCheck, DoctorFinding, DoctorRequest, DoctorView

SUBJECTS_MAX = 64

FINDINGS_MAX = 1000
"""Told one by one; all are counted."""

UNSEEN_MAX = 100
"""Named, for each check and in all."""

_LEVELS = ("error", "warning", "note")


class Diagnosis:
    """A snapshot: what becomes of the engine meanwhile does not change it, so it may be used by another thread."""

    def __init__(self, engine: Engine, request: DoctorRequest) -> None:
        """Raises InvalidError for subjects that there are not."""
        if len(request.subjects) > SUBJECTS_MAX:
            raise InvalidError(f"{len(request.subjects)} subjects", field="subjects", hint=_few())
        intent = engine.intent
        scope = _Scope(intent, request.subjects)
        self._kernel = engine.kernel
        desired = engine.reconciler.compiled.desired
        self._refs: Mapping[str, NetnsRef] = {
            box.id: box.netns for box in scope.sandboxes if box.netns is not None
        }
        self._case = DiagnosisInput(
            networks=dict(intent.networks),
            sandboxes=scope.sandboxes,
            endpoints={
                box.id: tuple(intent.endpoints_by_sandbox.get(box.id, {}).values()) for box in scope.sandboxes
            },
            in_scope=frozenset(scope.networks),
            leases=frozenset(address for _, address in intent.leases),
            desired={netns: dict(desired.get(netns, {})) for netns in (HOST, *self._refs)},
            permanent=_permanent(desired),
            facts=engine.reconciler.compiled.facts,
            is_node=bool(intent.sandboxes_by_bare_name),
            evidence=Evidence(),
        )
        planes = [n for n in intent.networks.values() if has_data_plane(n)]
        self._request = Request(
            bridges=tuple(network_link(n) for n in planes),
            upstreams=any(n.resolvers and not n.internal for n in planes),
        )

    def look(self, should_stop: Callable[[], bool]) -> DoctorView:
        """Read, and judge. Blocks: for a thread, which must be in the host's namespace."""
        evidence = self._kernel.evidence(self._request, self._refs, should_stop)
        case = _with(self._case, evidence)
        return _view(case, list(diagnose(case)))


def _few() -> str:
    return f"name at most {SUBJECTS_MAX}, or none for everything"


def _with(case: DiagnosisInput, evidence: Evidence) -> DiagnosisInput:
    return DiagnosisInput(
        **{name: getattr(case, name) for name in case.__struct_fields__ if name != "evidence"},
        evidence=evidence,
    )


def _permanent(desired: Mapping[str, NamespaceState]) -> dict[Family, int]:
    """Of all namespaces, whoever is asked about: the machine has one table. By their keys, since there are many."""
    found: dict[Family, int] = dict.fromkeys(FAMILIES, 0)
    for state in desired.values():
        for key in state:
            if key[0] == "neighbour" and not key[3]:
                found[family_of(str(key[2]))] += 1
    return found


class _Scope:
    """Whom the question is about: a network brings its endpoints, an endpoint its sandbox, a sandbox all its networks.
    All, since which network gives a sandbox routes and names depends on the others."""

    def __init__(self, intent: Intent, subjects: Sequence[str]) -> None:
        self.networks: set[NetworkId] = set()
        self._sandboxes: dict[SandboxId, Sandbox] = {}
        for index, subject in enumerate(subjects):
            if subject != HOST:
                self._add(intent, subject, f"subjects[{index}]")
        if not subjects or set(subjects) == {HOST}:
            self.networks = set(intent.networks)
        if not subjects:
            self._sandboxes = dict(intent.sandboxes)

    @property
    def sandboxes(self) -> tuple[Sandbox, ...]:
        return tuple(self._sandboxes.values())

    def _add(self, intent: Intent, subject: str, field: str) -> None:
        network = intent.network_named(subject)
        if network is not None:
            self.networks.add(network.id)
        try:
            found = (
                list(intent.endpoints_by_network[network.id].values())
                if network is not None
                else endpoints_named(subject, intent)
            )
        except QuestionError as error:
            raise InvalidError(
                f"{error}", field=field, hint="a network, or `host` itself, will do too"
            ) from error
        for endpoint in found:
            if endpoint.sandbox is not None and endpoint.sandbox not in self._sandboxes:
                self._sandboxes[endpoint.sandbox] = intent.sandboxes[endpoint.sandbox]
                mine = intent.endpoints_by_sandbox[endpoint.sandbox].values()
                self.networks |= {e.network for e in mine}


# --- the answer -----------------------------------------------------------------------------------------------------


def _view(case: DiagnosisInput, findings: Sequence[Finding]) -> DoctorView:
    order = {cause.name: index for index, cause in enumerate(CAUSES)}
    told = sorted(findings, key=lambda f: (_LEVELS.index(f.level), order[f.cause]))
    names: dict[str, str] = {sandbox.id: sandbox.name for sandbox in case.sandboxes}
    unseen = {names.get(key, key): why for key, why in case.evidence.unseen.items()}
    return DoctorView(
        findings=[
            DoctorFinding(cause=f.cause, subject=f.subject, message=f.message, hint=f.hint, level=f.level)
            for f in told[:FINDINGS_MAX]
        ],
        found=sum(f.level != "note" for f in findings),
        checks=[
            DoctorCheck(
                cause=cause.name,
                looks_at=cause.looks_at,
                findings=sum(f.cause == cause.name for f in findings),
                unseen=_unseen(cause.needs, case, names)[:UNSEEN_MAX],
            )
            for cause in CAUSES
        ],
        unseen=dict(list(unseen.items())[:UNSEEN_MAX]),
        sandboxes=len(case.evidence.sandboxes),
    )


def _unseen(needs: Sequence[str], case: DiagnosisInput, names: Mapping[str, str]) -> list[str]:
    missing = [piece for piece in needs if piece in case.evidence.unseen]
    if SANDBOXES in needs:
        missing += [names[key] for key in case.evidence.unseen if key in names]
    return missing

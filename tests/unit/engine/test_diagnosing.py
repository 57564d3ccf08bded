"""`doctor` as a verb: whom it looks at, what it asks the kernel, and how it answers."""

import msgspec
import pytest

from harness.engines import Bench, publish, subnets
from sealane.engine.diagnosing import FINDINGS_MAX, SUBJECTS_MAX, UNSEEN_MAX, Diagnosis
from sealane.engine.errors import InvalidError
from sealane.explain.doctor.causes import CAUSES
from sealane.explain.doctor.evidence import Evidence, HostEvidence, NeighbourTable, SandboxEvidence, Upstream
from sealane.wire.diagnosis import DoctorRequest, DoctorView


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front", subnets=list(subnets("10.1.0.0/24")))
    bench.network("vault", subnets=list(subnets("10.2.0.0/24")), internal=True)
    bench.attach("/run/netns/web", publish=[publish(8080, 80)])
    bench.attach("/run/netns/web", "vault")
    bench.attach("/run/netns/api")
    bench.attach("/run/netns/db", "vault")
    bench.kernel.seen = Evidence(
        sandboxes={box.id: SandboxEvidence() for box in bench.engine.intent.sandboxes.values()}
    )
    return bench


def ask(bench: Bench, *subjects: str, stop: bool = False) -> DoctorView:
    return Diagnosis(bench.engine, DoctorRequest(subjects=list(subjects))).look(lambda: stop)


def subjects_of(view: DoctorView) -> set[str]:
    return {finding.subject for finding in view.findings}


def test_everything_is_looked_at(bench: Bench) -> None:
    view = ask(bench)
    assert view.sandboxes == 3
    assert [check.cause for check in view.checks] == [cause.name for cause in CAUSES]
    assert {f.cause for f in view.findings} == {"no-default-route", "wrong-default-route", "nobody-listens"}
    assert view.found == len(view.findings) == sum(check.findings for check in view.checks)


def test_errors_come_first(bench: Bench) -> None:
    levels = [finding.level for finding in ask(bench).findings]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)


@pytest.mark.parametrize(
    ("subjects", "sandboxes", "found"),
    [
        (["web"], 1, {"host", "web", "web/front"}),
        (["api"], 1, {"host", "api"}),
        (["db"], 1, set()),
        (["host"], 0, {"host"}),
        (["front"], 2, {"host", "web", "api", "web/front"}),
        (["vault"], 2, {"host", "web", "web/front"}),
        (["web/vault"], 1, {"host", "web", "web/front"}),
        (["web", "web", "front"], 2, {"host", "web", "api", "web/front"}),
    ],
)
def test_subjects_choose_sandboxes_and_networks(
    bench: Bench, subjects: list[str], sandboxes: int, found: set[str]
) -> None:
    view = ask(bench, *subjects)
    assert (view.sandboxes, subjects_of(view)) == (sandboxes, found)


def test_the_kernel_is_asked_for_our_bridges_and_for_upstreams_if_need_be(bench: Bench) -> None:
    ask(bench)
    (asked,) = bench.kernel.evidence_asked
    assert (len(asked.bridges), asked.upstreams) == (2, True)
    lonely = Bench()
    lonely.network("vault", subnets=list(subnets("10.2.0.0/24")), internal=True)
    ask(lonely)
    assert lonely.kernel.evidence_asked[0].upstreams is False
    nameless = Bench()
    nameless.network("pods", subnets=list(subnets("10.3.0.0/24")), options={"dns": "false"})
    ask(nameless)
    assert nameless.kernel.evidence_asked[0].upstreams is False, (
        "nobody asks the host's nameservers through us"
    )


@pytest.mark.parametrize("subject", ["nobody", "web/nowhere", ""])
def test_a_subject_that_there_is_not_is_named(bench: Bench, subject: str) -> None:
    with pytest.raises(InvalidError) as refused:
        ask(bench, "host", subject)
    assert refused.value.field == "subjects[1]"


def test_subjects_are_bounded(bench: Bench) -> None:
    assert ask(bench, *["web"] * SUBJECTS_MAX).sandboxes == 1
    with pytest.raises(InvalidError, match="65 subjects"):
        ask(bench, *["web"] * (SUBJECTS_MAX + 1))


def test_what_was_not_seen_is_named_and_its_checks_are(bench: Bench) -> None:
    web = bench.engine.intent.sandboxes[bench.engine.intent.sandbox_ids["web"]].id
    bench.kernel.seen = msgspec.structs.replace(
        bench.kernel.seen, unseen={web: "it is gone", "nftables": "EPERM"}
    )
    view = ask(bench)
    assert view.unseen == {"web": "it is gone", "nftables": "EPERM"}
    unseen = {check.cause: check.unseen for check in view.checks}
    assert unseen["foreign-drop"] == ["nftables"]
    assert unseen["nobody-listens"] == ["web"]
    assert unseen["bridge-full"] == []


def test_findings_and_unseen_are_bounded(bench: Bench) -> None:
    backends = [f"10.2.0.{n}" for n in range(100, 200)]
    silent = [Upstream(address=f"upstream {n}", problem="silent") for n in range(FINDINGS_MAX)]
    bench.kernel.seen = Evidence(
        host=HostEvidence(backends=tuple(backends), upstreams=tuple(silent)),
        unseen={f"piece {n}": "EPERM" for n in range(UNSEEN_MAX + 1)},
    )
    view = ask(bench)
    assert (len(view.findings), len(view.unseen)) == (FINDINGS_MAX, UNSEEN_MAX)
    assert view.found > FINDINGS_MAX + 50


def test_an_answer_is_of_the_moment_in_which_it_was_asked_for(bench: Bench) -> None:
    asked = Diagnosis(bench.engine, DoctorRequest())
    bench.engine.remove_network("vault", force=True)
    assert asked.look(lambda: False).sandboxes == 3


def test_it_can_be_stopped(bench: Bench) -> None:
    assert ask(bench, stop=True).sandboxes == 0


def test_permanent_neighbours_are_counted_of_all_whoever_is_asked_about(bench: Bench) -> None:
    """Each endpoint has one on its bridge, which no neighbour table is full of."""
    for subjects in ([], ["host"], ["db"]):
        bench.kernel.seen = Evidence(
            host=HostEvidence(neighbours=(NeighbourTable(family=4, entries=9 + 4, limit=11),))
        )
        assert "neighbours-full" not in {f.cause for f in ask(bench, *subjects).findings}
        bench.kernel.seen = Evidence(
            host=HostEvidence(neighbours=(NeighbourTable(family=4, entries=10 + 4, limit=11),))
        )
        assert "neighbours-full" in {f.cause for f in ask(bench, *subjects).findings}

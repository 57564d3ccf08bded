"""What stays when something below fails in the middle: records, intent and kernel agree, and a retry tells the truth."""

import errno
from collections.abc import Mapping

import msgspec
import pytest

from harness.engines import FACTS, Bench, publish
from sealane.engine.errors import InUseError, KernelError, StoreFailedError
from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.state import HOST
from sealane.linux.fake import FakeKernel
from sealane.model.change import Put
from sealane.model.container import Container
from sealane.model.endpoint import NetnsRef, Sandbox
from sealane.model.ids import SandboxId
from sealane.reconcile.plan import Operation, Outcome
from sealane.store.base import StoreError
from sealane.wire.requests import DetachRequest, SandboxRequest

A, B = "/run/netns/a", "/run/netns/b"
NO_MORE_FILES = OSError(errno.EMFILE, "Too many open files")


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front")
    return bench


def in_store(bench: Bench) -> set[str]:
    return {record.id for record in bench.store.snapshot().records}


def in_intent(bench: Bench) -> set[str]:
    intent = bench.engine.intent
    return {r.id for group in (intent.networks, intent.sandboxes, intent.endpoints) for r in group.values()}


def veths(bench: Bench) -> list[object]:
    links = [item for key, item in bench.kernel.state[HOST].items() if key[0] == "link"]
    return [link.name for link in links if link.kind.is_pair]


class TestTheKernelCutShort:
    @pytest.mark.parametrize("stages", range(5))
    def test_an_attach_is_taken_back_whatever_of_it_was_done(self, bench: Bench, stages: int) -> None:
        before = in_intent(bench)
        bench.kernel.raise_from("apply", NO_MORE_FILES, after=stages)
        with pytest.raises(KernelError, match="Too many open files"):
            bench.attach(A, publish=[publish(8080, 80)])
        assert in_store(bench) == in_intent(bench) == before
        assert veths(bench) == []
        assert bench.attach(A, publish=[publish(8080, 80)]).state == "up"
        assert len(veths(bench)) == 1
        assert bench.is_clean()

    @pytest.mark.parametrize("stages", range(3))
    def test_a_detach_goes_on(self, bench: Bench, stages: int) -> None:
        before = in_intent(bench)
        view = bench.attach(A)
        bench.kernel.raise_from("apply", NO_MORE_FILES, after=stages)
        assert bench.engine.detach([DetachRequest(sandbox=A)]).detached == [view.id]
        assert in_store(bench) == in_intent(bench) == before
        bench.resyncer.resync({HOST})
        assert veths(bench) == []

    def test_what_is_no_fault_of_the_kernels_is_taken_back_too(self, bench: Bench) -> None:
        before = in_intent(bench)
        bench.kernel.raise_from("apply", RuntimeError("not in the host's namespace"))
        with pytest.raises(RuntimeError):
            bench.attach(A)
        assert in_store(bench) == in_intent(bench) == before
        view = bench.attach(A)
        bench.kernel.raise_from("apply", RuntimeError("not in the host's namespace"))
        with pytest.raises(RuntimeError):
            bench.engine.detach([DetachRequest(sandbox=A)])
        assert view.id in in_store(bench)
        assert in_store(bench) == in_intent(bench)


class TestFlowsThatCannotBeForgotten:
    def udp(self, bench: Bench) -> str:
        return bench.attach(A, publish=[publish(53, 53, proto="udp")]).id

    def test_are_no_reason_to_undo_a_deed(self, bench: Bench) -> None:
        before = in_intent(bench)
        refusal = OSError(errno.EMSGSIZE, "Message too long")
        bench.kernel.raise_from("forget_flows", refusal)
        identity = self.udp(bench)
        assert identity in in_store(bench)
        bench.kernel.raise_from("forget_flows", refusal)
        assert bench.engine.detach([DetachRequest(sandbox=A)]).detached == [identity]
        assert in_store(bench) == in_intent(bench) == before
        kept = [
            event.subject for event in bench.engine.events.since(0) if event.kind == "flows.delete_failed"
        ]
        assert kept == ["Message too long"] * 2

    def test_are_not_looked_for_where_the_kernel_cannot(self) -> None:
        features = msgspec.structs.replace(FACTS.features, conntrack=False)
        bench = Bench(FakeKernel(msgspec.structs.replace(FACTS, features=features)))
        bench.network("front")
        self.udp(bench)
        assert bench.kernel.forgotten == []


class TestContainersSandboxes:
    def test_are_not_removed_under_them(self, bench: Bench) -> None:
        sandbox = bench.engine.create_sandbox(SandboxRequest(name="web"))
        bench.engine.commit_then_apply(
            [Put(Container(id="c" * 32, name="shop", sandbox=SandboxId(sandbox.id), spec=msgspec.Raw(b"{}")))]
        )
        bench.attach("web")
        before = in_intent(bench)
        with pytest.raises(InUseError, match="container shop") as caught:
            bench.engine.remove_sandbox("web", force=True)
        assert caught.value.hint == "`sealane rm shop`"
        assert in_intent(bench) == before
        assert len(veths(bench)) == 1


class TestStandingFailures:
    def test_go_with_what_was_refused(self, bench: Bench) -> None:
        for number in range(3):
            bench.kernel.fail_at(4)
            with pytest.raises(KernelError):
                bench.attach(f"/run/netns/{number}")
            bench.kernel.heal()
        assert bench.engine.reconciler.failures == {}

    def lose_all(self, bench: Bench, *, refused: int) -> None:
        bench.kernel.state[HOST].clear()
        bench.kernel.fail_at(refused, forever=True)
        bench.resyncer.resync({HOST})
        bench.kernel.heal()

    def test_are_not_cleared_by_another_object_of_the_same_unit(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        view = bench.attach(A)
        plain = bench.kernel._one

        def refuse_addresses(operation: Operation, refs: Mapping[str, NetnsRef]) -> list[Outcome]:
            if operation.object.key[0] == "address":
                return [Outcome(operation, errno.EINVAL, "refused")]
            return plain(operation, refs)

        there = bench.kernel.state[HOST]
        bench.kernel._drop_link(HOST, there["link", view.host_link])  # type: ignore[arg-type]
        monkeypatch.setattr(bench.kernel, "_one", refuse_addresses)
        # In the rounds after it nothing else is done that could.
        monkeypatch.setattr("sealane.engine.reconciler.RECONCILE_ROUNDS", 1)
        bench.resyncer.resync({HOST, *bench.engine.intent.sandboxes})
        assert ("link", view.host_link) in there
        assert "refused" in bench.engine.reconciler.failures["endpoint", view.id]
        assert bench.engine.endpoint(view.id).state == "error"

    def test_are_cleared_when_somebody_else_puts_it_right(self, bench: Bench) -> None:
        bench.attach(A)
        before = bench.kernel.snapshot()[HOST]
        self.lose_all(bench, refused=1)
        assert bench.engine.reconciler.failures
        bench.kernel.state[HOST] = dict(before)
        bench.resyncer.resync({HOST, *bench.engine.intent.sandboxes})
        assert bench.engine.reconciler.failures == {}

    def test_repairs_are_never_less_than_none(self, bench: Bench) -> None:
        bench.attach(A)
        self.lose_all(bench, refused=1)
        assert bench.resyncer.repairs == 0
        assert [e for e in bench.engine.events.since(0) if e.kind == "drift.repaired"] == []

    def test_a_failed_route_of_the_sandbox_shows_at_its_endpoints(self, bench: Bench) -> None:
        view = bench.attach(A)
        sandbox = next(iter(bench.engine.intent.sandboxes))
        bench.engine.reconciler.failures["sandbox", sandbox] = "create route 0.0.0.0/0: refused"
        assert bench.engine.endpoint(view.id).state == "error"


class TestDetachingByPid:
    def known(self, bench: Bench, identity: str, name: str, ref: NetnsRef) -> str:
        bench.engine.commit_then_apply([Put(Sandbox(id=SandboxId(identity), name=name, netns=ref))])
        return bench.attach(name).id

    def test_a_pid_is_not_the_beginning_of_an_id(self, bench: Bench) -> None:
        self.known(bench, f"4711{'a' * 28}", "bystander", NetnsRef(path="/run/x", inode=5))
        bench.kernel.absent.add("4711")
        assert bench.engine.detach([DetachRequest(sandbox="4711")]).detached == []

    def test_a_pid_that_was_given_anew_is_nobody_who_was_known(self, bench: Bench) -> None:
        self.known(bench, "a" * 32, "old", NetnsRef(path="/proc/812/ns/net", inode=5))
        assert bench.engine.detach([DetachRequest(sandbox="812")]).detached == []

    @pytest.mark.parametrize("where", ["812", "/proc/812/ns/net"])
    def test_a_pid_that_is_gone_is_who_it_was(self, bench: Bench, where: str) -> None:
        endpoint = self.known(bench, "a" * 32, "old", NetnsRef(path="/proc/812/ns/net", inode=5))
        bench.kernel.absent.add(where)
        assert bench.engine.detach([DetachRequest(sandbox=where)]).detached == [endpoint]

    def test_of_two_recorded_at_a_path_it_is_the_one_that_is_there(self, bench: Bench) -> None:
        there = bench.kernel.resolve_namespace(A)
        self.known(bench, "a" * 32, "old", NetnsRef(path=A, inode=5))
        endpoint = self.known(bench, "b" * 32, "new", there)
        assert bench.engine.detach([DetachRequest(sandbox=A)]).detached == [endpoint]


class TestUpkeep:
    def test_a_removed_sandbox_is_not_unreadable(self, bench: Bench) -> None:
        bench.resyncer.unreadable = {"gone": "Permission denied", HOST: "Interrupted"}
        bench.resyncer.resync(set())
        assert bench.resyncer.unreadable == {HOST: "Interrupted"}

    def test_a_sandbox_that_cannot_be_recorded_leaves_no_namespace(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise StoreError("full", "no space")

        with monkeypatch.context() as patched:
            patched.setattr(bench.store, "commit", full)
            for _ in range(3):
                with pytest.raises(StoreFailedError, match="no space"):
                    bench.engine.create_sandbox(SandboxRequest(name="web"))
        assert bench.kernel.pinned == set()
        bench.engine.create_sandbox(SandboxRequest(name="web"))
        assert len(bench.kernel.pinned) == 1

    def test_a_full_store_does_not_end_a_burial(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        sandbox = bench.engine.create_sandbox(SandboxRequest(name="web"))
        ref = bench.engine.intent.sandboxes[SandboxId(sandbox.id)].netns
        assert ref is not None
        bench.attach("web")
        bench.kernel.kill_namespace(sandbox.id, ref)

        def full(*_: object) -> int:
            raise StoreError("full", "no space")

        monkeypatch.setattr(bench.store, "commit", full)
        bench.resyncer.resync({HOST, sandbox.id})
        assert [e.kind for e in bench.engine.events.since(0)][-1] == "release.failed"

    def test_namespaces_that_cannot_be_made_again_do_not_end_a_burial(self, bench: Bench) -> None:
        sandbox = bench.engine.create_sandbox(SandboxRequest(name="web"))
        ref = bench.engine.intent.sandboxes[SandboxId(sandbox.id)].netns
        assert ref is not None
        bench.kernel.kill_namespace(sandbox.id, ref)
        bench.kernel.raise_from("create_namespace", NO_MORE_FILES)
        with pytest.raises(NamespaceGoneError):
            bench.kernel.observe(sandbox.id, ref, {})
        bench.resyncer.resync({HOST, sandbox.id})
        assert "release.failed" in [e.kind for e in bench.engine.events.since(0)]

    @pytest.mark.parametrize("can_have_one", [True, False])
    def test_a_namespace_is_made_again_with_its_owner_or_without_and_that_is_told(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, *, can_have_one: bool
    ) -> None:
        """Its networks do not suffer by it; its container, which is to live in it, is refused."""
        make = bench.kernel.create_namespace
        sandbox = Sandbox(id=SandboxId("c" * 32), name="web", netns=make("c" * 32, with_userns=True))
        bench.engine.commit_then_apply([Put(sandbox)])

        def made(identity: str, *, with_userns: bool = False) -> NetnsRef:
            if with_userns and not can_have_one:
                raise OSError(errno.ENOSPC, "user.max_user_namespaces is reached")
            return make(identity, with_userns=with_userns)

        monkeypatch.setattr(bench.kernel, "create_namespace", made)
        bench.resyncer.remake([sandbox.id])
        again = bench.engine.intent.sandboxes[sandbox.id].netns
        assert again is not None
        assert bool(again.userns) is can_have_one
        told = [e.kind for e in bench.engine.events.since(0)]
        assert ("userns.lost" in told) is not can_have_one


def test_the_last_addresses_of_networks_that_are_gone_are_forgotten(bench: Bench) -> None:
    for number in range(20):
        bench.network(f"n{number}")
        bench.attach(A, f"n{number}")
        bench.engine.remove_network(f"n{number}", force=True)
    bench.attach(B)
    remembered = bench.engine.builder._endpoints._addresses._last
    assert len(remembered) <= 4 * (len(bench.engine.intent.networks) + 1)

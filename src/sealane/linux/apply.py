"""Performing plans: each stage's nftables operations as one transaction, its loopback publishes, and everything
rtnetlink by namespace, as few datagrams as its order allows (`jobs`)."""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice

from sealane.linux.borrowed import Borrowed
from sealane.linux.bpf.fast_path import FastPath
from sealane.linux.closeable import Closeable
from sealane.linux.jobs import ApplyNft, HostSide, Job, LoopbackPublisher, RtnetlinkJob, Tools, first_of, jobs
from sealane.linux.namespaces import Namespaces, OpenNamespaces
from sealane.linux.netlink.socket import Socket
from sealane.linux.progress import Progress
from sealane.linux.session import REFUSALS, errno_of
from sealane.model.endpoint import NetnsRef
from sealane.reconcile.plan import Operation, Outcome, Plan

COMPOSED_AHEAD = 16
"""Jobs: what an endpoint takes, and few enough to have their sandboxes open."""


class Applier:
    """`route` and `nft` are sockets of the host's namespace."""

    def __init__(
        self,
        instance: str,
        route: Socket,
        nft: Socket,
        apply_nft: ApplyNft,
        loopback: LoopbackPublisher | None,
        *,
        ipv6: bool = True,
        fast_path: FastPath | None = None,
        borrowed: Borrowed | None = None,
    ) -> None:
        self._host = HostSide(instance, route, nft, apply_nft, loopback)
        self._ipv6 = ipv6
        self._fast_path = fast_path
        self._borrowed = borrowed
        self._run: _Run | None = None

    def begin(
        self,
        veths: Sequence[Operation],
        refs: Mapping[str, NetnsRef],
        open_namespaces: OpenNamespaces | None = None,
    ) -> None:
        """Begin with veths of a plan that `apply` is called with next, with the same `refs`."""
        run = self._new_run(refs, open_namespaces)
        try:
            run.begin(veths)
        except BaseException:
            run.close()
            raise
        self._run = run

    def apply(
        self, plan: Plan, refs: Mapping[str, NetnsRef], open_namespaces: OpenNamespaces | None = None
    ) -> list[Outcome]:
        run, self._run = self._run or self._new_run(refs, open_namespaces), None
        with run:
            return run.perform(plan)

    def _new_run(self, refs: Mapping[str, NetnsRef], open_namespaces: OpenNamespaces | None) -> "_Run":
        progress = Progress(
            self._host.instance, ipv6=self._ipv6, fast_path=self._fast_path, borrowed=self._borrowed
        )
        return _Run(Tools(self._host, Namespaces(refs, open_namespaces), progress))


class _Run(Closeable):
    """One plan being performed."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._begun: RtnetlinkJob | None = None

    def close(self) -> None:
        self._tools.sandboxes.close()

    def begin(self, veths: Sequence[Operation]) -> None:
        self._tools.progress.expect(veths)
        begun = first_of(veths, self._tools)
        # What cannot be begun is tried in its turn, and what of it is there by then is adopted.
        with suppress(*REFUSALS):
            begun.begin()
            self._begun = begun

    def perform(self, plan: Plan) -> list[Outcome]:
        progress = self._tools.progress
        progress.expect(plan)
        coming = jobs(plan, self._tools)
        queue = deque[Job]()
        is_fenced = True
        while queue or (queue := deque(islice(coming, COMPOSED_AHEAD))):
            job = queue.popleft()
            begun = self._begun_of(job)
            if begun is not None:
                job = begun
                queue.extend(islice(coming, COMPOSED_AHEAD))
                with self._tools.sandboxes.kept():
                    for later in (job, *queue):
                        later.compose()
            elif not is_fenced:
                progress.outcomes += [Outcome(op, 0, "not tried: the fence failed") for op in job.operations]
                continue
            failed = len(progress.outcomes)
            try:
                job.perform()
            except REFUSALS as error:
                progress.fail_rest(job.operations, *errno_of(error))
            is_fenced = is_fenced and (job.stage != "fence" or len(progress.outcomes) == failed)
        return progress.outcomes

    def _begun_of(self, job: Job) -> RtnetlinkJob | None:
        """The same job as it was begun, if it was."""
        begun = self._begun
        if begun is None or not isinstance(job, RtnetlinkJob):
            return None
        self._begun = None
        if job.operations == begun.operations:
            return begun
        # Its links are found, and adopted.
        begun.perform()
        return None

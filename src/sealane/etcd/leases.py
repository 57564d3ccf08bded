"""Leases: grants that can be repeated, and a keep-alive that ends only when etcd says that the lease is gone."""

import asyncio
import logging
import secrets
from collections.abc import Callable

from sealane.etcd import etcd_pb2 as pb
from sealane.etcd.errors import EtcdError, InvalidError, UnavailableError
from sealane.etcd.records import Lease
from sealane.etcd.rpc import GRANT, KEEP_ALIVE, REVOKE, Backoff, Rpc

log = logging.getLogger(__name__)

RENEWALS_PER_TTL = 3


async def grant(rpc: Rpc, ttl_s: int, deadline_s: float) -> Lease:
    """The id is ours, so that a grant whose answer was lost can be repeated and finds its own."""
    if ttl_s < 1:
        raise InvalidError(f"a lease of {ttl_s} s: at least 1 s")
    request = pb.LeaseGrantRequest(ttl=ttl_s, id=secrets.randbelow(2**63 - 1) + 1)
    try:
        answer = await rpc.read(GRANT, request, deadline_s)
    except InvalidError as error:
        if "already exists" not in str(error):
            raise
        return Lease(request.id, ttl_s)
    return Lease(answer.id, answer.ttl)


async def revoke(rpc: Rpc, lease: Lease, deadline_s: float) -> None:
    """Idempotent: its keys are gone afterwards, whoever revoked it."""
    try:
        await rpc.read(REVOKE, pb.LeaseRevokeRequest(id=lease.id), deadline_s)
    except InvalidError as error:
        if "lease not found" not in str(error):
            raise


async def keep_alive(rpc: Rpc, lease: Lease, on_lost: Callable[[Exception], None]) -> None:
    """Until cancelled, or the lease is gone; then `on_lost` once. While etcd is away it goes on trying: after a
    restart of the cluster leases have their whole TTL again, so time alone does not tell that one is lost."""
    backoff, period_s = Backoff(), lease.ttl_s / RENEWALS_PER_TTL
    while True:
        try:
            if await _renew(rpc, lease, max(1.0, period_s)) <= 0:
                _lose(InvalidError(f"lease {lease.id:x} has expired or was revoked"), lease, on_lost)
                return
        except UnavailableError:
            await asyncio.sleep(min(backoff.next_s(), period_s))
        except Exception as error:
            _lose(error, lease, on_lost)
            return
        else:
            backoff.reset()
            await asyncio.sleep(period_s)


async def _renew(rpc: Rpc, lease: Lease, timeout_s: float) -> int:
    """Seconds left, 0 if there is no such lease. A stream for each renewal: so each may go to another member."""
    try:
        async with asyncio.timeout(timeout_s), rpc.stream(KEEP_ALIVE, timeout_s) as stream:
            await stream.write(pb.LeaseKeepAliveRequest(id=lease.id))
            answer = await stream.read()
    except TimeoutError as error:
        raise UnavailableError(f"etcd did not renew lease {lease.id:x} within {timeout_s:.1f} s") from error
    if not isinstance(answer, pb.LeaseKeepAliveResponse):  # grpc.aio.EOF
        raise UnavailableError("etcd ended the keep-alive's stream")
    return answer.ttl


def _lose(error: Exception, lease: Lease, on_lost: Callable[[Exception], None]) -> None:
    if not isinstance(error, EtcdError):
        log.error("keep-alive of lease %x failed", lease.id, exc_info=error)
    try:
        on_lost(error)
    except Exception:
        log.exception("on_lost of lease %x failed", lease.id)

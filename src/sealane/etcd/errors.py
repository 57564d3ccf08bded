"""Errors of the etcd client. Each says whether the request may have been applied: only UnknownOutcome leaves it open."""


class EtcdError(Exception):
    """Base class. Nothing was applied, unless it is an UnknownOutcome."""


class InvalidError(EtcdError):
    """The request breaks a rule or a limit of etcd; it was not sent, or etcd refused it."""


class UnavailableError(EtcdError):
    """No member answered in time, or the cluster has no leader. Nothing was applied; a later try may succeed."""


class UnknownOutcomeError(EtcdError):
    """A write was sent and not answered: it may have been applied, or may yet be. Read again and compare with the
    intended records; a blind retry can be refused by its own first try."""


class DeniedError(EtcdError):
    """Wrong user, password or certificate, or a key outside the user's permissions."""


class FullError(EtcdError):
    """NOSPACE: the database has reached its quota. Puts are refused, reads and deletes work."""


class CompactedError(EtcdError):
    """The revision is no longer kept. `revision` is the oldest one kept, 0 if etcd did not say: list again."""

    def __init__(self, text: str, revision: int = 0) -> None:
        super().__init__(text)
        self.revision = revision

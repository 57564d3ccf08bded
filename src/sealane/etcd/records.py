"""Records of the etcd client: keys, comparisons, changes, and answers. Keys and values are bytes."""

from enum import Enum, auto

import msgspec


class Tls(msgspec.Struct, frozen=True):
    """Paths of PEM files, read when the client is made. `server_name` is a name that the certificates of all members
    contain; required with several endpoints, since one target has one name to check."""

    ca_file: str
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""


class Record(msgspec.Struct, frozen=True):
    """`version` counts the puts since the key was created; `lease` is 0 without one."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Event(msgspec.Struct, frozen=True):
    """A put, or a deletion (then `value` is empty). `revision` is that of the change."""

    key: bytes
    value: bytes
    revision: int
    is_delete: bool = False
    create_revision: int = 0
    lease: int = 0


class Field(Enum):
    """A field of a record that a comparison reads. The numbers of a missing key are 0."""

    VERSION = auto()
    CREATE_REVISION = auto()
    MOD_REVISION = auto()
    VALUE = auto()


class Relation(Enum):
    EQUAL = auto()
    GREATER = auto()
    LESS = auto()
    NOT_EQUAL = auto()


class Compare(msgspec.Struct, frozen=True):
    """`wanted` is bytes for Field.VALUE, an integer for the others. The value of a missing key equals nothing."""

    key: bytes
    field: Field
    wanted: int | bytes
    relation: Relation = Relation.EQUAL


def is_absent(key: bytes) -> Compare:
    return Compare(key, Field.CREATE_REVISION, 0)


def is_unchanged(record: Record) -> Compare:
    return Compare(record.key, Field.MOD_REVISION, record.mod_revision)


class Put(msgspec.Struct, frozen=True):
    key: bytes
    value: bytes
    lease: int = 0


class Delete(msgspec.Struct, frozen=True):
    """One key, or with `is_prefix` every key that begins with it."""

    key: bytes
    is_prefix: bool = False


class Listing(msgspec.Struct, frozen=True):
    """Records by key, all as of `revision`: a watch from `revision + 1` continues them."""

    records: tuple[Record, ...]
    revision: int


class Applied(msgspec.Struct, frozen=True):
    """Every comparison held, and the changes are in force at `revision`."""

    revision: int


class Refused(msgspec.Struct, frozen=True):
    """A comparison failed and nothing changed. `records` are those asked for with `otherwise` that exist."""

    revision: int
    records: tuple[Record, ...]


class Lease(msgspec.Struct, frozen=True):
    """`ttl_s` as granted: etcd may give more than was asked."""

    id: int
    ttl_s: int


class Status(msgspec.Struct, frozen=True):
    """Of the member that answered. `leader` is 0 without one; `problems` are alarms (NOSPACE, CORRUPT) as text."""

    version: str
    cluster_id: int
    member_id: int
    leader: int
    revision: int
    size_bytes: int
    size_in_use_bytes: int
    problems: tuple[str, ...]

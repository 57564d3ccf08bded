"""`user[:group]` against a passwd and a group file. Pure."""

from __future__ import annotations

import msgspec

from sealane.containers.errors import SpecError

MAX_ID = 2**32 - 2


class User(msgspec.Struct, frozen=True):
    """Who the container's first process is."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


class UidMap(msgspec.Struct, frozen=True):
    """One line of /proc/PID/uid_map or gid_map: `count` ids from `inside` on exist in this user namespace."""

    inside: int
    count: int


def parse_id_map(text: str) -> tuple[UidMap, ...]:
    return tuple(
        UidMap(int(fields[0]), int(fields[2])) for fields in map(str.split, text.splitlines()) if fields
    )


def is_mapped(number: int, id_map: tuple[UidMap, ...]) -> bool:
    return any(0 <= number - entry.inside < entry.count for entry in id_map)


def resolve_user(desired: str, passwd: str, group: str) -> User:
    """Docker's rules: numbers need not exist in the files, names must; the gid and home come from passwd if it is there.

    `desired` is "", "user", "user:group", each part a name or a number; "" is root. SpecError names the field `user`.
    """
    user_part, _, group_part = desired.partition(":")
    entry = _find_user(user_part or "0", passwd)
    if group_part:
        gid = _find_group(group_part, group)
        return User(entry.uid, gid, (), entry.home)
    name = _name_of(entry.uid, passwd)
    return User(entry.uid, entry.gid, _groups_of(name, entry.gid, group), entry.home)


def _rows(text: str, fields: int) -> list[list[str]]:
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) >= fields and _is_id(row[2])]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID


def _find_user(desired: str, passwd: str) -> User:
    for row in _rows(passwd, 6):
        if desired in (row[0], row[2]) and _is_id(row[3]):
            return User(int(row[2]), int(row[3]), (), row[5] or "/")
    if _is_id(desired):
        return User(int(desired), 0, (), "/")
    raise SpecError("user", f"no user {desired!r} in the container's /etc/passwd")


def _name_of(uid: int, passwd: str) -> str:
    return next((row[0] for row in _rows(passwd, 6) if int(row[2]) == uid), "")


def _find_group(desired: str, group: str) -> int:
    for row in _rows(group, 3):
        if desired in (row[0], row[2]):
            return int(row[2])
    if _is_id(desired):
        return int(desired)
    raise SpecError("user", f"no group {desired!r} in the container's /etc/group")


def _groups_of(name: str, gid: int, group: str) -> tuple[int, ...]:
    rows = [row for row in _rows(group, 4) if name and name in row[3].split(",")]
    return tuple(sorted({int(row[2]) for row in rows} - {gid}))

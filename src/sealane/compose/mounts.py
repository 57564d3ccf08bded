"""`volumes` and `tmpfs` of a service: bind mounts and memory, the two kinds that need no volume store."""

from sealane.compose.context import Context
from sealane.compose.cursor import Cursor, Fields, Reasons
from sealane.compose.problems import BadValue, shown
from sealane.compose.schema import Bind, Tmpfs
from sealane.compose.sizes import parse_size
from sealane.compose.values import parse_container_path, parse_host_path

_FLAGS = ("noexec", "nosuid", "nodev")
_BIND_REASONS: Reasons = {
    "propagation": ("mounts are private to the service", "remove it"),
    "selinux": ("no SELinux labels are set", "remove it"),
    "recursive": ("binds are always recursive", "remove it"),
}
_VOLUME_REASONS: Reasons = {
    "volume": ("there is no volume store", "bind a directory: {type: bind, source: ./data, target: /data}"),
    "consistency": ("it means nothing on Linux", "remove it"),
    "image": ("images are roots of services, not mounts", "bind a directory"),
}
_MAX_MODE_DIGITS = 5


def read_volumes(cursor: Cursor, context: Context) -> tuple[Bind | Tmpfs, ...]:
    return cursor.each(lambda item: _read_volume(item, context))


def read_tmpfs(cursor: Cursor) -> tuple[Tmpfs, ...]:
    return cursor.each_text(parse_tmpfs, or_one=True)


def parse_bind(text: str, context: Context) -> Bind:
    """`SOURCE:TARGET[:ro|rw]`. Raises BadValue."""
    source, colon, rest = text.partition(":")
    if not colon:
        raise BadValue(
            f"{shown(text)} is an anonymous volume, and there is no volume store",
            "write it under tmpfs, or ./dir:/path",
        )
    if not source.startswith((".", "/", "~")):
        raise BadValue(
            f"named volume {shown(source)}: there is no volume store", "bind a directory: ./dir:/path"
        )
    target, _, options = rest.partition(":")
    if options not in {"", "ro", "rw"}:
        raise BadValue(f"mount option {shown(options)} is not supported", "write ro, rw or nothing")
    return Bind(source=_source(source, context), target=_target(target), read_only=options == "ro")


def parse_tmpfs(text: str) -> Tmpfs:
    """`TARGET[:size=64m,mode=1777,ro,noexec,nosuid,nodev]`. Raises BadValue."""
    target, _, options = text.partition(":")
    size_bytes: int | None = None
    mode: int | None = None
    words = [word for word in options.split(",") if word]
    for word in words:
        key, _, value = word.partition("=")
        if key == "size":
            size_bytes = parse_size(value)
        elif key == "mode":
            mode = parse_mode(value)
        elif word not in {"ro", "rw", *_FLAGS}:
            raise BadValue(
                f"tmpfs option {shown(word)} is not supported", f"use size=, mode=, ro, {', '.join(_FLAGS)}"
            )
    flags = tuple(flag for flag in _FLAGS if flag in words)
    return Tmpfs(
        target=_target(target), size_bytes=size_bytes, mode=mode, read_only="ro" in words, flags=flags
    )


def parse_mode(text: str) -> int:
    """Octal permission bits, with or without a leading 0 or 0o. Raises BadValue."""
    digits = text.removeprefix("0o")
    if (
        not digits
        or len(digits) > _MAX_MODE_DIGITS
        or not set(digits) <= set("01234567")
        or int(digits, 8) > 0o7777
    ):
        raise BadValue(f"{shown(text)} is not a mode", "write it in octal, as 1777")
    return int(digits, 8)


def _read_volume(cursor: Cursor, context: Context) -> Bind | Tmpfs | None:
    if not cursor.is_mapping:
        return cursor.parse(lambda text: parse_bind(text, context))
    fields = Fields(cursor)
    kind = fields.parse("type", _parse_kind, None)
    target = fields.parse("target", _target, None)
    read_only = fields.flag("read_only", default=False)
    mount: Bind | Tmpfs | None = None
    if kind == "bind":
        source = fields.parse("source", lambda text: _source(text, context), None)
        create = fields.read("bind", _read_create, default=True)
        if source is not None and target is not None:
            mount = Bind(source=source, target=target, read_only=read_only, create_source=create)
        _require(fields, "source")
    elif kind == "tmpfs":
        size_bytes, mode = fields.read("tmpfs", _read_tmpfs_options, (None, None))
        if target is not None:
            mount = Tmpfs(target=target, size_bytes=size_bytes, mode=mode, read_only=read_only)
    else:
        # Its kind is on record as the problem; what else it has depends on that.
        for key in ("source", "bind", "tmpfs", "volume"):
            fields.find(key)
    _require(fields, "type")
    _require(fields, "target")
    fields.finish(_VOLUME_REASONS)
    return mount


def _require(fields: Fields, key: str) -> None:
    if fields.find(key) is None:
        fields.cursor.fail(f"no {key}", f"write {key}")


def _parse_kind(text: str) -> str:
    if text == "volume":
        raise BadValue(
            "named volumes are not supported: there is no volume store", "write type: bind and a directory"
        )
    if text not in {"bind", "tmpfs"}:
        raise BadValue(f"mount type {shown(text)} is not supported", "write bind or tmpfs")
    return text


def _read_create(cursor: Cursor) -> bool:
    fields = Fields(cursor)
    create = fields.flag("create_host_path", default=True)
    fields.finish(_BIND_REASONS)
    return create


def _read_tmpfs_options(cursor: Cursor) -> tuple[int | None, int | None]:
    fields = Fields(cursor)
    options = fields.parse("size", parse_size, None), fields.parse("mode", parse_mode, None)
    fields.finish()
    return options


def _source(text: str, context: Context) -> str:
    return parse_host_path(text, directory=context.directory, home=context.environ.get("HOME"))


def _target(text: str) -> str:
    target = parse_container_path(text)
    if target == "/":
        raise BadValue("a mount over /", "mount on a directory below it; x-sealane.rootfs chooses the root")
    return target

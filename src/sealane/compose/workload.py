"""What a service runs and within which limits: everything about the process but its connections."""

import shlex
from typing import TypeVar, cast, get_args

from sealane.compose.context import Context
from sealane.compose.cursor import Cursor, Fields, Pairs, Reasons, parse_whole, read_optional_pairs
from sealane.compose.duration import parse_duration
from sealane.compose.envfile import EnvFileError, parse_env_file
from sealane.compose.problems import BadValue, shown, shown_path
from sealane.compose.schema import Condition, Dependency, Healthcheck, Limits, RestartKind, RestartPolicy
from sealane.compose.sizes import parse_cpus, parse_size
from sealane.compose.values import parse_environment_name, parse_host_path, parse_name

MAX_REPLICAS = 1000
"""A Linux bridge has 1,023 ports."""
MAX_PIDS = 1 << 22
_MAX_COMMAND_CHARS = 1 << 16
_MAX_RETRIES = 1_000_000

N = TypeVar("N", int, float)

_UNLIMITED = "-1"
_DEPLOY_REASONS: Reasons = dict.fromkeys(
    ("mode", "placement", "update_config", "rollback_config", "restart_policy", "endpoint_mode", "labels"),
    ("only replicas and resources.limits are", "remove it"),
)
_RESOURCES_REASONS: Reasons = {"reservations": ("nothing is reserved on one host", "remove it or set limits")}
_LIMITS_REASONS: Reasons = {"devices": ("no devices are passed in", "remove it")}
_HEALTH_REASONS: Reasons = {"start_interval": ("one interval is used throughout", "set interval")}


def read_command(cursor: Cursor) -> tuple[str, ...] | None:
    """A list as it is, or a text split as a shell splits words (nothing is expanded)."""
    if cursor.is_sequence:
        return cursor.each(Cursor.text)
    return cursor.parse(_split_command)


def _split_command(text: str) -> tuple[str, ...]:
    if len(text) > _MAX_COMMAND_CHARS:
        raise BadValue(f"a command of more than {_MAX_COMMAND_CHARS} characters", "put it into a script")
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise BadValue(
            f"{shown(text)} cannot be split into words: {error}", "close it, or write a list"
        ) from error


def read_environment(fields: Fields, context: Context) -> Pairs:
    """`env_file` in its order, then `environment` over it. A name without a value takes the caller's, if set."""
    values: dict[str, str] = {}
    env_file = fields.find("env_file")
    if env_file is not None:
        for place in env_file.items() if env_file.is_sequence else [env_file]:
            values.update(_read_env_file(place, context))
    given = fields.read(
        "environment", lambda cursor: read_optional_pairs(cursor, check_key=parse_environment_name), ()
    )
    for name, value in given:
        found = context.environ.get(name) if value is None else value
        values.pop(name, None)
        if found is not None:
            values[name] = found
    return tuple(values.items())


def _read_env_file(cursor: Cursor, context: Context) -> Pairs:
    required = True
    place = cursor
    if cursor.is_mapping:
        fields = Fields(cursor)
        required = fields.flag("required", default=True)
        place = fields.find("path") or cursor
        fields.finish({"format": ("one format is read", "remove it")})
        if place is cursor:
            cursor.fail("no path", "write path: FILE")
            return ()
    path = place.parse(lambda text: _env_file_path(text, context))
    return () if path is None else _load_env_file(place, path, context, required=required)


def _env_file_path(text: str, context: Context) -> str:
    return parse_host_path(text, directory=context.directory, home=context.environ.get("HOME"))


def _load_env_file(place: Cursor, path: str, context: Context, *, required: bool) -> Pairs:
    if context.read_file is None:
        place.fail("files are not read here", "write the variables under environment")
        return ()
    try:
        env_file = parse_env_file(context.read_file(path), context.environ)
    except FileNotFoundError:
        if required:
            place.fail(
                f"there is no file {shown_path(path)}", "create it, or write {path: FILE, required: false}"
            )
        return ()
    except OSError as error:
        place.fail(f"{shown_path(path)} cannot be read: {error.strerror or 'I/O error'}", "make it readable")
        return ()
    except EnvFileError as error:
        place.fail(f"{shown_path(path)} line {error.line}: {error.message}", error.hint)
        return ()
    except ValueError as error:
        place.fail(f"{shown_path(path)}: {error}", "save it as UTF-8 text of at most 1 MiB")
        return ()
    for name in env_file.unset:
        place.warn(f"variable {shown(name)} in {shown_path(path)} is not set; it is replaced by nothing")
    return env_file.values


def read_depends_on(cursor: Cursor) -> tuple[Dependency, ...]:
    if not cursor.is_mapping:
        return tuple(Dependency(service=name) for name in cursor.each_text(parse_name))
    dependencies = []
    for child in cursor.entries().values():
        if child.is_null:
            dependencies.append(Dependency(service=child.key))
            continue
        fields = Fields(child)
        dependencies.append(
            Dependency(
                service=child.key,
                condition=fields.parse("condition", _parse_condition, "service_started"),
                restart=fields.flag("restart", default=False),
                required=fields.flag("required", default=True),
            )
        )
        fields.finish()
    return tuple(dependencies)


def _parse_condition(text: str) -> Condition:
    if text not in get_args(Condition):
        raise BadValue(f"{shown(text)} is not a condition", f"write {', '.join(get_args(Condition))}")
    return cast("Condition", text)


def read_healthcheck(cursor: Cursor) -> Healthcheck | None:
    fields = Fields(cursor)
    disabled = fields.flag("disable", default=False)
    test = fields.read("test", _read_test, None)
    check = Healthcheck(
        test=test or ("NONE",),
        interval_s=fields.parse("interval", _parse_positive, 30.0),
        timeout_s=fields.parse("timeout", _parse_positive, 30.0),
        start_period_s=fields.parse("start_period", parse_duration, 0.0),
        retries=fields.read("retries", lambda cursor: cursor.whole(1, _MAX_RETRIES), 3),
    )
    has_test = fields.find("test") is not None
    fields.finish(_HEALTH_REASONS)
    if cursor.is_mapping and not disabled and not has_test:
        cursor.fail("no test", "write test: [CMD, program, ...] or disable: true")
    return None if disabled or check.test == ("NONE",) else check


def _parse_positive(text: str) -> float:
    seconds = parse_duration(text)
    if seconds == 0:
        raise BadValue("a duration of 0", "write 1ms or more")
    return seconds


def _read_test(cursor: Cursor) -> tuple[str, ...] | None:
    if not cursor.is_sequence:
        text = cursor.text()
        return None if text is None else ("CMD-SHELL", text)
    test = cursor.each(Cursor.text)
    if (
        test == ("NONE",)
        or (test[:1] == ("CMD",) and len(test) > 1)
        or (test[:1] == ("CMD-SHELL",) and len(test) == 2)
    ):
        return test
    cursor.fail("test does not begin with its kind", "write [CMD, program, ...], [CMD-SHELL, text] or [NONE]")
    return None


def parse_restart(text: str) -> RestartPolicy:
    """`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:5`. Raises BadValue."""
    kind, colon, maximum = text.partition(":")
    if kind not in get_args(RestartKind) or (colon and kind != "on-failure"):
        raise BadValue(
            f"{shown(text)} is not a restart policy", "write no, always, unless-stopped or on-failure[:TIMES]"
        )
    return RestartPolicy(
        kind=cast("RestartKind", kind), maximum=parse_whole(maximum, 1, _MAX_RETRIES) if colon else None
    )


def read_scale(fields: Fields) -> tuple[int, Limits]:
    """Replicas and limits. Both have an old place in the service and a new one under `deploy`."""
    scale = fields.read("scale", _read_replicas, None)
    old = Limits(
        cpus=fields.parse("cpus", parse_cpus, None),
        memory_bytes=fields.parse("mem_limit", parse_size, None),
        pids=fields.parse("pids_limit", _parse_pids, None),
    )
    deploy = fields.find("deploy")
    if deploy is None:
        return 1 if scale is None else scale, old
    inner = Fields(deploy)
    replicas = inner.read("replicas", _read_replicas, None)
    new = inner.read("resources", _read_resources, Limits())
    inner.finish(_DEPLOY_REASONS)
    limits = Limits(
        cpus=_same(old.cpus, new.cpus, deploy.at("resources", "limits", "cpus"), "cpus"),
        memory_bytes=_same(
            old.memory_bytes, new.memory_bytes, deploy.at("resources", "limits", "memory"), "mem_limit"
        ),
        pids=_same(old.pids, new.pids, deploy.at("resources", "limits", "pids"), "pids_limit"),
    )
    count = _same(scale, replicas, deploy.at("replicas"), "scale")
    return 1 if count is None else count, limits


def _read_replicas(cursor: Cursor) -> int | None:
    return cursor.whole(0, MAX_REPLICAS)


def _read_resources(cursor: Cursor) -> Limits:
    fields = Fields(cursor)
    limits = fields.read("limits", _read_limits, Limits())
    fields.finish(_RESOURCES_REASONS)
    return limits


def _read_limits(cursor: Cursor) -> Limits:
    fields = Fields(cursor)
    limits = Limits(
        cpus=fields.parse("cpus", parse_cpus, None),
        memory_bytes=fields.parse("memory", parse_size, None),
        pids=fields.parse("pids", _parse_pids, None),
    )
    fields.finish(_LIMITS_REASONS)
    return limits


def _parse_pids(text: str) -> int | None:
    return None if text == _UNLIMITED else parse_whole(text, 1, MAX_PIDS)


def _same(old: N | None, new: N | None, place: Cursor, old_key: str) -> N | None:
    if old is not None and new is not None and old != new:
        place.fail(f"another value than the service's {old_key}", f"keep one; remove {old_key} to keep this")
    return new if new is not None else old

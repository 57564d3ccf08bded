"""The executable that an OCI runtime calls as a hook: `oci-hook STAGE`, the container's state on its input.

A container without annotations of ours is none of ours: nothing is asked, and all is well. If createRuntime fails, the
runtime takes the container away; if poststop does, it is logged, and the daemon finds the dead by itself.
"""

from __future__ import annotations

import sys

from sealane.programs import SOCKET, api, daemon, daemon_socket, read_all, text, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STAGES = ("createRuntime", "poststop")
PREFIX = "sealane."
STATE_BYTES_MAX = 1 << 20


class StateError(Exception):
    """What the runtime has handed over is no state."""


def main(socket: str = SOCKET) -> int:
    """The exit status. `socket`: the daemon's; SEALANE_SOCKET goes before it."""
    try:
        _do(_stage(sys.argv[1:]), _read_state(), daemon_socket(socket))
    except api.RefusedError as error:
        _say(f"{error.message} ({error.hint})" if error.hint else error.message)
    except daemon.UnreachableError as error:
        _say(f"{error} ({error.hint})")
    except StateError as error:
        _say(str(error))
    except Exception as error:  # Whatever it is, a runtime shows one line.
        _say(f"{type(error).__name__}: {error}")
    else:
        return 0
    return 1


def _stage(words: list[str]) -> str:
    if len(words) != 1 or words[0] not in STAGES:
        raise StateError(
            f"an OCI hook of sealane, called as `oci-hook STAGE`; STAGE is {' or '.join(STAGES)}"
        )
    return words[0]


def _do(stage: str, state: dict[str, Any], socket: str) -> None:
    annotations = state.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise StateError("annotations: an object is needed")
    ours = {key: value for key, value in annotations.items() if key.startswith(PREFIX)}
    if not ours:
        return
    request = {"stage": stage, "id": state.get("id"), "annotations": ours}
    if stage == "createRuntime":
        # A container that has ended has none, whatever a runtime says of it.
        request["pid"] = state.get("pid", 0)
    api.ask(socket, "/v1/oci", request)


def _read_state() -> dict[str, Any]:
    data = read_all(0, STATE_BYTES_MAX)
    if len(data) > STATE_BYTES_MAX:
        raise StateError(f"the state is longer than {STATE_BYTES_MAX} bytes")
    try:
        state = text.loads(data)
    except ValueError as error:
        raise StateError(f"the state is no JSON: {error}") from None
    if not isinstance(state, dict):
        raise StateError("the state is no JSON object")
    return state


def _say(what: str) -> None:
    """One line, whatever is in it: a runtime puts it into its own message."""
    line = "".join(sign if sign.isprintable() else " " for sign in f"sealane: {what}")
    write_all(2, f"{line}\n".encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    sys.exit(main())

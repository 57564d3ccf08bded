"""The one exception tree of this package.

ContainerError
 ├─ SpecError          a field of a ContainerSpec (or of a verb's arguments) is wrong; nothing was changed
 ├─ NotFoundError      no container of that id
 ├─ UnreadableError    its record is damaged; carries the hint
 ├─ ConflictError      the id is taken by another spec, or the container's state forbids the verb
 ├─ NotRunningError    the verb needs a running container
 ├─ LimitsError        resource limits were asked for where this process may not set them
 ├─ ImageError         an image cannot be had or unpacked; carries the hint
 └─ LaunchError        the OCI runtime refused; carries the exit code a shell would give
"""

from __future__ import annotations


class ContainerError(Exception):
    """Base of all errors of this package; its text is meant for the user, and `hint`, what to do about it."""

    hint = ""


class SpecError(ContainerError):
    """A wrong field. Nothing was changed."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class NotFoundError(ContainerError):
    """There is no such container."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"no such container: {container_id}")


class UnreadableError(ContainerError):
    """Its record is damaged."""

    def __init__(self, container_id: str, why: str) -> None:
        super().__init__(f"the record of container {container_id} cannot be read: {why}")
        self.hint = f"`sealane rm --force {container_id}`, and run it again"


class ConflictError(ContainerError):
    """The container's present state forbids the verb."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotRunningError(ContainerError):
    """The verb needs a running container."""

    def __init__(self, container_id: str, status: str) -> None:
        super().__init__(f"container {container_id} is not running (it is {status})")
        verb = "stop" if status == "restarting" else "start"
        self.hint = (
            f"`sealane {verb} {container_id}` {verb}s it, `sealane logs {container_id}` shows its last words"
        )


class LimitsError(ContainerError):
    """Limits cannot be set by this process; the text names the field and the reason."""


class ImageError(ContainerError):
    """An image cannot be had or unpacked. Nothing of it is left."""

    def __init__(self, message: str, *, hint: str = "", lacks_tools: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.lacks_tools = lacks_tools


class LaunchError(ContainerError):
    """The OCI runtime refused to start a process.

    `exit_code` is what Docker and shells answer: 127 command not found, 126 not executable, 125 anything else.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

"""Translates runtime errors into API errors that name containers."""

from collections.abc import Iterator
from contextlib import contextmanager

from sealane.containers import codes
from sealane.containers.errors import ConflictError as RuntimeConflict
from sealane.containers.errors import ContainerError, LaunchError, NotRunningError, SpecError, UnreadableError
from sealane.containers.errors import NotFoundError as RuntimeNotFound
from sealane.engine.errors import ConflictError, InvalidError, KernelError, NotFoundError
from sealane.model.intent import Intent


@contextmanager
def translated(intent: Intent) -> Iterator[None]:
    """Inside, errors of the runtime become the verbs'."""
    try:
        yield
    except SpecError as error:
        raise InvalidError(str(error), field=f"spec.{error.field}") from error
    except RuntimeNotFound as error:
        raise NotFoundError(by_name(str(error), intent)) from error
    except (RuntimeConflict, NotRunningError, UnreadableError) as error:
        raise ConflictError(by_name(str(error), intent), hint=by_name(error.hint, intent)) from error
    except LaunchError as error:
        if error.exit_code == codes.NOT_FOUND:
            raise NotFoundError(str(error), field="spec.command") from error
        if error.exit_code == codes.NOT_EXECUTABLE:
            raise InvalidError(str(error), field="spec.command") from error
        raise KernelError(str(error)) from error
    except (ContainerError, OSError) as error:
        raise KernelError(str(error)) from error


def by_name(text: str, intent: Intent) -> str:
    """The runtime knows containers by their ids, who reads of them by their names."""
    for container in intent.containers.values():
        text = text.replace(container.id, container.name)
    return text

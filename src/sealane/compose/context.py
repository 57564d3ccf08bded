"""What reading a file needs besides its text. The caller gives it; nothing here asks the machine."""

from collections.abc import Callable, Mapping

import msgspec


class Context(msgspec.Struct, frozen=True, kw_only=True):
    environ: Mapping[str, str]
    directory: str
    """Absolute; relative paths in the file start here."""
    read_file: Callable[[str], str] | None = None
    """The text of an `env_file` by absolute path. Raises OSError, or ValueError for what is no text."""

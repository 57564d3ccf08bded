"""`--env-file` as Docker reads it, which is not as Compose reads `env_file`: a value is what stands behind the `=`, with its
quotes and its spaces.

| line | variable |
|---|---|
| `A="b c" # d` | `A` is `"b c" # d` |
| `A` | what this command's own environment has; left out if it has nothing |
| `# A=b`, empty | none |
"""

from collections.abc import Mapping

from sealane.cli.context import UsageError

FLAG = "--env-file"
_BLANKS = " \t"


def parse_env_lines(text: str, environ: Mapping[str, str], source: str) -> dict[str, str]:
    """Raises UsageError at the first bad line; a later line of the same name wins."""
    found: dict[str, str] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = raw.removesuffix("\r").lstrip(_BLANKS)
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not name or any(char.isspace() for char in name):
            what = "has a space in it" if name else "is empty"
            raise UsageError(
                f"{source} line {number}: the name {name!r} {what}",
                field=FLAG,
                hint="write NAME=value, a variable a line",
            )
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
    return found

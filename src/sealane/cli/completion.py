"""Completion scripts from the argparse tree. Pure: a parser in, a script out.

All three shells get one table, a line a command: its flags, the flags that take a value, and what its words are. Names
of live objects come from the daemon (`sealane network ls -q`), quietly if there is none.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

LISTS = {
    "NETWORK": "sealane network ls -q",
    "SANDBOX": "sealane sandbox ls -q",
    "ENDPOINT": "sealane endpoint ls -q",
    "CONTAINER": "sealane ps -aq",
    "IMAGE": "sealane image ls -q",
    "NODE": "sealane lab status -q",
    "LAB": "sealane lab ls -q",
}
"""What completes a word of this metavar."""
PATHS = frozenset({"FILE", "DIR", "PATH", "PROGRAM"})


class Place(NamedTuple):
    """What can stand at one place of the grammar."""

    path: str
    """Words of the command, e.g. `network create`; empty at the root."""
    words: tuple[tuple[str, str], ...]
    """Subcommands or choices, each with its help."""
    flags: tuple[tuple[str, str], ...]
    """Every spelling, each with its help."""
    values: tuple[tuple[str, str], ...]
    """Flags that take a value, and what completes it: words, or a metavar."""
    kind: str
    """Metavar of its words, if LISTS or PATHS know it."""


def grammar_of(parser: argparse.ArgumentParser) -> list[Place]:
    return list(_walk(parser, ()))


def _walk(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[Place]:
    words: list[tuple[str, str]] = []
    flags: list[tuple[str, str]] = []
    values: list[tuple[str, str]] = []
    kind = ""
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            words += [(name, helps.get(name, "")) for name in action.choices]
            below += action.choices.items()
        elif action.option_strings:
            flags += [(flag, _one_line(action.help)) for flag in action.option_strings]
            if action.nargs != 0:
                values += [(flag, _value(action)) for flag in action.option_strings]
        else:
            words += [(str(choice), "") for choice in action.choices or ()]
            kind = kind or _known(str(action.metavar or ""))
    yield Place(" ".join(path), tuple(words), tuple(flags), tuple(values), kind)
    for name, child in below:
        yield from _walk(child, (*path, name))


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return " ".join(str(choice) for choice in action.choices)
    return _known(str(action.metavar or ""))


def _known(metavar: str) -> str:
    return metavar if metavar in LISTS or metavar in PATHS else ""


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


# --- bash; `path` and `words` are special in zsh, which runs the same code

_BASH_HEAD = """# bash completion for sealane; made by `sealane completion bash`
_sealane_list() {
    case "$1" in
"""
_BASH_BODY = """    esac
}
_sealane() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" place="" i word try
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        [[ $word == -* ]] && continue
        try="${place:+$place }$word"
        case "|$_sealane_paths|" in *"|$try|"*) place="$try" ;; esac
    done
    local subs="" flags="" kind="" value=""
    case "$place" in
"""
_BASH_TAIL = """    esac
    if [[ $value == %PATH% ]]; then
        compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    elif [[ -n $value ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_sealane_list "$value")" -- "$cur")
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ $kind == %PATH% ]]; then
        compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -W "$subs $(_sealane_list "$kind")" -- "$cur")
    fi
}
complete -o default -F _sealane sealane
"""


def bash_script(places: list[Place]) -> str:
    lists = "".join(f"        {name}) {command} 2>/dev/null ;;\n" for name, command in LISTS.items())
    lists += "        ?*) printf '%s' \"$1\" ;;\n"
    paths = "|".join(place.path for place in places if place.path)
    cases = "".join(map(_bash_case, places))
    head = _BASH_HEAD.replace("_sealane_list()", f"_sealane_paths='{paths}'\n_sealane_list()", 1)
    return head + lists + _BASH_BODY + cases + _BASH_TAIL


def _bash_case(place: Place) -> str:
    words = " ".join(word for word, _ in place.words)
    flags = " ".join(flag for flag, _ in place.flags)
    kind = "%PATH%" if place.kind in PATHS else place.kind
    lines = [f"        '{place.path}')", f"            subs='{words}' flags='{flags}' kind='{kind}'"]
    by_value: dict[str, list[str]] = {}
    for flag, value in place.values:
        if value:
            by_value.setdefault("%PATH%" if value in PATHS else value, []).append(flag)
    if by_value:
        lines.append('            case "$prev" in')
        lines += [
            f"                {'|'.join(flags)}) value='{value}' ;;" for value, flags in by_value.items()
        ]
        lines.append("            esac")
    return "\n".join([*lines, "            ;;"]) + "\n"


# --- zsh: bash's function through bashcompinit, which is a part of zsh


def zsh_script(places: list[Place]) -> str:
    return (
        "#compdef sealane\n# zsh completion for sealane; made by `sealane completion zsh`\n"
        "autoload -U +X bashcompinit && bashcompinit\n"
        # zsh has no mapfile and no compopt.
        "compopt() { : }\n"
        + bash_script(places)
        .replace("mapfile -t COMPREPLY < <(", "COMPREPLY=($(")
        .replace(' -- "$cur")', ' -- "$cur"))')
    )


# --- fish


def fish_script(places: list[Place]) -> str:
    lines = [
        "# fish completion for sealane; made by `sealane completion fish`",
        _FISH_AT,
        "complete -c sealane -f",
    ]
    groups = {place.path for place in places if place.words and place.path}
    for place in places:
        at = f"-n '__sealane_at \"{place.path and place.path + ' '}\"'"
        if place.path not in groups and place.path:
            at = f"-n '__sealane_in \"{place.path} \"'"
        lines += [
            f"complete -c sealane {at} -a {_quoted(word)} -d {_quoted(text)}" for word, text in place.words
        ]
        if place.kind in LISTS:
            lines.append(f"complete -c sealane {at} -a '({LISTS[place.kind]} 2>/dev/null)'")
        elif place.kind:
            lines.append(f"complete -c sealane {at} -F")
        values = dict(place.values)
        lines += [_fish_flag(at, flag, text, values.get(flag)) for flag, text in place.flags]
    return "\n".join(lines) + "\n"


_FISH_AT = """function __sealane_words
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; or echo -n "$word "
    end
end
function __sealane_at
    test "$(__sealane_words)" = "$argv[1]"
end
function __sealane_in
    string match -q -- "$argv[1]*" "$(__sealane_words)"
end"""


def _fish_flag(at: str, flag: str, text: str, value: str | None) -> str:
    name = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
    line = f"complete -c sealane {at} {name} -d {_quoted(text)}"
    if value is None:
        return line
    if value in PATHS:
        return f"{line} -rF"
    if value in LISTS:
        return f"{line} -xa '({LISTS[value]} 2>/dev/null)'"
    return f"{line} -xa {_quoted(value)}" if value else f"{line} -x"


def _quoted(text: str) -> str:
    """For fish: in single quotes only the quote and the backslash are special."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[[list[Place]], str]] = {
    "bash": bash_script,
    "zsh": zsh_script,
    "fish": fish_script,
}

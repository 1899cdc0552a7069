"""`rmkit completion bash|zsh`: a script with which the shell completes commands, sub-verbs, options and choices.

The script is written from the parsers themselves and is static, so that a keypress starts no Python. Beside what it
knows it offers files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rmkit.cli import arguments, display
from rmkit.cli.main import commands
from rmkit.cli.verbs import Command, Verbs
from rmkit.errors import RmkitError

BASH = """\
# Completes rmkit in bash; put it where bash-completion looks:
#   rmkit completion bash > ~/.local/share/bash-completion/completions/rmkit
_rmkit() {
    local key=rmkit word words previous=${COMP_WORDS[COMP_CWORD - 1]}
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word != -* && -n $(_rmkit_words "$key $word") ]] && key="$key $word"
    done
    words=$(_rmkit_words "$key $previous")
    [[ $previous == -* && -n $words ]] || words=$(_rmkit_words "$key")
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
_rmkit_words() {
    case "$1" in
@WORDS@
    esac
}
complete -o default -F _rmkit rmkit
"""
ZSH = """\
# Completes rmkit in zsh; save it and source it in ~/.zshrc:  rmkit completion zsh > ~/.rmkit-completion.zsh
autoload -U +X bashcompinit && bashcompinit
"""


def words(members: Mapping[str, Command], place: str = "rmkit") -> Iterator[tuple[str, list[str]]]:
    """What may stand behind each place: behind a command its sub-verbs or options, behind an option its choices."""
    yield place, list(members)
    for name, command in members.items():
        here = f"{place} {name}"
        try:
            run = command.load()
            if isinstance(run, Verbs):
                yield from words(run.verbs, here)
                continue
            parser = arguments.parser_of(run)
        except (RmkitError, ModuleNotFoundError):  # what is not installed completes to files
            continue
        options, choices = parser.words()
        yield here, options
        yield from ((f"{here} {option}", among) for option, among in choices.items())


def script(shell: str) -> str:
    """The script for a shell, `bash` or `zsh`."""
    cases = [f'        "{place}") echo "{" ".join(names)}" ;;' for place, names in words(commands()) if names]
    bash = BASH.replace("@WORDS@", "\n".join(cases))
    return bash if shell == "bash" else ZSH + bash


def _main(argv: list[str], *, shell: str) -> int:
    parser = arguments.parser(
        f"completion {shell}",
        f"Print a script with which {shell} completes rmkit.",
        examples=[f"completion {shell} > rmkit-completion.{shell}"],
    )
    options = parser.parse_args(argv)
    text = script(shell)
    display.emit({"script": text}, as_json=options.json, text=text)
    return 0


def bash(argv: list[str]) -> int:
    return _main(argv, shell="bash")


def zsh(argv: list[str]) -> int:
    return _main(argv, shell="zsh")


main = Verbs(
    "completion",
    "Scripts with which a shell completes rmkit's commands, options and choices.",
    {"bash": Command(bash, "for bash"), "zsh": Command(zsh, "for zsh")},
    examples=["completion bash > ~/.local/share/bash-completion/completions/rmkit"],
    word="SHELL",
)

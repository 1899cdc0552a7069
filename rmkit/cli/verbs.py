"""Commands by name: the one way in which a command, a sub-verb or a kind is looked up, listed and called.

    main = Verbs("models", "List reward models, promote, roll back.", {"list": Command(_list, "...")}, examples=[...])

A verb that has sub-verbs takes no positional argument of its own; the words after the sub-verb are the sub-verb's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rmkit import plugins
from rmkit.errors import UsageError, unknown

Run = Callable[[list[str]], int]


class Command(NamedTuple):
    """`target` takes the remaining arguments and returns an exit status; as "module:function" it is imported late."""

    target: str | Run
    summary: str

    def load(self) -> Run:
        run: Run = plugins.load(self.target) if isinstance(self.target, str) else self.target
        return run


@dataclass(frozen=True)
class Verbs:
    """The command `rmkit NAME VERB ...`. Without a verb it is the one named `default`.

    `word` is what a verb is called in its help, where that is more telling (KIND of model).
    """

    name: str
    summary: str
    verbs: Mapping[str, Command]
    examples: Sequence[str]
    default: str | None = None
    word: str = "VERB"

    def __call__(self, argv: list[str]) -> int:
        """Runs the verb that the first argument names. Raises UsageError for an unknown one, with the nearest."""
        if argv[:1] in (["-h"], ["--help"]):
            print(self.usage())
            return 0
        if not argv and not self.default:
            raise UsageError(f"rmkit {self.name} takes a {self.word.lower()}: {', '.join(self.verbs)}")
        if self.default and (not argv or argv[0].startswith("-")):
            argv = [self.default, *argv]
        return find(self.verbs, argv[0], what=f"{self.word.lower()} of rmkit {self.name}").load()(argv[1:])

    def usage(self) -> str:
        """The text of `rmkit NAME --help`."""
        words = f"[{self.word}]" if self.default else self.word
        lines = [f"usage: rmkit {self.name} {words} ...        rmkit {self.name} {self.word} --help shows options"]
        lines += ["", self.summary, "", *listing(self.verbs, default=self.default)]
        return "\n".join([*lines, "", "examples:", *(f"  rmkit {example}" for example in self.examples)])


def find(commands: Mapping[str, Command], name: str, *, what: str) -> Command:
    """The command of that name. Raises UsageError for an unknown one."""
    if name not in commands:
        raise UsageError(unknown(what, name, commands))
    return commands[name]


def listing(commands: Mapping[str, Command], *, default: str | None = None) -> list[str]:
    """A line a command: name and summary."""
    width = max(12, *(len(name) + 2 for name in commands))
    notes = {default: " (the default)"}
    return [f"  {name:<{width}}{command.summary}{notes.get(name, '')}" for name, command in commands.items()]

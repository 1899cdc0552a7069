"""Judges that others trained: what each is shown and how its verdict is read, as a row of a table.

    [skywork-critic]
    title = "Skywork-Critic-Llama-3.1"
    form = "pairwise"                                      # as in [judge]: pairwise, scale, yes_no, listwise
    match = { hub = ["Skywork/Skywork-Critic-Llama-3.1-8B"] }
    user = "Compare ... {{ question }} ... {{ answers[0] }} ... {{ answers[1] }}"
    read = { kind = "choice", pattern = '\\[\\[([AB])\\]\\]', labels = { A = 1, B = 0 } }
    settings = { max_tokens = 2048 }                       # any other key of [judge]

`profiles.toml` holds the ones that ship; a file of this form with one table is a profile of yours. `system` and `user`
are Jinja texts over

    question, answers, rubric_text, reference_text    plain: control tokens broken up, no fence, as these models learned
    conversation, responses, rubric, reference        the same between marked tags, as rmkit's own prompts show them
    lowest, highest, ties                             of the judge's settings

Instead of both, `turns` names a role for each answer: the conversation is sent as it is with the answers behind it, and
the rubric under `rubric_role`, for models whose own chat template frames them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from rmkit import config
from rmkit.chat.reasoning import in_content
from rmkit.errors import ConfigError, UsageError, unknown
from rmkit.ids import canonical_json, content_hash
from rmkit.judge.prompt_delimiters import harmless
from rmkit.judge.prompt_file import PromptFile, Shown, conversation_text
from rmkit.judge.reply_reader import ReadTable
from rmkit.types import Conversation, Message

SHIPPED = Path(__file__).parent / "profiles.toml"
Form = Literal["scale", "yes_no", "pairwise", "listwise"]


@dataclass(frozen=True, kw_only=True)
class MatchTable:
    """Which models a profile is for: one of the names, or a text that the chat template holds."""

    hub: Annotated[tuple[str, ...], "Hub ids; a folder of that name counts too"] = ()
    template: Annotated[str, "a part of the chat template"] = ""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One family of judges. `note` says what of it was never held against the family's own code or weights."""

    form: Form
    read: ReadTable
    name: str = ""
    title: str = ""
    note: str = ""
    system: str = ""
    user: str = ""
    turns: tuple[str, ...] = ()
    rubric_role: str = ""
    needs_rubric: bool = False
    thinking: Annotated[bool | None, "the chat template's enable_thinking; left out where nothing is said"] = None
    settings: dict[str, Any] = field(default_factory=dict)
    match: MatchTable = field(default_factory=MatchTable)

    def __post_init__(self) -> None:
        if bool(self.user) == bool(self.turns):
            raise ConfigError(f"profile {self.name}: either user (a Jinja text) or turns (a role for each answer)")
        if self.turns and self.form != "pairwise" and not (self.form in ("scale", "yes_no") and len(self.turns) == 1):
            raise ConfigError(f"profile {self.name}: turns show two answers (pairwise) or one (scale, yes_no)")
        self.read.check(self.form, where=f"profile {self.name}: read")

    def prompt(self) -> PromptFile | TurnPrompt:
        """What renders the question to the judge."""
        if self.turns:
            return TurnPrompt(self)
        system = f"{{% block system %}}{self.system}{{% endblock %}}" if self.system else ""
        return PromptFile(Path(self.name), text=f"{system}{{% block user %}}{self.user}{{% endblock %}}")

    def template_options(self) -> dict[str, Any]:
        """What goes to the chat template beside the messages."""
        return {} if self.thinking is None else {"enable_thinking": self.thinking}


class TurnPrompt:
    """The conversation itself, each answer as a turn of a role of its own."""

    def __init__(self, profile: Profile) -> None:
        self.name = profile.name
        self._turns = profile.turns
        self._rubric_role = profile.rubric_role
        self.hash = content_hash(canonical_json([list(self._turns), self._rubric_role]))

    def render(self, conversation: Conversation, shown: Shown, *, settings: Mapping[str, Any]) -> Conversation:
        """The turns. Everything that others wrote has its control tokens broken up."""
        turns = tuple(Message(one.role, harmless(in_content(one).content), name=one.name) for one in conversation)
        texts = (harmless(conversation_text(one.messages)) for one in shown.responses)
        rubric = (Message(self._rubric_role, shown.rubric),) if self._rubric_role and shown.rubric else ()
        return (*turns, *map(Message, self._turns, texts), *rubric)


@cache
def profiles() -> dict[str, Profile]:
    """The profiles that ship, by name."""
    return _profiles(tomllib.loads(SHIPPED.read_text()), where=SHIPPED.name)


def open_profile(name: str, *, folder: Path = Path()) -> Profile:
    """The profile of that name, or of a TOML file with one, relative to `folder`. Raises ConfigError, UsageError."""
    if not name.endswith(".toml"):
        if name not in profiles():
            raise UsageError(f"{unknown('profile', name, list(profiles()))}; or a TOML file of yours")
        return profiles()[name]
    path = folder / name
    written = _profiles(config.read_toml(path), where=str(path))
    if len(written) != 1:
        raise ConfigError(f"{path}: expected one table, a profile, got {', '.join(written) or 'none'}")
    return next(iter(written.values()))


def _profiles(tables: Mapping[str, Any], *, where: str) -> dict[str, Profile]:
    if stray := [name for name, table in tables.items() if not isinstance(table, dict)]:
        raise ConfigError(f"{where}: {stray[0]} stands outside a table; a profile is a table [NAME]")
    return {
        name: config.build(Profile, {**table, "name": name}, where=f"{where}: {name}") for name, table in tables.items()
    }


def detected(*, hub: str, folder: Path) -> Profile | None:
    """The shipped profile of a Hub id, of a folder called as one, or of a chat template; None where nothing tells."""
    template: str | None = None
    for profile in profiles().values():
        ids = [one.lower() for one in profile.match.hub]
        if hub.lower() in ids or (not hub and folder.name.lower() in [one.rpartition("/")[2] for one in ids]):
            return profile
        if profile.match.template:
            template = _template(folder) if template is None else template
            if profile.match.template in template:
                return profile
    return None


def _template(folder: Path) -> str:
    """The chat template of a folder as text; empty where there is none."""
    if (own := folder / "chat_template.jinja").is_file():
        return own.read_text(errors="replace")
    path = folder / "tokenizer_config.json"
    settings = config.read_object(path, raises=ConfigError, hint="download it again") if path.is_file() else {}
    return str(settings.get("chat_template") or "")


def source_text(name: str) -> str:
    """A shipped profile as it stands in its file, to begin one's own with. Raises UsageError for another name."""
    open_profile(name)
    text = SHIPPED.read_text()
    starts = sorted(text.index(f"\n[{one}]\n") for one in profiles())
    start = text.index(f"\n[{name}]\n")
    end = next((one for one in starts if one > start), len(text))
    return text[start:end].strip() + "\n"

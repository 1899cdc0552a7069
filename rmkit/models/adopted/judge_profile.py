"""The profile of a judge inside of an adopted model's: recorded whole, so that a later release reads it as this one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from rmkit import config
from rmkit.errors import ConfigError, unknown
from rmkit.judge.config import JudgeConfig, judge_config, under_profile
from rmkit.judge.profile import Profile as JudgeProfile
from rmkit.judge.profile import open_profile, profiles
from rmkit.models.adopted.profile import Profile

FORMS = ("pairwise", "scale", "yes_no", "listwise")


def with_judge(profile: Profile) -> Profile:
    """The profile with the table of the judge's profile that it names. Raises ConfigError where it names none, or for
    tables of other readers."""
    read = profile.read
    if read.kind == "judge":
        empty = Profile(read=read)
        for name in ("text", "head", "scale"):
            if getattr(profile, name) != getattr(empty, name):
                raise ConfigError(f"[{name}] means nothing to the reader judge; see read.profile and read.settings")
    if read.kind != "judge" or read.judge or read.profile in FORMS:
        return profile
    if not read.profile:
        raise ConfigError(
            f"reader judge: {unknown('read.profile', '', [*FORMS, *profiles()])}, or a TOML file of yours"
        )
    table = asdict(open_profile(read.profile))
    judge = {key: value for key, value in table.items() if value not in ("", (), {}, None) and key != "match"}
    return replace(profile, read=replace(read, profile=Path(read.profile).stem, judge=judge))


def judge_profile(profile: Profile) -> JudgeProfile | None:
    """The judge's profile, None where rmkit's own prompt of a form asks. Raises ConfigError for a wrong table."""
    return config.build(JudgeProfile, profile.read.judge, where="read.judge") if profile.read.judge else None


def judge_settings(profile: Profile, name: str) -> JudgeConfig:
    """The judge's settings under that name. Raises ConfigError for keys that a judge does not have."""
    values = {**profile.read.settings, "name": name}
    if of_judge := judge_profile(profile):
        return under_profile(values, of_judge, where="read.settings")
    return judge_config({**values, "form": profile.read.profile or "pairwise"}, where="read.settings")[0]

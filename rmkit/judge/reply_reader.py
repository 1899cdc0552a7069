"""Reading the reply of a judge that others trained: the last thing behind its thoughts that looks like its verdict.

    choice    a label, found by a pattern; `labels` say what each is worth (a pair: P(first is better); yes_no: P(yes))
    numbers   as many numbers as responses were shown, found by a pattern; a pair compares them
    json      the last JSON object: a label under `key`, or a number under each of `keys`

What does not fit is unread, never a guess: another count of numbers, one outside the range, a label nobody listed.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from rmkit.chat.reasoning import reasoning_length
from rmkit.errors import ConfigError
from rmkit.generate import Sample, TokenLogprobs
from rmkit.judge.verdict import ParsedVerdict, label_masses

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
LONGEST = 20_000  # characters of a reply's end that are searched: a hostile one may take the square of them


@dataclass(frozen=True, kw_only=True)
class ReadTable:
    """Where the verdict stands."""

    kind: Literal["choice", "numbers", "json"]
    pattern: Annotated[str, "a regular expression whose only group is the label or the numbers"] = ""
    where: Annotated[
        Literal["last", "end", "first-line"], "the last match; one that ends the reply; the first line"
    ] = "last"
    labels: Annotated[dict[str, float], "label -> what it is worth, 0 to 1, in any case"] = field(default_factory=dict)
    key: Annotated[str, "json: where the label stands"] = ""
    keys: Annotated[tuple[str, ...], "json: where the number of each response stands"] = ()
    under: Annotated[str, "json: an object inside of it that holds them, where there is one"] = ""
    range: Annotated[tuple[float, ...], "least and greatest number; default those of the judge's settings"] = ()
    tie_break: Annotated[str, "json: where equal numbers are told apart"] = ""
    tie_middle: Annotated[float, "json: below it the first is better, above it the second"] = 0.0

    def check(self, form: str, *, where: str) -> None:
        """Raises ConfigError for a table that could read no verdict of this form."""
        if self.kind != "json":
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise ConfigError(f"{where}.pattern is no regular expression: {error}") from error
            if groups != 1:
                raise ConfigError(f"{where}.pattern: expected one group, got {groups}")
        elif bool(self.key) == bool(self.keys):
            raise ConfigError(f"{where}: json takes key (a label) or keys (a number for each response)")
        if (self.kind == "choice" or self.key) and not self.labels:
            raise ConfigError(f"{where}.labels: say what each label is worth, for example {{A = 1, B = 0}}")
        if bad := [label for label, worth in self.labels.items() if not 0 <= worth <= 1]:
            raise ConfigError(f"{where}.labels: {bad[0]} is worth {self.labels[bad[0]]}, expected 0 to 1")
        if self.labels and form not in ("pairwise", "yes_no"):
            raise ConfigError(f"{where}: labels are for the forms pairwise and yes_no, a {form} takes numbers")
        if form == "yes_no" and not self.labels:
            raise ConfigError(f"{where}: the form yes_no takes labels")
        if self.range and len(self.range) != 2:
            raise ConfigError(f"{where}.range: expected two numbers, got {len(self.range)}")


def read_reply(
    sample: Sample, read: ReadTable, *, form: str, n: int, default_range: tuple[float, float], use_logprobs: bool
) -> ParsedVerdict:
    """The verdict on the `n` responses shown, as `rmkit.judge.verdict` gives it."""
    if why := sample.no_reply:
        return ParsedVerdict(unread=why)
    reply = sample.text[reasoning_length(sample.text) :][-LONGEST:]
    if not reply.strip():
        return ParsedVerdict(unread="nothing but thoughts")
    if read.kind == "json":
        document = _last_object(reply)
        if document is None:
            return ParsedVerdict(unread="no JSON object")
        inner = document.get(read.under)
        return _of_object(inner if isinstance(inner, Mapping) else document, read, form, default_range)
    match = _match(reply, read)
    if match is None:
        return ParsedVerdict(unread="no verdict in the form of this judge")
    if read.kind == "numbers":
        return _of_numbers([float(one) for one in _NUMBER.findall(match[1])], read, form, n, default_range)
    if use_logprobs and (entry := _token_at(sample, reply[match.start(1) :])):
        masses = label_masses(entry, list(read.labels))
        if masses is not None:
            total = math.fsum(masses.values())
            p = math.fsum(read.labels[label] * mass for label, mass in masses.items()) / total
            return ParsedVerdict((p,) if form == "yes_no" else (p, 1 - p), mass=total)
    return _of_label(match[1], read, form)


def _match(text: str, read: ReadTable) -> re.Match[str] | None:
    if read.where == "first-line":
        line = text.strip().partition("\n")[0].strip()
        return re.fullmatch(read.pattern, line)
    last = next(iter(deque(re.finditer(read.pattern, text), maxlen=1)), None)
    if last is not None and read.where == "end" and text[last.end() :].strip(" \t\n.*_`\"')]}"):
        return None
    return last


def _of_label(label: str, read: ReadTable, form: str) -> ParsedVerdict:
    worth = {name.lower(): value for name, value in read.labels.items()}.get(label.strip().lower())
    if worth is None:
        return ParsedVerdict(unread=f"a label that is none of {', '.join(read.labels)}")
    return ParsedVerdict((worth,) if form == "yes_no" else (worth, 1 - worth))


def _of_numbers(
    numbers: list[float], read: ReadTable, form: str, n: int, default_range: tuple[float, float]
) -> ParsedVerdict:
    lowest, highest = read.range or default_range
    if len(numbers) != n:
        return ParsedVerdict(unread=f"another count of numbers than of responses ({len(numbers)}, {n})")
    if not all(lowest <= one <= highest for one in numbers):
        return ParsedVerdict(unread=f"a number outside {lowest:g} to {highest:g}")
    if form == "pairwise":
        first = (1 + (numbers[0] > numbers[1]) - (numbers[0] < numbers[1])) / 2
        return ParsedVerdict((first, 1 - first))
    return ParsedVerdict(tuple(numbers))


def _of_object(
    document: Mapping[str, Any], read: ReadTable, form: str, default_range: tuple[float, float]
) -> ParsedVerdict:
    if read.key:
        if read.key not in document:
            return ParsedVerdict(unread=f"a JSON object without {read.key!r}")
        return _of_label(str(document[read.key]), read, form)
    numbers = [_number(document.get(key)) for key in read.keys]
    if None in numbers:
        missing = read.keys[numbers.index(None)]
        return ParsedVerdict(unread=f"a JSON object without a number {missing!r}")
    verdict = _of_numbers([one for one in numbers if one is not None], read, form, len(read.keys), default_range)
    if verdict.values == (0.5, 0.5) and read.tie_break and (finer := _number(document.get(read.tie_break))) is not None:
        first = (1 + (finer < read.tie_middle) - (finer > read.tie_middle)) / 2
        return ParsedVerdict((first, 1 - first))
    return verdict


def _number(value: Any) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _last_object(text: str) -> dict[str, Any] | None:
    """The last JSON object of a text that stands in no other one."""
    document, at = None, 0
    decoder = json.JSONDecoder()
    while (at := text.find("{", at)) >= 0:
        try:
            value, at = decoder.raw_decode(text, at)
            document = value
        except ValueError:
            at += 1
        except RecursionError:  # a thousand levels are nobody's verdict
            return None
    return document


def _token_at(sample: Sample, rest: str) -> TokenLogprobs | None:
    """The token in which the reply's end `rest` begins; None where the tokens do not spell it."""
    joined = "".join(token.token for token in sample.logprobs)
    start = joined.rfind(rest.rstrip())
    end = 0
    for token in sample.logprobs if start >= 0 else ():
        end += len(token.token)
        if end > start + len(token.token) - len(token.token.lstrip()) and end > start:
            return token
    return None

"""Reading a verdict out of a judge's reply: from log-probabilities at the verdict's own token, or by strict parsing.

Parsing takes the last verdict line among the judge's own words (see `own_words`), whatever it quotes before or after.
It must say one thing: a line that names both or none, a reply that was cut off, filtered or says nothing is unread,
never a guess or half a win.

Log-probabilities (spec section 7): p(A) = e^lA / (e^lA + e^lB) over the alternatives at the token where the verdict
stands, summed over the spellings of each label ("A", " A", "**A"). Their total is the label mass; where it is below
LEAST_MASS the model meant something else, and the text decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rmkit.generate import Sample, TokenLogprobs
from rmkit.judge.own_words import own_words

LEAST_MASS = 0.05
_STRIPPED = " \t\n▁Ġ*_`[](){}\"'.:<>"
_DECORATION = re.compile(r"^[\s*_`\[(\"'{<]+|[\s*_`\])\"'}>.!]+$")


@dataclass(frozen=True, slots=True)
class ParsedVerdict:
    """One value per shown response, higher is better (a pair: its probabilities); empty with the reason in `unread`.

    `mass` is the label mass where log-probabilities were read.
    """

    values: tuple[float, ...] = ()
    mass: float | None = None
    unread: str | None = None


def labeled_line(sample: Sample, word: str) -> tuple[str, str | None]:
    """What the last line `word: ...` of the judge's own says, without decoration, and why there is none."""
    if why := sample.no_reply:
        return "", why
    lines = _lines(own_words(sample.text), word)
    return (_DECORATION.sub("", lines[-1][0]), None) if lines else ("", f"no {word} line")


def _lines(text: str, word: str) -> list[tuple[str, int]]:
    """What stands after `word:` on each line that begins with it, with the offset where that starts."""
    pattern = rf"(?im)^[ \t#*_`]*(?:final\s+)?{word}[*_`]*[ \t]*[:：][ \t*_`]*(?P<said>[^\n]*)$"
    return [(match["said"], match.start("said")) for match in re.finditer(pattern, text)]


def read_pair(sample: Sample, *, ties: bool, use_logprobs: bool) -> ParsedVerdict:
    """(p(A), p(B)) of a reply that ends in "Verdict: A", "Verdict: B" or, with `ties`, "Verdict: tie"."""
    answers, why = labeled_line(sample, "verdict")
    if why:
        return ParsedVerdict(unread=why)
    labels = {"a": (1.0, 0.0), "b": (0.0, 1.0)} | ({"tie": (0.5, 0.5)} if ties else {})
    result = labels.get(answers.lower().removeprefix("response ").strip())
    if result is None:
        return ParsedVerdict(unread="the verdict line names several answers or none")
    if use_logprobs and (masses := _masses(sample, "verdict", ["A", "B", *(["tie"] if ties else [])])):
        total = math.fsum(masses.values())
        p = (masses["A"] + masses.get("tie", 0.0) / 2) / total
        return ParsedVerdict((p, 1 - p), mass=total)
    return ParsedVerdict(result)


def read_yes_no(sample: Sample, *, use_logprobs: bool) -> ParsedVerdict:
    """(p(yes),) of a reply that ends in "Verdict: yes" or "Verdict: no"."""
    answers, why = labeled_line(sample, "verdict")
    if why:
        return ParsedVerdict(unread=why)
    if answers.lower() not in ("yes", "no"):
        return ParsedVerdict(unread="the verdict line names several answers or none")
    if use_logprobs and (masses := _masses(sample, "verdict", ["yes", "no"], any_case=True)):
        total = math.fsum(masses.values())
        return ParsedVerdict((masses["yes"] / total,), mass=total)
    return ParsedVerdict((float(answers.lower() == "yes"),))


def read_scale(sample: Sample, *, lowest: int, highest: int, use_logprobs: bool) -> ParsedVerdict:
    """(score,) of a reply that ends in "Score: N". With one-digit scales log-probabilities give the expected score."""
    answers, why = labeled_line(sample, "score")
    if why:
        return ParsedVerdict(unread=why)
    number = re.fullmatch(rf"(-?\d+)(?:\s*/\s*{highest})?", answers)
    if number is None or not lowest <= int(number[1]) <= highest:
        return ParsedVerdict(unread=f"the score line does not give one whole number from {lowest} to {highest}")
    levels = {str(level): level for level in range(lowest, highest + 1)}
    one_digit = all(len(level) == 1 for level in levels)  # "1" may be the beginning of "10"
    if use_logprobs and one_digit and (masses := _masses(sample, "score", list(levels))):
        total = math.fsum(masses.values())
        return ParsedVerdict((math.fsum(levels[name] * mass for name, mass in masses.items()) / total,), mass=total)
    return ParsedVerdict((float(number[1]),))


def read_ranking(sample: Sample, *, n: int) -> ParsedVerdict:
    """Values in [0, 1] of n responses from "Ranking: B > A = C": the share of the others that each one beats."""
    answers, why = labeled_line(sample, "ranking")
    if why:
        return ParsedVerdict(unread=why)
    tiers = [[label.strip() for label in re.split(r"[=,]", tier)] for tier in answers.upper().split(">")]
    named = [label for tier in tiers for label in tier]
    if sorted(named) != [chr(ord("A") + i) for i in range(n)]:
        return ParsedVerdict(unread="the ranking line does not name every response once")
    value = {label: _share(tiers, i) for i, tier in enumerate(tiers) for label in tier}
    return ParsedVerdict(tuple(value[chr(ord("A") + i)] for i in range(n)))


def _share(tiers: Sequence[Sequence[str]], i: int) -> float:
    """Share of the other responses that those of tier i beat, ties counting one half."""
    n = sum(map(len, tiers))
    below = sum(len(tier) for tier in tiers[i + 1 :])
    return (below + (len(tiers[i]) - 1) / 2) / (n - 1) if n > 1 else 0.5


def _masses(sample: Sample, word: str, labels: Sequence[str], *, any_case: bool = False) -> dict[str, float] | None:
    """Label -> probability at the verdict's token; None where that token or too little mass is found."""
    entry = _verdict_token(sample, word)
    return None if entry is None else label_masses(entry, labels, any_case=any_case)


def label_masses(entry: TokenLogprobs, labels: Sequence[str], *, any_case: bool = False) -> dict[str, float] | None:
    """Label -> probability among the alternatives of a token; None where too little mass is on labels at all."""
    masses = dict.fromkeys(labels, 0.0)
    known = {label.lower() if any_case else label: label for label in labels}
    for token, logprob in _alternatives(entry).items():
        spelling = token.strip(_STRIPPED)
        label = known.get(spelling.lower() if any_case else spelling)
        if label is not None:
            masses[label] += math.exp(min(logprob, 0.0))
    return masses if math.fsum(masses.values()) >= LEAST_MASS else None


def _alternatives(entry: TokenLogprobs) -> Mapping[str, float]:
    """The likeliest tokens, with the chosen one, which some servers leave out of its own list."""
    return {entry.token: entry.logprob, **dict(entry.top)}


def _verdict_token(sample: Sample, word: str) -> TokenLogprobs | None:
    """The token in which the answer of the judge's own last verdict line begins.

    Log-probabilities cover the reply's end only, so what is quoted is seen in the text, and the line found again among
    the tokens by how many verdict lines, anybody's, stand behind it.
    """
    own = _lines(own_words(sample.text), word)
    lines = _lines("".join(token.token for token in sample.logprobs), word)
    behind = sum(start > own[-1][1] for _, start in _lines(sample.text, word)) if own else 0
    if not own or behind >= len(lines) or not lines[-1 - behind][0].strip().startswith(own[-1][0].strip()):
        return None
    answers, start = lines[-1 - behind]
    target = start + len(answers) - len(answers.lstrip(_STRIPPED))
    end = 0
    for token in sample.logprobs:
        end += len(token.token)
        if end > target:
            return token
    return None

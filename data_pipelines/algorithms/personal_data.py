"""Personal data and secrets in texts, by patterns with checks. Names of people have no pattern and are not seen.

    email, phone                     with an international prefix, or of the North American form
    card                             13 to 19 digits that begin like a card and pass the Luhn check
    iban                             the length of its country, and 1 modulo 97 (ISO 13616)
    ssn                              of the United States, without the numbers that are never given out
    ip                               an address that the internet routes; version numbers and private ones are none
    login                            name and password in a URL
    key                              tokens of AWS, GitHub, GitLab, Google, Hugging Face, OpenAI, Slack, Stripe ...
    jwt, private_key                 a token whose header decodes; a PEM block
    password                         a value of high entropy behind password, secret, token or api_key

Where two overlap the longer one counts. A hit's evidence shows how long it is and how it begins, and never the whole.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20,
    "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28,
    "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24,
    "TR": 26, "UA": 29, "XK": 20,
}  # fmt: skip
_ENTROPY = 3.0  # bits a character, from which on a value is no word


def _luhn(text: str) -> bool:
    digits = [int(one) for one in re.sub(r"\D", "", text)]
    doubled = [2 * one - 9 * (one > 4) for one in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    compact = re.sub(r"\s", "", text).upper()
    if len(compact) != _IBAN_LENGTHS.get(compact[:2]):
        return False
    return int("".join(str(int(one, 36)) for one in compact[4:] + compact[:4])) % 97 == 1


def _phone(text: str) -> bool:
    return 8 <= len(re.sub(r"\D", "", text)) <= 15


def _routed(text: str) -> bool:
    if ":" in text and sum(map(bool, text.split(":"))) < 3:  # a slice of a list in code
        return False
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _jwt(text: str) -> bool:
    header = text.split(".")[0]
    try:
        return "alg" in json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, TypeError):
        return False


def _random(text: str) -> bool:
    n = Counter(text)
    return -sum(many / len(text) * math.log2(many / len(text)) for many in n.values()) >= _ENTROPY and bool(
        re.search(r"\d", text)
    )


@dataclass(frozen=True, slots=True)
class Pattern:
    """`group` of the match is the hit, `check` decides whether it is one."""

    kind: str
    regex: re.Pattern[str]
    check: Callable[[str], bool] = bool
    group: int = 0


_KEYS = (
    r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{36,255}\b|\bgithub_pat_\w{22,255}\b|\bglpat-[\w-]{20,}"
    r"|\bAIza[\w-]{35}(?![\w-])|\bhf_[A-Za-z0-9]{30,}\b|\bsk-(?:ant-|proj-)?[\w-]{20,}|\bxox[abprs]-[\w-]{10,}"
    r"|\b[sr]k_live_[0-9A-Za-z]{20,}\b"
)
PATTERNS: tuple[Pattern, ...] = (
    Pattern("email", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")),
    Pattern(
        "phone",
        re.compile(
            r"(?<![\w+])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,13}"
            r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4})(?!\w)(?![.-]\d)"
        ),
        _phone,
    ),
    Pattern("card", re.compile(r"(?<![\w.-])[3-6]\d(?:[ -]?\d){11,17}(?![\w-])"), _luhn),
    Pattern("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b"), _iban),
    Pattern("ssn", re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")),
    Pattern("ip", re.compile(r"(?<![\w.:])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"), _routed),
    Pattern(
        "ip",
        re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:|::)(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{1,4}(?![\w:])"),
        _routed,
    ),
    Pattern("login", re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://([^\s/:@\"']{1,64}:[^\s/@\"']{1,128})@"), group=1),
    Pattern("key", re.compile(_KEYS)),
    Pattern("jwt", re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"), _jwt),
    Pattern(
        "private_key",
        re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{1,10000}?-----END [A-Z ]{0,30}PRIVATE KEY-----"),
    ),
    Pattern(
        "password",
        re.compile(
            r"(?i)\b(?:password|passwd|pwd|secret|token|api[_-]?key)\b[\"']?\s{0,3}[:=]\s{0,3}[\"']?([^\s\"'`,;]{8,128})"
        ),
        _random,
        group=1,
    ),
)
KINDS = tuple(dict.fromkeys(pattern.kind for pattern in PATTERNS))


@dataclass(frozen=True, slots=True)
class Hit:
    """Characters [start, end) of a text."""

    kind: str
    start: int
    end: int

    @property
    def mask(self) -> str:
        return f"[{self.kind.upper()}]"

    def evidence(self, text: str) -> str:
        """Kind, first two characters and length."""
        return f"{self.kind} {text[self.start : self.start + 2]}... ({self.end - self.start} characters)"


def hits(text: str, kinds: Sequence[str] = KINDS) -> list[Hit]:
    """In the order of the text; of overlapping ones the longer."""
    every = [
        Hit(pattern.kind, *match.span(pattern.group))
        for pattern in PATTERNS
        if pattern.kind in kinds
        for match in pattern.regex.finditer(text)
        if pattern.check(match[pattern.group])
    ]
    result: list[Hit] = []
    for one in sorted(every, key=lambda hit: (hit.start - hit.end, hit.start)):
        if all(one.end <= other.start or other.end <= one.start for other in result):
            result.append(one)
    return sorted(result, key=lambda hit: hit.start)


def masked(text: str, spans: Sequence[Hit]) -> str:
    """The text with a mark in place of each hit."""
    parts, done = [], 0
    for one in spans:
        parts += [text[done : one.start], one.mask]
        done = one.end
    return "".join([*parts, text[done:]])


def moved(offset: int, spans: Sequence[Hit]) -> int:
    """Where an offset into the text stands in the masked one; within a hit it goes behind the mark."""
    shift = 0
    for one in spans:
        if one.start >= offset:
            break
        shift += len(one.mask) - (one.end - one.start) + max(0, one.end - offset)
    return offset + shift

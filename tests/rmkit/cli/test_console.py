"""What leaves a command: no stored text acts on a terminal, a log or whoever reads them."""

from __future__ import annotations

import io
import json
import logging

import pytest

from rmkit.cli.display import LineFormatter, emit, printable, shown

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\x08 b\r\nc\td\re\u202eevil\u2028f"
SHOWN = "a\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\x7f\\x08 b\nc\td\\re\\u202eevil\\u2028f"


def test_control_characters_are_shown_and_other_text_is_left() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("a\nb\r\nc\t", lines=False) == "a\\nb\\r\\nc\\t"
    for text in ("", "é 汉字 \U0001f600 שלום عربي ​ \\x1b", "two\n\tlines\n"):
        assert printable(text) == text


def test_commands_print_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    emit({}, as_json=False, text=HOSTILE)
    emit({"name": HOSTILE}, as_json=False)
    assert capsys.readouterr().out == f"{SHOWN}\nname  {SHOWN}\n"


def test_json_says_the_same_text_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"name": HOSTILE, "é": 1}, as_json=True)
    out = capsys.readouterr().out
    assert out.removesuffix("\n").isprintable()
    assert json.loads(out) == {"name": HOSTILE, "é": 1}


def test_a_log_line_is_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.Logger("x\n")
    logger.addHandler(handler)
    logger.warning("gone: %s", "a\nERROR rmkit: forged\x1b[2J")
    try:
        raise ValueError("b\x1b[2J")
    except ValueError:
        logger.exception("worse")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["WARNING x\\n: gone: a\\nERROR rmkit: forged\\x1b[2J", "ERROR x\\n: worse"]
    assert lines[-1] == "ValueError: b\\x1b[2J"


def test_a_page_s_values_are_escaped_twice_over() -> None:
    """Control characters become visible, markup stays text, and what is markup already stays markup."""
    from jinja2 import Environment
    from markupsafe import Markup

    template = Environment(autoescape=True, finalize=shown).from_string("{{ a }}|{{ b }}|{{ c }}")
    assert template.render(a="<i>\x1b[2J", b=Markup("<i>\x1b"), c=3) == "&lt;i&gt;\\x1b[2J|<i>\\x1b|3"

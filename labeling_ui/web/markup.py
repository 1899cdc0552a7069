"""Model and user text as HTML, formatted as its writer meant it or exactly as it is written; nothing is loaded or run.

Formatted is CommonMark with tables, single line breaks kept, mathematics (`$x$`, `$$x$$`, `\\(x\\)`, `\\[x\\]`) as
MathML and code with colors. What could load or lead somewhere is not formatted: links, images, bare addresses, HTML and
entities stand there as they were typed, as do arrows, directives and emoji names. Control characters are shown as
escapes in both views: who copies a text into a terminal would otherwise paste its ANSI sequences.
"""

from __future__ import annotations

from functools import cache, lru_cache
from html import escape
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from rmkit.cli.display import printable

MAX_FORMATTED = 100_000  # characters; a longer text is only shown exactly
MAX_FORMULA = 2000  # characters; a longer formula stays as it is written
_MATHML = "{http://www.w3.org/1998/Math/MathML}"
_ELEMENTS = frozenset(
    [
        "math",
        "mrow",
        "mi",
        "mn",
        "mo",
        "ms",
        "mtext",
        "mspace",
        "mfrac",
        "msqrt",
        "mroot",
        "msub",
        "msup",
        "msubsup",
        "munder",
        "mover",
        "munderover",
        "mtable",
        "mtr",
        "mtd",
        "mstyle",
        "mpadded",
        "mphantom",
        "menclose",
        "mmultiscripts",
        "mprescripts",
    ]
)
_ATTRIBUTES = (
    "display",
    "mathvariant",
    "stretchy",
    "fence",
    "form",
    "accent",
    "columnalign",
    "linethickness",
    "separator",
)
_BRACKETS = {"(": (r"\)", "math_inline"), "[": (r"\]", "math_inline_double")}


def exact(text: str) -> str:
    """HTML whose text is the source, character by character (control characters but tab and line break as escapes)."""
    shown = "&#13;\n".join(escape(printable(part), quote=False) for part in text.split("\r\n"))
    return f'<div class="exact" dir="auto">{shown}</div>'


@lru_cache(maxsize=256)
def formatted(text: str) -> str:
    """HTML of the text as Markdown; of a text longer than MAX_FORMATTED as `exact`."""
    if len(text) > MAX_FORMATTED:
        return exact(text)
    return f'<div class="formatted">{_parser().render(printable(text))}</div>'


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True})
    parser.enable(["table", "strikethrough"])
    # An indented line is a poem's or a formula's more often than code, which models put between fences.
    parser.disable(["link", "image", "autolink", "reference", "html_inline", "html_block", "entity", "code"])
    dollarmath_plugin(parser, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    parser.inline.ruler.at("newline", _line_break)
    parser.inline.ruler.before("escape", "bracket_math", _bracket_math)
    parser.core.ruler.push("direction", _set_direction)
    parser.add_render_rule("fence", _fence)
    for name, display in (("math_inline", "inline"), ("math_inline_double", "block"), ("math_block", "block")):
        parser.add_render_rule(name, _formula_rule(display))
    return parser


def _set_direction(state: Any) -> None:
    """Each block is set from left to right or from right to left after its own first letter."""
    for token in state.tokens:
        if token.nesting == 1:
            token.attrSet("dir", "auto")


def _line_break(state: StateInline, silent: bool) -> bool:
    """A line break with the indent of the line after it, which poems and outlines live on."""
    if state.src[state.pos] != "\n":
        return False
    end = state.pos + 1
    while end < state.posMax and state.src[end] in " \t":
        end += 1
    if not silent:
        state.pending = state.pending.rstrip(" ")
        state.push("hardbreak", "br", 0)
        state.pending += state.src[state.pos + 1 : end].replace("\t", "    ").replace(" ", "\u00a0")
    state.pos = end
    return True


def _bracket_math(state: StateInline, silent: bool) -> bool:
    """`\\(x\\)` and `\\[x\\]`; where the end is missing, the backslash stays."""
    opening = state.src[state.pos + 1 : state.pos + 2]
    if state.src[state.pos] != "\\" or opening not in _BRACKETS:
        return False
    closing, kind = _BRACKETS[opening]
    end = state.src.find(closing, state.pos + 2)
    if not silent:
        token = state.push(kind if end > 0 else "text", "", 0)
        token.content = state.src[state.pos + 2 : end] if end > 0 else state.src[state.pos : state.pos + 2]
        token.markup = f"\\{opening}"
    state.pos = end + 2 if end > 0 else state.pos + 2
    return True


def _formula_rule(display: str) -> Any:
    def rule(self: Any, tokens: list[Token], at: int, options: Any, env: Any) -> str:
        token = tokens[at]
        return _formula(token.content, display) or escape(_source(token), quote=False)

    return rule


def _source(token: Token) -> str:
    closing = {"\\(": "\\)", "\\[": "\\]"}.get(token.markup, token.markup)
    return f"{token.markup}{token.content}{closing}"


def _formula(latex: str, display: str) -> str | None:
    """MathML with the source as its title, None where it is no LaTeX that can be read."""
    if len(latex) > MAX_FORMULA:
        return None
    try:
        root = ElementTree.fromstring(convert(latex, display=display))
    except Exception:  # whatever a hostile formula makes of the converter or of XML: the source is shown
        return None
    # The converter passes on what stands in \text and \href as it is: only MathML itself may come through.
    for element in root.iter():
        element.tag = element.tag.removeprefix(_MATHML)
        if element.tag not in _ELEMENTS:
            return None
        element.attrib = {name: value for name, value in element.attrib.items() if name in _ATTRIBUTES}
    shown = ElementTree.tostring(root, encoding="unicode")
    return f'<span class="formula" title="{escape(latex)}">{shown}</span>'


def _fence(self: Any, tokens: list[Token], at: int, options: Any, env: Any) -> str:
    """Code under the language that the text gives, which may be words of a fence that never closes."""
    token = tokens[at]
    language = token.info.strip()
    label = f'<span class="language">{escape(language, quote=False)}</span>' if language else ""
    code = _highlighted(token.content, language.split(" ")[0]) or escape(token.content, quote=False)
    return f"<pre>{label}<code>{code}</code></pre>"


def _highlighted(code: str, language: str) -> str:
    """Code with the classes of its tokens; empty (shown plainly) where the language is unknown."""
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False) if language else None
    except ClassNotFound:
        lexer = None
    return "" if lexer is None else str(highlight(code, lexer, HtmlFormatter(nowrap=True)))

"""The words behind canonical JSON messages, as polars expressions."""

from __future__ import annotations

import polars as pl

MESSAGES = pl.List(pl.Struct({"content": pl.String, "role": pl.String}))

# Scripts written without spaces: one character counts as one word, elsewhere a run of word characters does.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = rf"[{UNSPACED}]|[\w--[{UNSPACED}]]+"


def turn_texts(messages: pl.Expr) -> pl.Expr:
    """List of the contents of the turns of one canonical JSON conversation; null stays null."""
    return messages.str.json_decode(MESSAGES).list.eval(pl.element().struct.field("content"))


def message_text(messages: pl.Expr) -> pl.Expr:
    """Contents of all turns of one canonical JSON conversation, joined by blank lines; null stays null."""
    return turn_texts(messages).list.join("\n\n", ignore_nulls=True)


def prompt_text(column: str = "prompt") -> pl.Expr:
    """Text of the prompt's turns."""
    return message_text(pl.col(column))


def response_texts(column: str = "responses") -> pl.Expr:
    """List of the texts of each response."""
    return pl.col(column).list.eval(message_text(pl.element()))


def words(text: pl.Expr) -> pl.Expr:
    """Lower-cased words of a text, in order; a character of an unspaced script is a word."""
    return text.str.to_lowercase().str.extract_all(WORD)

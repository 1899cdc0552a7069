"""Quality rules: rows that cannot teach what a better response is, each dropped with the rule that caught it.

A rule looks at single responses or at the row; a bad response beside a good one is a lesson and stays, so the rules on
single responses drop a row only where they hold for all of its responses (`empty`: for any). Numbers of
0 and `false` switch a rule off. The defaults drop little: they catch what is broken, not what is merely poor.

    empty            prompt or a response without a visible character
    identical        all responses equal but for white space that nobody sees: at ends of lines and around the text
    min_words        every response shorter than this many words
    max_chars        prompt and responses together longer than this
    repetition       share of every response's 3-word sequences that repeat an earlier one, in texts of 50 words or
                     more (after Rae et al., "Scaling Language Models", 2021, appendix A)
    markup           share of every response's characters inside URLs or HTML tags
    length_ratio     longest response by shortest, in characters
    truncated        every response of 200 characters or more that stops without closing punctuation
    refusals         every response refuses
    script           prompt mostly in one script, every response mostly in another
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from data_pipelines.algorithms.minhash import distinct_shingles
from data_pipelines.algorithms.text import UNSPACED, prompt_text, response_texts, words
from data_pipelines.scopes import Rows
from data_pipelines.steps import Context, StepResult, partition
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    empty: bool = True
    identical: bool = True
    min_words: int = 0
    max_chars: int = 200_000
    repetition: float = 0.8
    markup: float = 0.8
    length_ratio: float = 0.0
    truncated: bool = False
    refusals: bool = False
    script: bool = False

    def __post_init__(self) -> None:
        for name in ("repetition", "markup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"quality: {name} is a share in [0, 1] (0 is off), got {getattr(self, name)}")
        for name in ("min_words", "max_chars", "length_ratio"):
            if getattr(self, name) < 0:
                raise ConfigError(f"quality: {name} must be >= 0 (0 is off), got {getattr(self, name)}")


CLOSING = r"""[.!?…:;"'”’»)\]}>*_`|。！？」』）】~\p{Emoji_Presentation}]\s*$"""
REFUSAL = (
    r"(?i)^\W*(?:(?:i['’]?m|i am) (?:really |very |so )?sorry|sorry|i apologi[sz]e|as an ai|unfortunately)\b.{0,200}?"
    r"\b(?:can['’]?t|cannot|can not|won['’]?t|will not|unable|not able|not comfortable|not appropriate)\b"
    r"|^\W*i (?:can['’]?t|cannot|can not|won['’]?t|will not|am unable to|['’]m unable to|['’]m not able to) "
    r"(?:help|assist|do that|provide|answer|discuss|support|fulfil|comply|create|write|give)"
)
VISIBLE = r"[^\s\p{C}]"
MARKUP = r"https?://\S+|www\.\S+|</?[A-Za-z][^<>]{0,300}>"
SCRIPTS = {
    "Latin": r"\p{Latin}",
    "Cyrillic": r"\p{Cyrillic}",
    "Arabic": r"\p{Arabic}",
    "Devanagari": r"\p{Devanagari}",
    "Hangul": r"\p{Hangul}",
    "Greek": r"\p{Greek}",
    "Hebrew": r"\p{Hebrew}",
    "unspaced": f"[{UNSPACED}]",
}
BESIDE_TEXT = r'[{,]"(?:tool_calls|reasoning)":'  # keys of a message; inside its texts quotes are escaped
REPETITION_WORDS = 50
TRUNCATED_CHARS = 200


SCOPE = Rows()


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """A row's reason is the first rule it breaks, in the order of the list above; evidence is what was measured."""
    rules = _rules(config)
    texts = frame.select(prompt=prompt_text(), responses=response_texts(), messages="responses")
    answers = _measures(texts, config)
    caught = answers.group_by("row").agg(
        *(holds.alias(reason) for reason, (holds, _) in rules.items()),
        *(shown.cast(pl.String).alias(f"{reason} evidence") for reason, (_, shown) in rules.items()),
    )
    summary = caught.select(
        "row",
        reason=pl.coalesce(pl.lit(None, pl.String), *(pl.when(reason).then(pl.lit(reason)) for reason in rules)),
        evidence=pl.coalesce(
            pl.lit(None, pl.String), *(pl.when(reason).then(f"{reason} evidence") for reason in rules)
        ),
    )
    rows = pl.DataFrame({"row": pl.int_range(len(frame), dtype=pl.get_index_type(), eager=True)})
    joined = rows.join(summary, on="row", how="left", maintain_order="left")
    counts = {reason: int(caught[reason].sum()) for reason in rules}
    return partition(frame, joined["reason"], evidence=joined["evidence"], facts={"rows_caught_by_rule": counts})


def _measures(rows: pl.DataFrame, config: Config) -> pl.DataFrame:
    """One line per response: its row, text and prompt, and the measures that the rules ask about."""
    script = _script(pl.col("prompt")) if config.script else pl.lit(None)  # once per prompt, and by far the slowest
    numbered = rows.with_row_index("row").with_columns(script=script)
    answers = numbered.explode("responses", "messages").rename({"responses": "text"}).drop_nulls("text")
    text = pl.col("text")
    inside = text.str.extract_all(MARKUP).list.eval(pl.element().str.len_chars()).list.sum()
    differs = (_script(text) != pl.col("script")).fill_null(False)  # no letters, no language
    foreign = differs if config.script else pl.lit(False)
    says_more = pl.col("messages").str.contains(BESIDE_TEXT)
    measured = answers.with_columns(
        chars=text.str.len_chars(),
        words=words(text).list.len(),
        blank=~(text.str.contains(VISIBLE) | says_more),
        folded=pl.when(says_more).then("messages").otherwise(unseen_removed(text)),
        markup=inside / text.str.len_chars().clip(1),
        refusal=text.str.contains(REFUSAL),
        cut_off=(text.str.len_chars() >= TRUNCATED_CHARS) & ~text.str.contains(CLOSING),
        foreign=foreign,
    )
    distinct = distinct_shingles(measured["text"])
    share = 1 - distinct / (pl.col("words") - 2).clip(1)
    return measured.with_columns(repetition=pl.when(pl.col("words") >= REPETITION_WORDS).then(share).otherwise(0.0))


def unseen_removed(text: pl.Expr) -> pl.Expr:
    """A text without blank lines around it and blanks at the ends of its lines. Indentation, case and blanks between
    words stay: code and formatting differ by them."""
    return text.str.replace_all(r"[^\S\n]+(\n|$)", "$1").str.strip_chars("\n").str.strip_chars_end()


def _script(text: pl.Expr) -> pl.Expr:
    """The script of most letters; null where there are none."""
    counts = pl.concat_list([text.str.count_matches(pattern) for pattern in SCRIPTS.values()])
    return pl.when(counts.list.max() > 0).then(counts.list.arg_max())


def _rules(config: Config) -> dict[str, tuple[pl.Expr, pl.Expr]]:
    """Reason -> (condition, evidence) over the responses of one row; only the rules that are switched on."""
    least, longest = pl.col("chars").min().clip(1), pl.col("chars").max()
    total = pl.col("chars").sum() + pl.col("prompt").first().str.len_chars()
    several = pl.len() > 1
    rules = {
        "empty": (
            config.empty,
            "empty prompt or response",
            pl.col("blank").any() | ~pl.col("prompt").first().str.contains(VISIBLE),
            pl.lit(None),
        ),
        "identical": (
            config.identical,
            "identical responses",
            several & (pl.col("folded").n_unique() == 1),
            pl.lit(None),
        ),
        "min_words": (
            config.min_words,
            "too short",
            pl.col("words").max() < config.min_words,
            pl.format("longest response has {} words", pl.col("words").max()),
        ),
        "max_chars": (config.max_chars, "too long", total > config.max_chars, pl.format("{} characters", total)),
        "repetition": (
            config.repetition,
            "repetitive responses",
            pl.col("repetition").min() > config.repetition,
            pl.format("{} of 3-word sequences repeat", pl.col("repetition").min().round(3)),
        ),
        "markup": (
            config.markup,
            "mostly links or markup",
            pl.col("markup").min() > config.markup,
            pl.format("{} of every response", pl.col("markup").min().round(3)),
        ),
        "length_ratio": (
            config.length_ratio,
            "lengths too different",
            longest > config.length_ratio * least,
            pl.format("{} and {} characters", least, longest),
        ),
        "truncated": (config.truncated, "cut off", pl.col("cut_off").all(), pl.col("text").first().str.tail(40)),
        "refusals": (config.refusals, "refusals only", pl.col("refusal").all(), pl.col("text").first().str.head(60)),
        "script": (
            config.script,
            "language differs from prompt",
            pl.col("foreign").all(),
            pl.col("text").first().str.head(60),
        ),
    }
    return {reason: (holds, shown) for on, reason, holds, shown in rules.values() if on}

"""The unit: what an importer hands to the warehouse, before anything is stored.

One row of UNIT_SCHEMA is one thing that can be judged (a pair, a list, a single response, a response in steps, a
rubric) with the judgments that came with it. Several units may come from one line of a file. Response positions
(`ranks`, `shown_order`, `scores.response`) refer to the order in `responses` as given here; the loader sorts responses
by content hash and carries the positions along.

    ranks        [N] 0 best, equal ranks tie, null unranked; a pair won by the first is [0, 1], a tie [0, 0]
    shown_order  [N] positions of the responses in the order the rater saw them, null where unknown
    column_order [N] positions of the responses in the order of the file's columns, where the columns do not say which
                 is better (response_a, response_b); null for chosen and rejected
    strength     on the source's own scale
    scores       ratings of responses by aspect
    step_labels  [S] of the one response that has step_ends: 1 right, 0 wrong, null after the first error
    edit         canonical JSON messages of the rater's corrected response
    confidence   on the source's own scale
    active_ms    how long the rater took
    time         when the judgment was made; of one rater's answers to the same question the newest counts
    extra        JSON object: whatever else the source says about this judgment

`prompt` and `responses[].messages` are canonical JSON (rmkit.ids). `license` overrides the file's where a row has its
own; null means the file's.
"""

from __future__ import annotations

import pyarrow as pa

from rmkit.data.example import SCORE_STRUCT

RATER_KINDS = ("human", "llm", "verifier", "rm", "constructed", "unknown")

RESPONSE_STRUCT = pa.struct(
    [("messages", pa.string()), ("generator", pa.string()), ("step_ends", pa.list_(pa.int32()))]
)

JUDGMENT_STRUCT = pa.struct(
    [
        ("rater", pa.string()),
        ("rater_kind", pa.string()),
        ("ranks", pa.list_(pa.int32())),
        ("shown_order", pa.list_(pa.int32())),
        ("column_order", pa.list_(pa.int32())),
        ("strength", pa.float64()),
        ("scores", pa.list_(SCORE_STRUCT)),
        ("step_labels", pa.list_(pa.float64())),
        ("edit", pa.string()),
        ("rationale", pa.string()),
        ("confidence", pa.float64()),
        ("active_ms", pa.int64()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("extra", pa.string()),
    ]
)
UNSTATED = "unstated"  # the rater of a judgment whose source does not say who gave it

UNIT_SCHEMA = pa.schema(
    [
        ("line", pa.int64()),  # 1-based line (JSONL, CSV) or row (Parquet) of the file
        ("source_row", pa.string()),  # the source's own id, or null
        ("kind", pa.string()),
        ("prompt", pa.string()),
        ("responses", pa.list_(RESPONSE_STRUCT)),
        ("judgments", pa.list_(JUDGMENT_STRUCT)),
        ("rubric", pa.string()),  # canonical JSON list of criteria
        ("tools", pa.string()),  # canonical JSON list of tool schemas
        ("reference", pa.string()),  # the right answer
        ("subset", pa.string()),
        ("split", pa.string()),
        ("license", pa.string()),
        ("meta", pa.string()),  # JSON object
    ]
)

REJECT_SCHEMA = pa.schema(
    [("line", pa.int64()), ("source_row", pa.string()), ("reason", pa.string()), ("excerpt", pa.string())]
)

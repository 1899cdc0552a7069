"""One rater who answers the same question about the same unit twice: the newest answer counts.

A question is what a judgment answers: which response is better, how good each is (by aspect), which steps are right,
what a better text would be. A rater is one by name; the unnamed ones of a file are not known to be one. Only times
decide: an answer without a time, or one of two with the same time, replaces nothing and stays.
"""

from __future__ import annotations

from warehouse.write.units import UNSTATED

QUESTION = """concat_ws('/', ranks IS NOT NULL, step_labels IS NOT NULL, edit IS NOT NULL,
    list_transform(scores, lambda s: {'response': s.response, 'aspect': s.aspect})::VARCHAR)"""
_ANSWERS = "(ranks IS NOT NULL OR scores IS NOT NULL OR step_labels IS NOT NULL OR edit IS NOT NULL)"
NAMED = f"rater_id NOT IN (SELECT rater_id FROM rater WHERE regexp_matches(name, '(^|/){UNSTATED}( \\(|$)'))"


def replaced_sql(judgments: str) -> str:
    """A query for the event ids among `judgments` (a table) that a newer answer of their rater replaces."""
    return f"""
        SELECT event_id FROM (
            SELECT event_id, "time" < max("time") OVER (PARTITION BY unit_id, rater_id, {QUESTION}) AS is_older
            FROM {judgments} WHERE "time" IS NOT NULL AND {_ANSWERS} AND {NAMED}
        ) WHERE is_older"""


def repeats_sql(judgments: str) -> str:
    """A query for (replaced, repeated): how many of `judgments` a newer answer replaces, and how many second answers of
    one rater count beside the first because no time says which is newer."""
    return f"""
        SELECT coalesce(sum(n_replaced), 0)::BIGINT, coalesce(sum(n - n_replaced - 1), 0)::BIGINT FROM (
            SELECT count(*) AS n, count(*) FILTER ("time" < latest) AS n_replaced FROM (
                SELECT unit_id, rater_id, {QUESTION} AS question, "time",
                    max("time") OVER (PARTITION BY unit_id, rater_id, {QUESTION}) AS latest
                FROM {judgments} WHERE {_ANSWERS} AND {NAMED}
            ) GROUP BY unit_id, rater_id, question HAVING n > 1
        )"""

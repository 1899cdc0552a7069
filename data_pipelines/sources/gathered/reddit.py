"""Reddit dumps: comments with the score of votes and the id of what they answer (t3_ a post, t1_ a comment). Posts and
comments may lie in one file. A post with two or more direct comments is a list, ranked by score; removed texts are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data_pipelines.sources.gathered.gather import Gather, Gathered
from data_pipelines.sources.reading.streams import Reject
from data_pipelines.sources.recognize import Hints
from data_pipelines.sources.unit_builder import Row

_GONE = ("[deleted]", "[removed]", "")


def matches(sample: Sequence[Row]) -> bool:
    return any({"body", "score", "parent_id"} <= set(row) for row in sample) and all(
        "score" in row and ("body" in row or "title" in row) for row in sample
    )


def rows(file: Iterator[Row], hints: Hints) -> Iterator[Gathered]:
    posts: dict[str, str] = {}
    replies: dict[str, list[Row]] = {}
    for row in file:
        if "title" in row and "body" not in row:
            parts = [str(row[name]) for name in ("title", "selftext") if row.get(name) not in (None, *_GONE)]
            posts[f"t3_{str(row.get('id')).removeprefix('t3_')}"] = "\n\n".join(parts)
        elif str(row.get("body")).strip() not in _GONE:
            replies.setdefault(str(row["parent_id"]), []).append(row)
    for parent in sorted(replies):
        answers = replies[parent]
        text = posts.get(parent)
        if not parent.startswith("t3_") or len(answers) < 2:
            continue
        if text is None:
            yield Reject(0, "the post that the comments answer is not in the file", parent, parent)
            continue
        yield {
            "prompt": text,
            "responses": [row["body"] for row in answers],
            "scores": [row["score"] for row in answers],
            "id": parent,
            "reddit_comments": [row.get("id") for row in answers],
        }


REDDIT = Gather("reddit-comments", "Reddit posts and comments", matches, rows, items_after=False)

"""`rmkit search`: answers by best-of-N, votes, beams and tree search; which of them pays at which budget."""

from __future__ import annotations

from rmkit.cli.verbs import Command, Verbs

main = Verbs(
    "search",
    "Many answers, or many steps, and a model's scores that choose among them.",
    {
        "run": Command("rmkit.search.run:main", "write an answer to each prompt, with its candidates and its tree"),
        "study": Command(
            "rmkit.search.study:main", "accuracy over budgets by method and difficulty, on held-out prompts"
        ),
    },
    examples=[
        "search run --model models/steps --generator policy.toml --prompts problems.jsonl --method beam -o out.jsonl",
        "search study --model models/steps --generator policy.toml --prompts problems.jsonl --budgets 1,4,16 -o study",
    ],
)

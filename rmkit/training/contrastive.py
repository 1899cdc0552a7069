"""`rmkit train contrastive --normal A --reverse B`: two finished implicit models as one contrastive reward model."""

from __future__ import annotations

from pathlib import Path

from rmkit.cli import arguments, display
from rmkit.errors import ModelError
from rmkit.models import find_model, load_model
from rmkit.models.artifact.folder import building, open_artifact


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "train contrastive",
        "The difference of two implicit models, the second trained on the swapped pairs.",
        examples=["train contrastive --normal models/hh-dpo --reverse models/hh-reverse -o models/hh-contrast"],
    )
    parser.add_model("--normal", required=True, help=f"the implicit model: {arguments.ARTIFACT}")
    parser.add_model("--reverse", required=True, help="the same trained with --set reverse=true")
    parser.add_output("artifact folder (default: the normal one's, -contrastive)")
    options = parser.parse_args(argv)
    result = contrastive(options.normal, options.reverse, output=options.output)
    text = f"model        {result['path']}\nfingerprint  {result['fingerprint']}"
    display.emit(result, as_json=options.json, text=text)
    return 0


def contrastive(normal: str, reverse: str, *, output: Path | None = None) -> dict[str, str]:
    """Store and reload the contrastive model: its path and fingerprint. Raises ModelError where the two do not fit."""
    first, second = find_model(normal), find_model(reverse)
    target = output or first.with_name(f"{first.name}-contrastive")
    with building(target) as folder:
        _contrast(folder, normal=first, reverse=second, name=target.name)
        info = load_model(folder).info
    return {"path": str(target), "fingerprint": info.fingerprint}


def _contrast(folder: Path, *, normal: Path, reverse: Path, name: str) -> None:
    """Write the contrastive model of two artifacts into an existing empty folder: the normal policy against the reverse
    one, which was trained on the swapped pairs. Raises ModelError unless both start from the same reference and share
    tokenizer, template, truncation and beta."""
    from rmkit.models.transformer import implicit
    from rmkit.models.transformer.artifact import open_with_chat

    cards = [open_artifact(place).card for place in (normal, reverse)]
    for place, card in zip((normal, reverse), cards, strict=True):
        if card["model"] != "implicit":
            raise ModelError(f"{place} is a {card['model']} model; two implicit ones are contrasted")
    settings = [{key: value for key, value in card["config"].items() if key != "per_token"} for card in cards]
    if settings[0] != settings[1]:
        raise ModelError(f"{normal} and {reverse} differ in tokenizer, template, truncation or beta; train them alike")
    weights = [{n: h for n, h in card["files"].items() if n.startswith(f"{implicit.REFERENCE}/")} for card in cards]
    if weights[0] != weights[1]:
        raise ModelError(f"{normal} and {reverse} were trained from different references; their rewards do not compare")
    config = cards[0]["config"]
    facts = {
        "name": name,
        "dataset": cards[0].get("dataset"),
        "seed": cards[0].get("seed"),
        "training": {"contrast": [card["fingerprint"] for card in cards]},
    }
    implicit.save(
        folder,
        policy=implicit.causal(normal),
        reference=implicit.causal(reverse),
        chat=open_with_chat(normal)[1],
        facts=facts,
        beta=config["beta"],
        per_token=config["per_token"],
    )

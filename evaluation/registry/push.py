"""`rmkit push model|data NAME REPO`: to the Hugging Face Hub, private unless said otherwise."""

from __future__ import annotations

from evaluation.registry.publishing import PushResult, push_data, push_model
from rmkit.cli import arguments, display
from rmkit.cli.arguments import Parser
from rmkit.cli.verbs import Command, Verbs
from warehouse.out.forms import FORMS

_LARGEST = 5  # files that are listed by name


def _model(argv: list[str]) -> int:
    parser = arguments.parser(
        "push model",
        "Send a reward model with its card to a repository of the Hub. The license is the most restrictive one of its "
        "base model and its data; blocked and unknown ones are refused.",
        examples=[
            "push model models/hh-seed1 my-lab/hh-rm --dry-run",
            "push model hh@prod my-lab/hh-rm --language en",
            "push model models/mine my-lab/rm --public --base-license apache-2.0",
        ],
    )
    parser.add_model(help=arguments.ARTIFACT)
    _add_shared(parser)
    parser.add_argument("--license", default="", metavar="ID", help="a more restrictive one of the weights' own")
    parser.add_argument(
        "--base-model", default="", metavar="ORG/NAME", help="what it was made from (default: recorded)"
    )
    parser.add_argument("--base-license", default="", metavar="ID", help="the base's license, where no card states it")
    options = parser.parse_args(argv)
    result = push_model(
        options.model,
        options.repository,
        public=options.public,
        dry_run=options.dry_run,
        license=options.license,
        allow_licenses=options.allow_license,
        base_model=options.base_model,
        base_license=options.base_license,
        languages=options.language,
        message=options.message,
    )
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _data(argv: list[str]) -> int:
    parser = arguments.parser(
        "push data",
        "Send a dataset version, as rmkit export --target release writes it, to a dataset repository of the Hub.",
        examples=["push data hh@v2 my-lab/hh --dry-run", "push data hh@gold my-lab/hh --format trl --language en"],
    )
    parser.add_argument("ref", metavar="NAME@VERSION", help="a version, tag, branch or digest prefix")
    _add_shared(parser)
    parser.add_argument("--format", choices=FORMS, default="native", help="form of the rows")
    parser.add_argument("--task", action="append", default=[], metavar="CATEGORY", help="task category of the card")
    parser.add_argument("--allow-benchmark", action="store_true", help="let benchmark rows pass")
    options = parser.parse_args(argv)
    result = push_data(
        options.ref,
        options.repository,
        public=options.public,
        dry_run=options.dry_run,
        form=options.format,
        allow_licenses=options.allow_license,
        allow_benchmark=options.allow_benchmark,
        languages=options.language,
        tasks=options.task,
        message=options.message,
    )
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _add_shared(parser: Parser) -> None:
    parser.add_argument("repository", metavar="ORG/NAME", help="made, private, where it is not there")
    parser.add_argument("--public", action="store_true", help="for everybody; default private")
    parser.add_argument("--dry-run", action="store_true", help="show what would go; nothing is sent, nobody is asked")
    parser.add_argument("--allow-license", action="append", default=[], metavar="ID", help="let this one pass")
    parser.add_argument("--language", action="append", default=[], metavar="CODE", help="for the card: en, de ...")
    parser.add_argument("--message", default="", help="of the commit (default: name and fingerprint)")


def _text(result: PushResult) -> str:
    who = "private" if result.private else "PUBLIC"
    verb = "would go" if result.dry_run else "went"
    largest = sorted(result.files.items(), key=lambda item: -item[1])[:_LARGEST]
    more = f" and {len(result.files) - len(largest)} more" if len(result.files) > len(largest) else ""
    licenses = ", ".join(f"{name} ({n} rows)" if n else f"{name} (base)" for name, n in result.licenses.items())
    size = f"{len(result.files)} files, {result.n_bytes / 1e6:.1f} MB"
    lines = [
        f"{size} {verb} to {result.repository} ({result.kind}, {who})",
        f"  license    {result.license}; of {licenses}",
        *(f"  {name:<10} {_short(value)}" for name, value in result.metadata.items() if name not in _SHOWN),
        f"  files      {', '.join(f'{name} {size}' for name, size in largest)}{more}",
    ]
    if result.url:
        lines += [f"  at         {result.url}", f"  commit     {result.commit}"]
    return "\n".join(lines)


_SHOWN = ("license", "license_name", "tags", "model-index", "pretty_name", "size_categories")


def _short(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


main = Verbs(
    "push",
    "A reward model or a dataset version to the Hugging Face Hub, private unless --public.",
    {
        "model": Command(_model, "an artifact with its model card"),
        "data": Command(_data, "a dataset version with manifest and dataset card"),
    },
    examples=["push model models/hh-seed1 my-lab/hh-rm --dry-run", "push data hh@v2 my-lab/hh"],
)

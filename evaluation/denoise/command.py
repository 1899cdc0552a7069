"""`rmkit denoise`: which denoising helps on your data, and which of your labels a person should look at again."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

from rmkit.cli import display as console
from rmkit.errors import UsageError

COMMANDS = {
    "bench": ("evaluation.denoise.command:bench", "all methods under injected noise, with plain advice"),
    "votes": ("evaluation.denoise.votes:main", "one random vote a pair: is the other voters' majority recovered?"),
    "upo": ("evaluation.denoise.upo:main", "improve a policy with its own replies, certain pairs only (UPO)"),
    "downstream": ("evaluation.denoise.downstream:main", "RM-Bench with and without each method on noisy labels"),
    "full-form": ("evaluation.denoise.fine_tuned:main", "two fine-tuned models under peer review on a planted task"),
    "suspects": ("evaluation.denoise.suspects:queue_main", "the most doubtful labels, queued for people"),
    "adjudicated": ("evaluation.denoise.suspects:answers_main", "people's answers as a new version, and their effect"),
}


def main(argv: list[str]) -> int:
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("-h", "--help"):
        print("usage: rmkit denoise WHAT ...        rmkit denoise WHAT --help shows options\n")
        print("\n".join(f"  {what:<12}{summary}" for what, (_, summary) in COMMANDS.items()))
        print("\nexamples:\n  rmkit denoise bench hh@v2 -o denoise.html\n  rmkit denoise suspects hh@v2 --limit 100")
        return 0
    if name not in COMMANDS:
        raise UsageError(f"denoise what? got {name or 'nothing'!r}, expected one of: {', '.join(COMMANDS)}")
    module, function = COMMANDS[name][0].split(":")
    status: int = getattr(importlib.import_module(module), function)(rest)
    return status


def bench(argv: list[str]) -> int:
    parser = console.parser(
        "denoise bench",
        "All denoising methods on a version's train split under injected noise, judged on its test split.",
        examples=[
            "denoise bench hh@v2 -o denoise.html",
            "denoise bench hh@v2 --kinds symmetric,length --rates 0,0.2,0.4 --seeds 5 --methods peer,self,robust",
        ],
    )
    parser.add_argument("data", metavar="NAME[@REF]", help="a version with a train and a test split")
    parser.add_argument(
        "--kinds", default="symmetric", help="symmetric, length, annotator, prompt; several with commas"
    )
    parser.add_argument("--rates", default="0,0.2,0.4", help="shares of labels turned around (default 0,0.2,0.4)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (default 5)")
    parser.add_argument("--methods", default="all", help="several with commas (default all)")
    parser.add_argument(
        "--prior", type=float, help="share of wrong labels that methods are told (default: the true one)"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--encoder", default="minilm", help="frozen encoder: minilm or a folder")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("-o", "--output", type=Path, help="write the report: .html, .md or .json")
    options = parser.parse_args(argv)
    from evaluation.denoise import grid as denoise_grid
    from evaluation.denoise import report as denoise_report
    from evaluation.denoise.data import version_data
    from evaluation.denoise.methods import available
    from rmkit.features.encoder import EncoderConfig
    from rmkit.heads.stacked_training import HeadConfig

    methods = denoise_grid.check_methods(available() if options.methods == "all" else options.methods.split(","))
    cells = denoise_grid.parse_cells(options.kinds.split(","), _numbers(options.rates), options.seeds)
    data = version_data(options.data, encoder=EncoderConfig(encoder=options.encoder))
    results = denoise_grid.run_grid(
        data,
        cells,
        methods,
        head=HeadConfig(epochs=options.epochs),
        prior=options.prior,
        workers=options.workers,
    )
    result = denoise_report.result_of(data, results, command=f"rmkit denoise bench {shlex.join(argv)}")
    if options.output:
        denoise_report.write(result, options.output)
    console.emit(result, as_json=options.json, text=denoise_report.text(result))
    return 0


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"expected numbers with commas between them, got {text!r}") from error

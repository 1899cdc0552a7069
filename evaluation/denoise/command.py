"""`rmkit denoise`: which denoising helps on your data, and which of your labels a person should look at again."""

from __future__ import annotations

from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs


def bench(argv: list[str]) -> int:
    parser = arguments.parser(
        "denoise bench",
        "All denoising methods on a version's train split under injected noise, judged on its test split.",
        examples=[
            "denoise bench hh@v2 -o denoise.html",
            "denoise bench hh@v2 --kinds symmetric,length --rates 0,0.2,0.4 --seeds 5 --methods peer,self,robust",
        ],
    )
    parser.add_data("data", metavar="NAME[@REF]", help="a version with a train and a test split")
    parser.add_argument(
        "--kinds", default="symmetric", help="symmetric, length, annotator, prompt; several with commas"
    )
    parser.add_argument("--rates", type=arguments.numbers, default="0,0.2,0.4", help="shares of labels turned around")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds")
    parser.add_argument("--methods", default="all", help="several with commas")
    parser.add_argument(
        "--prior", type=float, help="share of wrong labels that methods are told (default: the true one)"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_encoder()
    parser.add_workers()
    parser.add_output("write the report: .html, .md or .json")
    options = parser.parse_args(argv)
    from evaluation.denoise import grid as denoise_grid
    from evaluation.denoise import report as denoise_report
    from evaluation.denoise.data import version_data
    from evaluation.denoise.methods import available
    from rmkit.features.encoder import EncoderConfig
    from rmkit.heads.stacked_training import HeadConfig

    methods = denoise_grid.check_methods(available() if options.methods == "all" else options.methods.split(","))
    cells = denoise_grid.parse_cells(options.kinds.split(","), options.rates, options.seeds)
    data = version_data(options.data, encoder=EncoderConfig(encoder=options.encoder))
    results = denoise_grid.run_grid(
        data,
        cells,
        methods,
        head=HeadConfig(epochs=options.epochs),
        prior=options.prior,
        workers=options.workers,
    )
    result = denoise_report.result_of(data, results, command=arguments.command_line("denoise bench", argv))
    if options.output:
        denoise_report.write(result, options.output)
    display.emit(result, as_json=options.json, text=denoise_report.text(result))
    return 0


main = Verbs(
    "denoise",
    "Which denoising helps on your data, and which of your labels a person should look at again.",
    {
        "bench": Command(bench, "all methods under injected noise, with plain advice"),
        "votes": Command("evaluation.denoise.votes:main", "one random vote a pair: is the others' majority recovered?"),
        "crm": Command("evaluation.denoise.crm:main", "CRM against plain training: two models each, on one suite"),
        "downstream": Command("evaluation.denoise.downstream:main", "RM-Bench with and without each method"),
        "fine-tuned": Command("evaluation.denoise.fine_tuned:main", "two fine-tuned models under peer review"),
        "suspects": Command("evaluation.denoise.suspects:queue_main", "the most doubtful labels, queued for people"),
        "adjudicated": Command("evaluation.denoise.suspects:answers_main", "people's answers as a new version"),
    },
    examples=["denoise bench hh@v2 -o denoise.html", "denoise suspects hh@v2 --limit 100"],
)

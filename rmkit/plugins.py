"""Names to objects: what is built in, entry points of installed packages, and "module:object".

This table is the only place where a room names what stands above it: imports run one way, so a lower room reaches an
upper one by `resolve`. Whatever a name stands for is imported when it is asked for.

    group           what the object is
    models          load(folder, *, check=True, **options) -> RewardModel; needs no folder where it has a default
    readers         open_model(rmkit.models.adopted.headed.Opening) -> RewardModel, for models that others trained
    objectives      an object of rmkit.training.objectives
    transforms      a rmkit.shaping.transform.Transform class, or a preset: the table of rmkit.shaping.preset.Preset
    verifiers       a rmkit.verifiers.verifier.Verifier class: a frozen dataclass of its options
    tree_labels     a rmkit.trees.rules.LabelRule class: a number for each node of a tree
    tree_pairs      a rmkit.trees.rules.PairRule class: pairs of nodes behind the same prefix
    steps           a module or object with Config and step(frame, config, context) -> StepResult
    converters      a module or object with Config and convert(example, config) -> Iterator[Derived]
    loop_steps      a module or object with Config and act(config, place) -> data_pipelines.loops.records.Left
    sources         a data_pipelines.sources.source.Source
    rules           an evaluation.scoring.rule.Rule, or credits(suite, items, answers, kind) -> list[Credit] alone
    forms           rows of a benchmark as items: form(rows, where) -> list[evaluation.suites.items.Item]
    dialects        an object with a fastapi `router`, mounted under /NAME; its `bare`, if any, answers POST /NAME
    backends        a rmkit.serve.backends.model.Server class: what `rmkit serve --backend NAME URL` asks for numbers
    front_door      what `import rmkit` offers; types and signatures for checkers stand in rmkit/__init__.pyi
    upper           what a room needs of one above it

A package adds to a group by an entry point `rmkit.GROUP`; the last two are closed.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rmkit.errors import UsageError, unknown

ROOT = Path(__file__).resolve().parents[1]  # where rmkit and its rooms lie side by side

BUILT_IN: dict[str, dict[str, str]] = {
    "models": {
        "length": "rmkit.models.small.length:load",
        "lexical": "rmkit.models.small.lexical:load",
        "frozen": "rmkit.models.small.frozen:load",
        "pairwise": "rmkit.models.small.pairwise:load",
        "process-frozen": "rmkit.models.small.process_frozen:load",
        "explicit": "rmkit.models.transformer.explicit:load",
        "process": "rmkit.models.transformer.process:load",
        "implicit": "rmkit.models.transformer.implicit:load",
        "ensemble": "rmkit.models.wrappers.ensemble:load",
        "routed": "rmkit.models.wrappers.routed:load",
        "adopted": "rmkit.models.adopted.model:load",
    },
    "readers": {
        name: f"rmkit.models.adopted.{name}:open_model"
        for name in ("column", "mixture", "token", "ratio", "pair", "judge", "remote")
    },
    "objectives": {
        "bradley_terry": "rmkit.training.objectives.bradley_terry:BradleyTerry",
        "margin": "rmkit.training.objectives.margin:Margin",
        "soft_label": "rmkit.training.objectives.soft_label:SoftLabel",
        "ties": "rmkit.training.objectives.ties:Ties",
        "label_smoothing": "rmkit.training.objectives.label_noise:LabelSmoothing",
        "robust": "rmkit.training.objectives.label_noise:Robust",
        "focal": "rmkit.training.objectives.focal:Focal",
        "plackett_luce": "rmkit.training.objectives.rankings:PlackettLuce",
        "pro": "rmkit.training.objectives.rankings:PRO",
        "regression": "rmkit.training.objectives.regression:Regression",
        "ordinal": "rmkit.training.objectives.ordinal:Ordinal",
        "reaction": "rmkit.training.objectives.binary_feedback:Reaction",
        "scaled_margin": "rmkit.training.objectives.scaled_margin:ScaledMargin",
        "listwise_policy": "rmkit.training.objectives.listwise_policy:ListwisePolicy",
        "process": "rmkit.training.objectives.process:Process",
        "sum_to_outcome": "rmkit.training.objectives.sum_to_outcome:SumToOutcome",
        "step_value": "rmkit.training.objectives.step_value:StepValue",
        "oreo": "rmkit.training.objectives.step_value:OREO",
        "dpo": "rmkit.training.objectives.bradley_terry:DPO",
        "cdpo": "rmkit.training.objectives.label_noise:ConservativeDPO",
        "rdpo": "rmkit.training.objectives.label_noise:RobustDPO",
        "ipo": "rmkit.training.objectives.ipo:IPO",
    },
    "steps": {
        name: f"data_pipelines.steps.{name}"
        for name in (
            "normalize",
            "exact_dedup",
            "near_dedup",
            "agreement",
            "aggregate",
            "quality",
            "contamination",
            "split",
            "subset",
            "noise",
            "peer_review",
            "peer_verdicts",
            "cross_fit",
            "uncertainty",
            "confident_learning",
            "reward_gap",
            "relabel",
            "consistency",
            "generate",
            "score",
            "best_of_n",
            "binarize",
        )
    }
    | {name: f"data_pipelines.steps.trees.{name}" for name in ("rollouts", "critiques", "balance_steps")}
    | {
        name: f"data_pipelines.steps.policy.{name}"
        for name in ("policy_filter", "on_policy", "perplexity_band", "score_band")
    }
    | {
        name: f"data_pipelines.steps.curation.{name}"
        for name in ("time_split", "personal_data", "language", "semantic_dedup")
    }
    | {name: f"data_pipelines.steps.rubrics.{name}" for name in ("attach_rubrics", "utilities")}
    | {
        name: f"data_pipelines.steps.rubrics.turns:{''.join(word.title() for word in name.split('_'))}"
        for name in ("ask_judge", "ask_writer", "rubric_reward")
    }
    | {"policy_score": "data_pipelines.loops.policy_score"},
    "converters": {
        name: f"data_pipelines.converters.{name}"
        for name in (
            "edits",
            "demonstrations",
            "tree_labels",
            "tree_pairs",
            "refinements",
            "partial_starts",
            "upper_lower",
        )
    }
    | {
        name: f"data_pipelines.converters.groups.{name}"
        for name in ("self_play", "levels", "off_policy", "replay", "plans")
    }
    | {
        name: f"data_pipelines.converters.feedback.{name}"
        for name in ("reactions", "discussions", "reflections", "policy_clauses", "requests")
    },
    "loop_steps": {
        name: f"data_pipelines.loops.{name}" for name in ("join", "train_policy", "train_reward", "evaluate")
    },
    "transforms": {
        name: f"rmkit.shaping.primitives.{name}:{''.join(word.title() for word in name.split('_'))}"
        for name in (
            "affine",
            "clip",
            "curve",
            "multiply",
            "schedule",
            "table",
            "gate",
            "reduce",
            "returns",
            "shift",
            "attention",
            "quantile_risk",
            "aggregate",
            "contrast",
            "cluster",
            "drop",
            "normalize",
            "rank",
            "pass_at_k",
            "place",
        )
    },
    "verifiers": {
        name: f"rmkit.verifiers.{name}:{''.join(word.title() for word in name.split('_'))}"
        for name in (
            "exact_match",
            "answer",
            "choice",
            "number",
            "json_schema",
            "sql",
            "constraints",
            "tags",
            "confidence",
            "language",
            "length",
            "abstention",
            "citations",
            "puzzle",
            "similarity",
            "external",
            "code",
            "verdict",
        )
    },
    "tree_labels": {
        name: f"rmkit.trees.labels.{name}:{''.join(word.title() for word in name.split('_'))}"
        for name in ("mean", "any_correct", "distance", "prover_progress", "visit_q", "children_mean", "plan")
    },
    "tree_pairs": {
        name: f"rmkit.trees.siblings.{name}:{''.join(word.title() for word in name.split('_'))}"
        for name in ("by_value", "extremes", "on_path", "across_groups", "score_gap")
    },
    "dialects": {
        "openrlhf": "rmkit.serve.compat.openrlhf",
        "slime": "rmkit.serve.compat.slime",
        "vllm": "rmkit.serve.compat.vllm",
        "sglang": "rmkit.serve.compat.sglang",
        "llama-factory": "rmkit.serve.compat.llama_factory",
        "nemo-gym": "rmkit.serve.compat.nemo_gym",
    },
    "backends": {
        "vllm-http": "rmkit.serve.backends.vllm:VllmServer",
        "sglang-http": "rmkit.serve.backends.sglang:SglangServer",
    },
    "sources": {  # of the forms that know most rows of a sample, the first is taken
        "pairs": "data_pipelines.sources.native:PAIRS",
        "annotators": "data_pipelines.sources.native:ANNOTATORS",
        "nway": "data_pipelines.sources.native:NWAY",
        "steps": "data_pipelines.sources.native:STEPS",
        "rubrics": "data_pipelines.sources.native_feedback:RUBRICS",
        "edits": "data_pipelines.sources.native_feedback:EDITS",
        "talks": "data_pipelines.sources.native_feedback:TALKS",
        "answers": "data_pipelines.sources.native_feedback:ANSWERS",
        "hh": "data_pipelines.sources.published.hh:HH",
        "hh-red-team": "data_pipelines.sources.published.hh:HH_RED_TEAM",
        "ultrafeedback": "data_pipelines.sources.published.ultrafeedback:ULTRAFEEDBACK",
        "helpsteer": "data_pipelines.sources.published.helpsteer:HELPSTEER",
        "helpsteer2-preference": "data_pipelines.sources.published.helpsteer:HELPSTEER2_PREFERENCE",
        "helpsteer3-preference": "data_pipelines.sources.published.helpsteer:HELPSTEER3_PREFERENCE",
        "helpsteer3-edit-quality": "data_pipelines.sources.published.helpsteer:HELPSTEER3_EDIT_QUALITY",
        "helpsteer3-edit": "data_pipelines.sources.published.helpsteer:HELPSTEER3_EDIT",
        "helpsteer3-principle": "data_pipelines.sources.published.helpsteer:HELPSTEER3_PRINCIPLE",
        "helpsteer3-feedback": "data_pipelines.sources.published.helpsteer:HELPSTEER3_FEEDBACK",
        "shp": "data_pipelines.sources.published.shp:SHP",
        "nectar": "data_pipelines.sources.published.nectar:NECTAR",
        "webgpt": "data_pipelines.sources.published.webgpt:WEBGPT",
        "prm800k": "data_pipelines.sources.processes.prm800k:PRM800K",
        "argilla": "data_pipelines.sources.tools.argilla:ARGILLA",
        "label-studio": "data_pipelines.sources.tools.label_studio:LABEL_STUDIO",
        "multipref": "data_pipelines.sources.votes.multipref:MULTIPREF",
        "pku-saferlhf": "data_pipelines.sources.votes.pku_saferlhf:PKU_SAFERLHF",
        "summarize-from-feedback": "data_pipelines.sources.votes.tldr:COMPARISONS",
        "summarize-from-feedback-axis": "data_pipelines.sources.votes.tldr:AXES",
        "lmarena-55k": "data_pipelines.sources.votes.arena:LMARENA_55K",
        "mtbench-human": "data_pipelines.sources.votes.arena:MTBENCH_HUMAN",
        "mtbench-judgment": "data_pipelines.sources.votes.games:MTBENCH_JUDGMENT",
        "arena-hard": "data_pipelines.sources.votes.games:ARENA_HARD",
        "judgebench": "data_pipelines.sources.votes.judgebench:JUDGEBENCH",
        "prometheus-feedback": "data_pipelines.sources.judges.prometheus:FEEDBACK",
        "prometheus-preference": "data_pipelines.sources.judges.prometheus:PREFERENCE",
        "healthbench-meta": "data_pipelines.sources.judges.benchmarks:HEALTHBENCH_META",
        "prbench": "data_pipelines.sources.judges.benchmarks:PRBENCH",
        "profbench": "data_pipelines.sources.judges.benchmarks:PROFBENCH",
        "math-shepherd": "data_pipelines.sources.processes.marks:MATH_SHEPHERD",
        "rlhflow-prm": "data_pipelines.sources.processes.marks:RLHFLOW_PRM",
        "openrlhf-prm": "data_pipelines.sources.processes.marks:OPENRLHF_PRM",
        "prmbench": "data_pipelines.sources.processes.marks:PRMBENCH",
        "search-tree": "data_pipelines.sources.processes.search_tree:SEARCH_TREE",
        "prodigy-choice": "data_pipelines.sources.tools.prodigy:CHOICE",
        "prodigy-compare": "data_pipelines.sources.tools.prodigy:COMPARE",
        "label-studio-csv": "data_pipelines.sources.tools.label_studio_flat:FLAT",
        "label-studio-storage": "data_pipelines.sources.tools.label_studio_flat:STORED",
        "mturk": "data_pipelines.sources.tools.mturk:MTURK",
        "reaction-log": "data_pipelines.sources.tools.reactions:REACTIONS",
        **{  # rows of forms.toml
            name: f"data_pipelines.sources.table:TABLE.{name}"
            for name in (
                "rm-static",
                "ultrafeedback-binarized",
                "ultrafeedback-cleaned",
                "ultrafeedback-argilla",
                "orca-distilabel",
                "orca-dpo",
                "orca-dpo-older",
                "ultrainteract",
                "code-preference",
                "toolpref",
                "rewardbench",
                "rewardbench2",
                "rm-bench",
                "m-rewardbench",
                "rag-rewardbench",
                "wildchecklists",
                "rmb-pairwise",
                "rmb-bon",
                "llamafactory-sharegpt",
                "instruction-pairs",
                "ms-swift-rm",
                "ms-swift-query",
                "nemorl-preference",
                "openai-preference",
                "vertex-preference",
                "stackexchange-paired",
                "lmarena",
                "ppe-human",
                "wsdm-arena",
                "alpacafarm-human",
                "alpacaeval",
                "alpacaeval-human",
                "offsetbias",
                "llmbar",
                "auto-j",
                "auto-j-train",
                "auto-j-train-usermsg",
                "judgelm",
                "pandalm",
                "pandalm-readme",
                "pandalm-train",
                "lfqa-eval",
                "hhh",
                "distilabel-ultrafeedback",
                "ppe-best-of-k",
                "stack-exchange",
                "beavertails",
                "openrubrics",
                "openrubrics-v1",
                "rubricbench",
                "rubrics-as-rewards",
                "rubrichub-rl",
                "rubrichub-sft",
                "healthbench",
                "auto-rubric",
                "biggen",
                "processbench",
                "visualprocessbench",
                "oasst",
                "reddit-comments",
                "weave",
                "surveymonkey",
                "qualtrics",
                "potato",
                "doccano",
                "agent-reward-bench",
                "langfuse",
                "langfuse-api",
                "langsmith",
                "phoenix",
                "trl-stepwise",
                "trl-unpaired",
                "ms-swift-kto",
                "llamafactory-kto",
                "llamafactory-kto-messages",
                "llamafactory-kto-sharegpt",
                "conversations-label",
                "sharegpt",
                "messages",
                "alpaca",
            )
        },
        "published-rubrics": "data_pipelines.sources.judges.published_rubrics:PUBLISHED_RUBRICS",
        "trl": "data_pipelines.sources.trl:TRL",
        "generic": "data_pipelines.sources.trl:GENERIC",
    },
    "rules": {
        "pairs": "evaluation.scoring.pairs:RULE",
        "best_of": "evaluation.scoring.rewardbench2:BEST_OF",
        "ties": "evaluation.scoring.rewardbench2:TIES",
        "rmbench": "evaluation.scoring.rmbench:RULE",
        "judgebench": "evaluation.scoring.judgebench:RULE",
        "first_error": "evaluation.scoring.processbench:RULE",
        "nway": "evaluation.scoring.nway:RULE",
        "annotators": "evaluation.scoring.annotators:RULE",
        "both_orders": "evaluation.scoring.both_orders:RULE",
        "median_vote": "evaluation.scoring.median_vote:RULE",
        "step_f1": "evaluation.scoring.step_f1:RULE",
        "criteria_met": "evaluation.scoring.criteria_met:RULE",
        "absolute": "evaluation.scoring.absolute:RULE",
    },
    "forms": {
        "pairs": "evaluation.suites.forms:PAIRS",
        "best_of": "evaluation.suites.forms:BEST_OF",
        "rmbench": "evaluation.suites.forms:rmbench",
        "judgebench": "evaluation.suites.forms:JUDGEBENCH",
        "steps": "evaluation.suites.forms:STEPS",
        "nway": "evaluation.suites.forms:NWAY",
        "annotators": "evaluation.suites.forms:ANNOTATORS",
        "absolute": "evaluation.suites.absolute:absolute",
        "xstest_labels": "evaluation.suites.absolute:xstest_labels",
    },
    "front_door": {
        "RmkitError": "rmkit.errors:RmkitError",
        **{
            name: f"rmkit.types:{name}"
            for name in ("Candidates", "Comparison", "Completion", "Message", "RewardModel", "Score")
        },
        "Dataset": "warehouse.versions.dataset:Dataset",
        "candidates": "rmkit.serve.clients.chat_values:candidates",
        "compare": "evaluation.front:compare",
        "evaluate": "evaluation.front:evaluate",
        "ingest": "data_pipelines.front:ingest",
        "judge": "rmkit.judge.command:judge",
        "load_dataset": "warehouse.versions.dataset:load_dataset",
        "load_model": "rmkit.models:load_model",
        "run_recipe": "data_pipelines.front:run_recipe",
        "serve_app": "rmkit.serve.front:serve_app",
        "train": "rmkit.training.front:train",
    },
    "upper": {
        "export_data": "data_pipelines.ingest.export_data:export_data",
        "export_folder": "warehouse.out.export:export_folder",
        "attach_rubrics": "data_pipelines.steps.rubrics.attach_rubrics:attach",
        "peer_verdicts": "data_pipelines.steps.peer_verdicts:record",
        "train_judge": "data_pipelines.judge.training.command:main",
        "row_context": "rubrics.row_context:context_of",
        "item_context": "rubrics.row_context:item_context",
        "judge_writer": "rubrics.rubric_rm:load",
        "judge_rubric": "rubrics.clause_model:load",
        "judge_jury": "rmkit.judge.jury:load",
        "bench_studio": "labeling_ui.benchmarks.load:main",
        "bench_story": "labeling_ui.benchmarks.story.run:main",
        "bench_studio_keys": "labeling_ui.benchmarks.keys:main",
        "bench_studio_scale": "labeling_ui.benchmarks.scale:main",
    },
}
CLOSED = ("front_door", "upper")


def names(group: str) -> list[str]:
    """All names of a group: the built-in ones in their order, then those of installed packages, sorted."""
    return [*BUILT_IN[group], *sorted(set(_entry_points(group)) - set(BUILT_IN[group]))]


def resolve(group: str, name: str, *, trusted: bool = False) -> Any:
    """The object of that name in a group: a built-in one, else an entry point, else, where trusted, "module:object".

    `trusted` says that the name comes from the command line, from Python or from a file given at start; a name read
    from an artifact or a request never is, since importing a module runs its code. Raises UsageError for an unknown
    name, for an object that its package cannot give, and where a folder of the user's hides one of rmkit's packages.
    """
    if name in BUILT_IN[group]:
        return load(BUILT_IN[group][name])
    if name in (points := _entry_points(group)):
        return _loaded(f"the {group} plug-in {name!r} ({points[name].value})", points[name].value)
    if trusted and ":" in name:
        return _loaded(f"{name!r}", name)
    raise UsageError(unknown(group.removesuffix("s"), name, names(group)))


def upper(name: str) -> Any:
    """What stands in an upper room under this name of the group `upper`."""
    return resolve("upper", name)


def load(target: str) -> Any:
    """The module, or the object in it, of rmkit's own that "module" or "module:object" names.

    Raises UsageError where a folder of the user's hides one of rmkit's packages.
    """
    _check_place(target.partition(".")[0])
    return _load(target)


def _loaded(what: str, target: str) -> Any:
    try:
        return _load(target)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{what} cannot be loaded: {error}") from error


def _load(target: str) -> Any:
    """The module, or the object in it, that "module" or "module:object.attribute" names."""
    module, _, path = target.partition(":")
    loaded: Any = importlib.import_module(module)
    for attribute in filter(None, path.split(".")):
        loaded = getattr(loaded, attribute)
    return loaded


@cache
def _entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    """The entry points of installed packages by name; looking for them costs tens of milliseconds once."""
    return {} if group in CLOSED else {point.name: point for point in metadata.entry_points(group=f"rmkit.{group}")}


def _check_place(room: str) -> None:
    """Raises UsageError, before anything of it runs, where a user's file or folder has the name of an rmkit room."""
    place = _place(room)
    if place is not None and ROOT not in place.parents:
        raise UsageError(
            f"{place} hides the package {room!r} that rmkit brings; rename it, or put {ROOT} before it on sys.path (as "
            "the command line does)"
        )


def _place(room: str) -> Path | None:
    """The folder or file that `import room` means, None where there is none."""
    loaded = sys.modules.get(room)
    spec = loaded.__spec__ if loaded else find_spec(room)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())  # a folder without __init__.py has no origin
    place = folders[0] if folders else spec.origin
    return Path(place).resolve() if place else None

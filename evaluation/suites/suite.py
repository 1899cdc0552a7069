"""A suite: what a benchmark consists of, how it is scored, and how its totals are made, read from one TOML.

    name, title, paper, license, note
    rule, form          how answers are scored (evaluation.scoring) and how rows become items (suites.forms): names of
                        the groups `rules` and `forms` of rmkit.plugins, or "module:object"
    importers           importers of `rmkit ingest` that read the rows in the benchmark authors' own form, each by the
                        first that knows it; `form` is then one of evaluation.suites.units
    ties, judge_ties    what a tie earns in pairs: "zero" or "half"
    unscored, judge_unscored
                        what an item that a model (a judge) could not score earns in the number over all items: "zero",
                        or "chance", a fair draw among its candidates (pairs, judgebench, best_of)
    unscored_source     where the benchmark's own code counts it so; empty: it does not say, and the count is ours
    threshold           of the rule absolute: the probability from which a response is called good
    files               file names looked for in a local folder; all that are there are read
    originals           groups of the benchmark's own file names, or patterns such as "**/*.json", looked for where none
                        of `files` is there: the first group of which a file is there is read
    where               in a line: what the data is, and where it comes from
    hub, hub_split, hub_config    where the original lies
    open                true: subsets are whatever the data names (no counts are checked)
    [[subset]]          name (also a pattern, "BoN_set/*"), items (expected count), digest (of the content, for local
                        files), rule, optional
    [[measure]]         name and exactly one of
        mean      weighted mean of the rates of cells or earlier measures: {part = weight} or [parts]
        sum       weighted sum of them
        harmonic  harmonic mean of two
        pool      sum of numerators over sum of denominators; parts may hold * for any cell

A part that has no data makes its measure missing, unless its subset is optional: then it is masked (left out of the
mean), as RewardBench does with its prior sets. A suite file is checked when it is read: unknown keys, rules and parts
are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from rmkit import plugins
from rmkit.config import build, read_toml
from rmkit.errors import ConfigError, UsageError
from rmkit.ids import canonical_json, digest

How = Literal["mean", "sum", "harmonic", "pool"]
HOWS: tuple[How, ...] = ("mean", "sum", "harmonic", "pool")
UNIT_FORMS = ("first_best", "votes", "values", "step_labels", "criteria")  # see evaluation.suites.units


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """`items` and `digest` are what the data is checked against; None and "" check nothing."""

    name: str
    items: int | None = None
    digest: str = ""
    rule: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """`headline` marks the number that tables and leaderboards show."""

    name: str
    how: How
    parts: Mapping[str, float]
    headline: bool = False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """See the module docstring; `source` is the TOML's own table, from which the suite's hash is made."""

    name: str
    title: str
    rule: str
    form: str
    importers: tuple[str, ...] = ()
    paper: str = ""
    license: str = "unknown"
    note: str = ""
    ties: Literal["zero", "half"] = "zero"
    judge_ties: Literal["zero", "half"] = "half"
    unscored: Literal["zero", "chance"] = "zero"
    judge_unscored: Literal["zero", "chance"] = "zero"
    unscored_source: str = ""
    threshold: float = 0.5
    files: tuple[str, ...] = ()
    originals: tuple[tuple[str, ...], ...] = ()
    where: str = ""
    hub: str = ""
    hub_split: str = ""
    hub_config: str = ""
    open: bool = False
    subsets: tuple[Subset, ...] = ()
    measures: tuple[Measure, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)

    def subset(self, name: str) -> Subset | None:
        """The declared subset of that name, else the first whose pattern it fits."""
        exact = next((subset for subset in self.subsets if subset.name == name), None)
        return exact or next((subset for subset in self.subsets if fnmatchcase(name, subset.name)), None)

    def rule_of(self, subset: str) -> str:
        """The scoring rule of a subset."""
        declared = self.subset(subset)
        return declared.rule if declared and declared.rule else self.rule

    def with_ties(self, ties: Literal["zero", "half"]) -> Suite:
        """The same suite where a tie on pairs earns that, for models and judges; another hash where it earned else."""
        if self.rule != "pairs":
            raise UsageError(f"--ties is for the rule pairs; suite {self.name} scores by {self.rule}")
        if ties == self.ties == self.judge_ties:
            return self
        values: dict[str, Any] = {"ties": ties, "judge_ties": ties}
        return replace(self, **values, source=self.source | values)

    @property
    def headline(self) -> Measure:
        """The measure marked as headline, else the last one."""
        return next((measure for measure in self.measures if measure.headline), self.measures[-1])

    def hash(self, data: Mapping[str, str]) -> str:
        """32 hex digits over the definition and the subsets' content digests: two numbers compare when it is equal."""
        return digest([canonical_json(self.source), canonical_json(dict(data))])[:32]


def names() -> list[str]:
    """The shipped suites."""
    files = resources.files("evaluation.suites").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_suite(name: str) -> Suite:
    """A shipped suite by name, or the one in a TOML file. Raises UsageError for an unknown name, ConfigError."""
    if name.endswith(".toml"):
        return _parse(read_toml(Path(name)), where=name)
    if name not in names():
        raise UsageError(f"no suite {name!r}; one of: {', '.join(names())}, or the path of a .toml file of your own")
    return _parse(read_toml(Path(str(resources.files("evaluation.suites").joinpath(f"{name}.toml")))), where=name)


def _parse(table: dict[str, Any], *, where: str) -> Suite:
    plain = {key: value for key, value in table.items() if key not in ("subset", "measure")}
    for key in ("subsets", "measures", "source"):
        if key in plain:
            raise ConfigError(f"{where}: unknown key {key!r}; write [[subset]] and [[measure]] tables")
    subsets = tuple(build(Subset, entry, where=f"{where}: subset") for entry in table.get("subset", []))
    measures = tuple(_measure(entry, where=where) for entry in table.get("measure", []))
    suite = build(Suite, {**plain, "subsets": (), "measures": ()}, where=where)
    result = replace(suite, subsets=subsets, measures=measures, source=table)
    _check(result, where=where)
    return result


def _measure(entry: Mapping[str, Any], *, where: str) -> Measure:
    inputs: list[How] = [how for how in HOWS if how in entry]
    unknown = set(entry) - {"name", "headline", *HOWS}
    if unknown or len(inputs) != 1 or "name" not in entry:
        raise ConfigError(
            f"{where}: a [[measure]] takes name, headline and exactly one of {', '.join(HOWS)}; got {', '.join(entry)}"
        )
    parts = entry[inputs[0]]
    weights = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts, 1.0)
    if not weights or any(not isinstance(weight, int | float) for weight in weights.values()):
        raise ConfigError(f"{where}: measure {entry['name']}: expected parts, or parts with numbers, got {parts!r}")
    return Measure(entry["name"], inputs[0], weights, bool(entry.get("headline", False)))


def _plugin(group: str, name: str, *, where: str) -> Any:
    """What the suite names; its file is the user's own, so "module:object" is allowed."""
    try:
        return plugins.resolve(group, name, trusted=True)
    except UsageError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check(suite: Suite, *, where: str) -> None:
    for rule in (suite.rule, *(subset.rule for subset in suite.subsets if subset.rule)):
        _plugin("rules", rule, where=where)
    chance = getattr(_plugin("rules", suite.rule, where=where), "chance", None)
    if "chance" in (suite.unscored, suite.judge_unscored) and chance is None:
        raise ConfigError(f"{where}: unscored = 'chance' needs candidates to draw from; rule {suite.rule!r} has none")
    for importer in suite.importers:
        _plugin("sources", importer, where=where)
    if not suite.importers:
        _plugin("forms", suite.form, where=where)
    elif suite.form not in UNIT_FORMS:
        raise ConfigError(
            f"{where}: form of a suite with importers: one of {', '.join(UNIT_FORMS)}; got {suite.form!r}"
        )
    if not 0 < suite.threshold < 1:
        raise ConfigError(f"{where}: threshold is a probability between 0 and 1, got {suite.threshold}")
    if not suite.measures:
        raise ConfigError(f"{where}: no [[measure]]; add one, e.g. name = 'overall', pool = ['*']")
    if not suite.open and not suite.subsets:
        raise ConfigError(f"{where}: no [[subset]]; declare them, or set open = true")
    known = {subset.name for subset in suite.subsets}
    for measure in suite.measures:
        for part in measure.parts:
            if "*" not in part and part not in known and part.split("/")[0] not in known and not suite.open:
                raise ConfigError(f"{where}: measure {measure.name!r} needs {part!r}, which no subset or measure gives")
        known.add(measure.name)

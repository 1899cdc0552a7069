"""Publishing on the Hugging Face Hub: models and dataset versions, private unless said otherwise.

What goes up is built and checked first: an artifact that loads and gives its golden scores, with its model card; an
export of a dataset version with manifest and dataset card. The license is the most restrictive one of the base model
and of the data, and none may be blocked or unknown unless it is allowed by name (`warehouse.out.licenses`). Paths of
this machine stay here. What the Hub has already is not sent again, so an interrupted push goes on where it stopped.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from evaluation.registry.command import evaluations
from rmkit.atomic import write_text
from rmkit.config import read_object
from rmkit.data.example import read_manifest
from rmkit.errors import DataError, MissingExtraError, ModelError, StoreError, UsageError
from rmkit.hub import fault
from rmkit.models import find_model, load_model
from rmkit.models.artifact.model_card import CARD, EVALUATION, write_card
from rmkit.paths import warehouse_path
from warehouse.out.export import export_version
from warehouse.out.licenses import UNKNOWN, hub_license, most_restrictive, refused, spdx
from warehouse.store import open_warehouse
from warehouse.versions.versions import resolve

Kind = Literal["model", "dataset"]
_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_ON_HUB = re.compile(r"(?:hf://(?:datasets/)?|https?://huggingface\.co/datasets/)([\w.-]+/[\w.-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What went, or with `dry_run` would go, to the repository: `files` with their bytes, `metadata` of the card, the
    `licenses` of base and data with the rows that carry them. `url` and `commit` are empty on a dry run."""

    kind: Kind
    repository: str
    private: bool
    dry_run: bool
    files: Mapping[str, int]
    n_bytes: int
    license: str = UNKNOWN
    licenses: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Origins:
    """Where a model comes from: its base, and the licenses of base and data (license -> rows)."""

    base: str = ""
    base_license: str = ""
    data: str = ""
    data_licenses: Mapping[str, int] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()

    def licenses(self) -> dict[str, int]:
        """All of them with the rows that carry them, the base's with none."""
        base = {self.base_license or UNKNOWN: 0} if self.base or self.base_license else {}
        return base | dict(self.data_licenses)


def push_model(
    name: str,
    repository: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    license: str = "",
    allow_licenses: Collection[str] = (),
    base_model: str = "",
    base_license: str = "",
    languages: Sequence[str] = (),
    message: str = "",
) -> PushResult:
    """Send an artifact to the repository ORG/NAME. `license` is the weights' own, where they are to carry a more
    restrictive one than base and data ask for.

    Raises ModelError for a model that does not load or whose weights lie elsewhere, DataError where a license may not
    be published, StoreError for what the Hub answers.
    """
    _check_repository(repository)
    folder = find_model(name)
    load_model(folder)  # raises unless files and golden scores are right
    card = read_object(folder / CARD, raises=ModelError, hint="train the model again")
    origins = _origins(card, base_model=base_model, base_license=base_license, ask=not dry_run)
    counts = origins.licenses() or {UNKNOWN: 0}
    _check_licenses(name, counts, allow_licenses, base=origins.base_license or UNKNOWN if origins.base else "")
    chosen = _own(license, counts, allow_licenses)
    hub_id, license_name = hub_license(chosen)
    metadata: dict[str, Any] = {"license": hub_id} | ({"license_name": license_name} if license_name else {})
    metadata |= {"base_model": origins.base} if origins.base else {}
    metadata |= {"datasets": list(origins.datasets)} if origins.datasets else {}
    metadata |= {"language": list(languages)} if languages else {}
    with tempfile.TemporaryDirectory() as draft:
        place = Path(draft) / "model"
        _copy_model(folder, card, place)
        write_card(place, published=metadata | {"origins": _origin_lines(origins, chosen)})
        result = _result("model", repository, place, public=public, dry_run=dry_run)
        result = replace(result, license=chosen, licenses=counts, metadata=metadata)
        return result if dry_run else _upload(result, place, message or f"{folder.name}, {card['fingerprint'][:12]}")


def push_data(
    ref: str,
    repository: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    form: str = "native",
    allow_licenses: Collection[str] = (),
    allow_benchmark: bool = False,
    languages: Sequence[str] = (),
    tasks: Sequence[str] = (),
    message: str = "",
) -> PushResult:
    """Send an export of NAME@VERSION to the dataset repository ORG/NAME. Raises as `export_version` for a release."""
    _check_repository(repository)
    with tempfile.TemporaryDirectory() as draft, open_warehouse(read_only=True) as connection:
        place = export_version(
            connection,
            resolve(connection, ref),
            Path(draft) / "data",
            form=form,  # type: ignore[arg-type]
            target="release",
            allow_licenses=allow_licenses,
            allow_benchmark=allow_benchmark,
            languages=languages,
            tasks=tasks,
        )
        manifest = read_manifest(place)
        from huggingface_hub import metadata_load

        facts = dict(metadata_load(place / "README.md") or {})
        facts.pop("configs", None)
        result = _result("dataset", repository, place, public=public, dry_run=dry_run)
        counts = manifest["licenses"]
        result = replace(result, license=most_restrictive(counts), licenses=counts, metadata=facts)
        return result if dry_run else _upload(result, place, message or f"{manifest['ref']}, {manifest['digest'][:12]}")


def _check_repository(repository: str) -> None:
    if not _REPO.fullmatch(repository):
        raise UsageError(f"a repository of the Hub is ORG/NAME, got {repository!r}")


def _origins(card: Mapping[str, Any], *, base_model: str, base_license: str, ask: bool) -> Origins:
    """What the artifact says of itself, and the warehouse of its data; with `ask` the Hub says a base's license."""
    source = card.get("source") or {}
    settings = (card.get("training") or {}).get("settings") or {}
    base = base_model or source.get("hub") or source.get("base") or str(settings.get("model") or "")
    stated = base_license or source.get("license") or ""
    local = Path(base).expanduser()
    if base and local.is_dir():
        from rmkit.models.adopted.source import open_source

        opened = open_source(local)
        stated, base = stated or opened.license, opened.base or local.resolve().name
    elif base and not stated and ask:
        stated = _license_on_hub(base)
    ref = str((card.get("dataset") or {}).get("ref") or "")
    counts, hubs = _of_data(ref) if ref else ({}, ())
    return Origins(base, stated, ref, counts, hubs)


def _license_on_hub(base: str) -> str:
    """The license that a model's card states; empty where it states none or the Hub does not answer."""
    if not _REPO.fullmatch(base):
        return ""
    from huggingface_hub import HfApi

    try:
        data = HfApi().model_info(base).card_data
    except Exception:  # whatever its client raises; the license stays unknown, and that is refused
        return ""
    named = str((data.get("license") if data else None) or "")
    return str((data.get("license_name") if data else None) or named) if named == "other" else named


def _of_data(ref: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Licenses with their rows, and the Hub's datasets, behind a dataset version; unknown where it is not here."""
    from warehouse.out.manifest import describe

    if not warehouse_path().exists():
        return {UNKNOWN: 0}, ()
    with open_warehouse(read_only=True) as connection:
        try:
            version = resolve(connection, ref)
        except (UsageError, StoreError, DataError):
            return {UNKNOWN: 0}, ()
        manifest = describe(connection, version)
    matches = (_ON_HUB.match(str(one["url"] or one["name"])) for one in manifest["sources"])
    return dict(manifest["stated_licenses"]), tuple(dict.fromkeys(match[1] for match in matches if match))


def _check_licenses(name: str, counts: Mapping[str, int], allowed: Collection[str], *, base: str) -> None:
    if bad := refused(counts, allowed):
        listed = [f"{one} ({n} rows)" if n else f"{one} (base model)" if one == base else one for one, n in bad.items()]
        raise DataError(
            f"{name} may not be published: {', '.join(listed)}; state a base's license with --base-license, or add "
            + " ".join(f"--allow-license {one!r}" if " " in one else f"--allow-license {one}" for one in bad)
        )


def _own(license: str, counts: Mapping[str, int], allowed: Collection[str]) -> str:
    """The license that is named, if it is no less restrictive than what base and data ask for; else the strictest."""
    needed = most_restrictive(counts)
    if not license:
        return needed
    if most_restrictive([license, needed]) != spdx(license) and spdx(license) != needed:
        raise DataError(f"--license {license} is less restrictive than {needed}, which base or data ask for")
    if refused({license: 0}, [*allowed, *counts]):
        raise DataError(f"--license {license} may not be published; allow it with --allow-license {license}")
    return spdx(license)


def _origin_lines(origins: Origins, license: str) -> list[str]:
    lines = [f"Published under {license}, the most restrictive of:", ""]
    if origins.base:
        lines.append(f"- base model {origins.base}: {origins.base_license or UNKNOWN}")
    lines += [f"- {n} rows of {origins.data}: {one}" for one, n in origins.data_licenses.items()]
    return lines if len(lines) > 2 else ["No base model and no dataset is recorded."]


def _copy_model(folder: Path, card: Mapping[str, Any], place: Path) -> None:
    """The artifact without what names this machine; its evaluation results are those of today."""
    from rmkit.models.adopted.model import WEIGHTS

    source = dict(card.get("source") or {})
    if card["model"] == "adopted" and not source.get("hub") and not (folder / WEIGHTS).is_dir():
        raise ModelError(
            f"the weights of {folder} lie in {source.get('path')}, so it cannot be published; adopt them with --copy: "
            f"rmkit adopt {source.get('path')} -o {folder} --copy"
        )
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns(".*", "*.draft"))
    cleaned = json.loads(json.dumps(card))
    if source:
        cleaned["source"]["path"] = ""
    settings = (cleaned.get("training") or {}).get("settings") or {}
    if Path(str(settings.get("model") or "")).is_absolute():
        settings["model"] = Path(settings["model"]).name
    write_text(place / CARD, json.dumps(cleaned, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    results = json.dumps({"results": evaluations(folder)}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(place / EVALUATION, results + "\n")


def _result(kind: Kind, repository: str, place: Path, *, public: bool, dry_run: bool) -> PushResult:
    files = {str(path.relative_to(place)): path.stat().st_size for path in sorted(place.rglob("*")) if path.is_file()}
    return PushResult(
        kind=kind,
        repository=repository,
        private=not public,
        dry_run=dry_run,
        files=files,
        n_bytes=sum(files.values()),
    )


def _upload(result: PushResult, place: Path, message: str) -> PushResult:
    """Make the repository where there is none and send the files. Raises StoreError for what the Hub answers."""
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingExtraError("huggingface-hub", "train") from error
    api, where = HfApi(), result.repository
    try:
        url = api.create_repo(where, repo_type=result.kind, private=result.private, exist_ok=True)
        if result.private and not api.repo_info(where, repo_type=result.kind).private:
            raise UsageError(f"{where} is public already; push there with --public, or name another repository")
        commit = api.upload_folder(
            repo_id=where, repo_type=result.kind, folder_path=place, commit_message=f"rmkit push: {message}"
        )
    except UsageError:
        raise
    except Exception as error:  # of whatever client it has: no connection, a proxy, a full disk
        raise StoreError(f"{fault(error, where)}; what is there already is not sent again") from error
    return replace(result, url=str(url), commit=str(getattr(commit, "oid", "") or ""))

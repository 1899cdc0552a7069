"""From what a user names to an export folder: NAME@VERSION is exported first, a folder is taken as it is, or fetched
from its address, rows in memory go to a temporary one.

The exporter is reached by name: the kernel imports no warehouse, and a bare GPU box that holds only the folder never
needs one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from rmkit import paths
from rmkit.data.example import MANIFEST, Example, read_examples, read_manifest
from rmkit.data.pairs import Pair, read_pairs
from rmkit.data.reasons import check_enough
from rmkit.errors import DataError
from rmkit.plugins import upper
from rmkit.storage.address import is_address
from rmkit.storage.fetch import fetch

Data = str | Path | Iterable[Any]  # NAME@VERSION or a folder, or rows: a frame, a Hugging Face dataset, an iterable
SPLIT_NAMES = {"validation": ("validation", "dev")}  # what the split step and the importers call it


def export_folder(data: Data) -> Path:
    """The export folder that `data` is, or one freshly written for the dataset version that it names or for the rows
    that it holds: a frame, a Hugging Face dataset, an iterable (data_pipelines.ingest.export_data)."""
    if not isinstance(data, str | Path):
        return Path(upper("export_data")(data))
    folder = fetch(str(data)) if is_address(str(data)) else Path(data)
    if (folder / MANIFEST).is_file():
        return folder
    if folder.is_dir() or str(data).startswith((".", "/")) or is_address(str(data)):
        read_manifest(folder)  # raises, saying what an export folder is
    return Path(upper("export_folder")(str(data)))


class DatasetIdentity(TypedDict):
    """Which data an export holds: NAME@vN, digest and number of benchmark rows, None where its manifest has none."""

    ref: str | None
    digest: str | None
    benchmark_rows: int | None


def dataset_of(folder: Path) -> DatasetIdentity:
    """What the manifest says."""
    manifest = read_manifest(folder)
    return {
        "ref": manifest.get("ref"),
        "digest": manifest.get("digest"),
        "benchmark_rows": manifest.get("benchmark_rows"),
    }


def trainable_dataset(folder: Path, *, allow_benchmark: bool) -> DatasetIdentity:
    """What `dataset_of` says. Raises DataError where the export holds benchmark rows."""
    dataset = dataset_of(folder)
    if dataset["benchmark_rows"] and not allow_benchmark:
        raise DataError(
            f"{dataset['ref']} holds {dataset['benchmark_rows']} benchmark rows, and a model trained on them cannot be "
            "judged by them; drop them with a recipe, or add --allow-benchmark"
        )
    return dataset


def split_pairs(folder: Path, split: str, *, at_least: int) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of one split and the rows skipped by reason. Raises DataError where there are too few to go on."""
    names = SPLIT_NAMES.get(split, (split,))
    examples = next((result for name in names if (result := list(read_examples(folder, split=name)))), [])
    if not examples:
        raise DataError(
            f"{folder} has no {split!r} split (it has: {_splits(folder)}); make one by family with a recipe whose last "
            "step is split: rmkit run RECIPE --data NAME"
        )
    pairs, skipped = read_pairs(examples)
    check_enough(split, len(pairs), skipped, rows=len(examples), least=at_least, what="usable pairs")
    return pairs, skipped


def model_folder(folder: Path, kind: str) -> Path:
    """Where a model of this kind trained on an export goes by default: $RMKIT_HOME/models/DATA-KIND."""
    name = dataset_of(folder)["ref"] or folder.name
    slug = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    return paths.home() / "models" / f"{slug}-{kind}"


def examples_of(folder: Path, split: str) -> list[Example]:
    """The examples of one split, or of all with the name `all`. Raises DataError where there is none."""
    examples = list(read_examples(folder, split=None if split == "all" else split))
    if not examples:
        raise DataError(f"{folder} has no rows in split {split!r}; it has: {_splits(folder)} (or use --split all)")
    return examples


def _splits(folder: Path) -> str:
    names = sorted({str(example.row["split"] or "rows without one") for example in read_examples(folder)})
    return ", ".join(names) or "no rows"

"""croissant.json of an export: the dataset in the form that search engines and loaders read (Croissant 1.0, MLCommons).

One file object for each file with its SHA-256, one record set for each split (and a file set where it has several
files), one field for each column. Lists are repeated fields; columns of structs have none, since fields are flat.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NAME = "croissant.json"
_CONTEXT: Mapping[str, object] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {"string": "sc:Text", "double": "sc:Float", "int32": "sc:Integer", "int64": "sc:Integer", "bool": "sc:Boolean"}


def croissant(manifest: Mapping[str, Any]) -> str:
    """The file's text, from a manifest with its files, splits and schema."""
    form = "application/jsonlines" if any(name.endswith(".jsonl") for name in manifest["files"]) else _PARQUET
    files = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "encodingFormat": form,
            "sha256": facts["sha256"],
        }
        for name, facts in manifest["files"].items()
        if name.endswith((".parquet", ".jsonl"))
    ]
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"split-{split}",
            "name": f"split-{split}",
            "containedIn": [{"@id": name} for name in facts["files"]],
            "encodingFormat": form,
            "includes": "*",
        }
        for split, facts in manifest["splits"].items()
    ]
    jsonl = form != _PARQUET
    records = [
        {
            "@type": "cr:RecordSet",
            "@id": split,
            "name": split,
            "field": [
                _field(split, facts["files"], name, kind, jsonl)
                for name, kind in manifest["schema"].items()
                if "struct" not in kind
            ],
        }
        for split, facts in manifest["splits"].items()
    ]
    sources = [one for one in manifest["sources"] if one.get("collected", "unknown") != "unknown"]
    document: dict[str, object] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest["dataset"],
        "version": f"{manifest['version']}.0.0",
        "description": f"{manifest['n_rows']} rows in {manifest['form']} form, exported by rmkit from "
        f"{manifest['ref']}, digest {manifest['digest']}.",
        "license": " AND ".join(manifest["licenses"]) or "unknown",
        "isBasedOn": sorted({one["url"] for one in manifest["sources"] if one["url"]}),
        "distribution": files + (sets if any(len(one["files"]) > 1 for one in manifest["splits"].values()) else []),
        "recordSet": records,
    }
    if sources:
        document["rai:dataCollection"] = "; ".join(f"{one['name']}: collected {one['collected']}" for one in sources)
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


_PARQUET = "application/x-parquet"


def _field(split: str, files: list[str], name: str, kind: str, jsonl: bool) -> dict[str, object]:
    of = {"fileObject": {"@id": files[0]}} if len(files) == 1 else {"fileSet": {"@id": f"split-{split}"}}
    nested = kind.startswith("list")
    inner = kind.rpartition(": ")[2].rstrip(">")
    return {
        "@type": "cr:Field",
        "@id": f"{split}/{name}",
        "name": f"{split}/{name}",
        "dataType": _TYPES.get(inner, "sc:Text"),
        **({"repeated": True} if nested else {}),
        "source": of | {"extract": {"jsonPath": f"$.{name}"} if jsonl else {"column": name}},
    }

"""The OpenAPI document of the studio's API, made of the table that is served."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from labeling_ui.web.lead_api import Operation

_ERRORS = {
    "400": "what is wrong, in a sentence",
    "401": "no token",
    "403": "the token opens nothing, or its person may not do this",
    "409": "somebody else was faster; look again",
    "413": "the body is too large",
    "503": "the warehouse is busy; try again",
}
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


def document(leads: Iterable[Operation], everyone: Iterable[Operation]) -> dict[str, Any]:
    """OpenAPI 3.1; operations for leads carry the tag `lead`."""
    schemas: dict[str, Any] = {"Error": {"type": "object", "properties": {"error": {"type": "string"}}}}
    paths: dict[str, dict[str, Any]] = {}
    for tag, operations in (("annotator", everyone), ("lead", leads)):
        for one in operations:
            paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, tag, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "rmkit labeling studio", "version": "1"},
        "paths": paths,
        "security": [{"token": []}],
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(one: Operation, tag: str, schemas: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string"}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in re.findall(r"\{(\w+)\}", one.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": meaning, "schema": text} for name, meaning in one.query.items()
    ]
    responses: dict[str, Any] = {"200": {"description": "done", "content": {"application/json": {"schema": {}}}}}
    responses |= {status: {"description": meaning, "content": _ERROR} for status, meaning in _ERRORS.items()}
    result = {"summary": one.summary, "tags": [tag], "parameters": parameters, "responses": responses}
    if one.body is not None:
        schema = one.body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[one.body.__name__] = schema
        reference = {"$ref": f"#/components/schemas/{one.body.__name__}"}
        result["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
    return result

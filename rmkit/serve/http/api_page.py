"""The page at /docs: every route with its examples, from the app's own OpenAPI document, and nothing from elsewhere.

FastAPI's own page loads its scripts from a CDN: no use without a network, and code of others beside the tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment

router = APIRouter(include_in_schema=False)
HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}

_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width">
<style>
body{font:1rem/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}
pre{background:#f4f4f4;color:#111;padding:.7rem;overflow:auto}
details{border-top:1px solid #ccc;padding:.4rem 0}summary{cursor:pointer}code{font-size:.95em}
.text{white-space:pre-line}
</style>
<h1>{{ title }} {{ version }}</h1>
<p class="text">{{ description }}</p>
<p>The whole document, for programs: <a href="openapi.json">openapi.json</a></p>
{% for route in routes %}
<details><summary><code>{{ route.method }} {{ route.path }}</code> {{ route.summary }}</summary>
<p class="text">{{ route.description }}</p>
{% for example in route.examples %}<pre>{{ example }}</pre>{% endfor %}
{% if route.form %}<p>The body</p><pre>{{ route.form }}</pre>{% endif %}
{% if route.parameters %}<ul>{% for one in route.parameters %}
<li><code>{{ one.name }}</code> ({{ one.in }}) {{ one.description }}</li>{% endfor %}</ul>{% endif %}
<ul>{% for status, text in route.answers %}<li>{{ status }}: {{ text }}</li>{% endfor %}</ul></details>
{% endfor %}
<h2>Forms</h2>
{% for name, form in forms %}<details id="{{ name }}"><summary><code>{{ name }}</code></summary><pre>{{ form }}</pre>
</details>
{% endfor %}</html>"""
)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The page; it is made anew, which takes milliseconds and seldom happens."""
    document = request.app.openapi()
    forms = [(name, _indented(form)) for name, form in document.get("components", {}).get("schemas", {}).items()]
    return HTMLResponse(_PAGE.render(**document["info"], routes=_routes(document), forms=forms), headers=HEADERS)


def _routes(document: dict[str, Any]) -> Iterator[dict[str, object]]:
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            form = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            name = form.get("$ref", "").rpartition("/")[2]
            named = document.get("components", {}).get("schemas", {}).get(name, form)
            yield {
                "method": method.upper(),
                "path": path,
                "summary": route.get("summary", ""),
                "description": route.get("description", ""),
                "examples": [_indented(example) for example in named.get("examples", ())],
                "form": name or (_indented(form) if form else ""),
                "parameters": route.get("parameters", ()),
                "answers": [(status, answer.get("description", "")) for status, answer in route["responses"].items()],
            }


def _indented(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)

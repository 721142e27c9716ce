"""The report as a page: one file that asks no network for anything, and in which no name from outside can run.

All that comes from an experiment is in one block of JSON, which the page's script puts into the page as text. The
policy in its head lets the browser run that one script and use that one style sheet, known by their hashes.
"""

import base64
import hashlib
import html
import json
import re
from functools import cache
from importlib import resources
from typing import Any

SCRIPTS = (
    "echarts.min.js",
    "page.js",
    "charts.js",
    "model.js",
    "table.js",
    "begin.js",
)  # in the order in which they run


def page_of(data: dict[str, Any]) -> str:
    """Return the page that shows what `report.page_data` gathered.

    Source: W3C, Content Security Policy Level 3, https://www.w3.org/TR/CSP3/; Apache ECharts 6.1.0 draws the charts.
    """
    script, style = _script(), _file("page.css")
    parts = {
        "POLICY": f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "TITLE": html.escape(data["name"]),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], _file("page.html"))


@cache
def _script() -> str:
    return "\n".join(_file(name) for name in SCRIPTS)


@cache
def _file(name: str) -> str:
    return resources.files("tunekit").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

"""The one way from values to an HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tinylm.report.format import mean_deviation, signed_mean_deviation
from tinylm.system.files import write_text


def render_page(template: str, filters: dict[str, Callable[..., object]] | None = None, **values: Any) -> str:
    """Fill a template of `report/templates`.

    Args:
        template: its name, such as "demo.html".
        filters: those that this template needs beyond `mean_deviation` and `signed`.
        values: what the template shows; one that is missing is an error.
    """
    environment = Environment(
        loader=PackageLoader("tinylm.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"mean_deviation": mean_deviation, "signed": signed_mean_deviation}
    environment.filters |= filters or {}
    return environment.get_template(template).render(**values)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template into one HTML file, which appears when it is complete."""
    write_text(path, render_page(template, **values))

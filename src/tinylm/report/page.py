"""The one way from values and figures to an HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from tinylm.report import format as form
from tinylm.report.plots import svg_element
from tinylm.system.files import write_text


@lru_cache(maxsize=1)
def environment() -> Environment:
    """What all templates share; figures are written by the filters."""
    made = Environment(
        loader=PackageLoader("tinylm.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters |= {
        "as_html": as_html,
        "count": form.count,
        "duration": form.duration,
        "mean_deviation": form.mean_deviation,
        "two_digits": form.two_digits,
        "number": form.number,
        "percent": form.percent,
        "signed": form.signed,
        "signed_mean_deviation": form.signed_mean_deviation,
    }
    return made


def render_page(template: str, plots: Mapping[str, Figure], **values: Any) -> str:
    """Fill a template of `report/templates`.

    Args:
        template: its name, such as "demo.html".
        plots: by name; the template finds them as SVG elements under these names in `plots`.
        values: what else the template shows; one that is missing is an error.
    """
    elements = {name: svg_element(figure, name) for name, figure in plots.items()}
    return environment().get_template(template).render(plots=elements, **values)


def write_page(path: Path, template: str, plots: Mapping[str, Figure], **values: Any) -> None:
    """Fill a template into one HTML file, which appears when it is complete."""
    write_text(path, render_page(template, plots, **values))


def as_html(text: str) -> Markup:
    """Text with the two marks of Markdown that reports use: `code` and **strong**."""
    escaped = str(Markup.escape(text))
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped))

"""JSON files that a stranger may have written: an object, or a sentence that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinylm.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file is no regular one or cannot be read, or it holds no JSON object.
    """
    if not path.is_file():  # a device could be read without end
        raise UserError(f"{path} is missing, or no file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged; expected a JSON object.")
    return content

"""README and docs: what they show exists and runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from helpers.fitting import labelled, tiny
from tinylm import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?tinylm ([a-z][^|>#\n]*)", re.MULTILINE)
INLINE = re.compile(r"`tinylm ([a-z][^`|>]*)`")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_and_their_options_exist(page: Path) -> None:
    """Every `tinylm ...` that a page shows, against what the command line accepts."""
    app = typer.main.get_command(cli.app)
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "".join(code for _, code in BLOCK.findall(text))
    for line in COMMAND.findall(blocks) + INLINE.findall(BLOCK.sub("", text)):
        words = shlex.split(line.split("...")[0])
        found = app
        while words and hasattr(found, "commands"):
            name = words.pop(0)
            assert name in found.commands, f"{page.name}: tinylm {line!r}"
            found = found.commands[name]
        known = {name for option in found.params for name in (*option.opts, *option.secondary_opts)}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
        assert not [word for word in unknown if word != "--"], f"{page.name}: tinylm {line!r}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_files_exist(page: Path) -> None:
    """Paths in backticks and links that lead into the repository."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    paths = re.findall(r"`((?:src|tests|docs|results)/[\w./-]*[\w/])`", text)
    paths += [
        str((page.parent / link).resolve().relative_to(ROOT))
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text)
    ]
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing, f"{page.name} names {missing}"


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of README.md in their order, with a quick classifier in place of the one of five minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path / "cache"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [code for language, code in BLOCK.findall(text) if language == "python"]
    assert blocks
    texts, labels = labelled(60)
    seen = {"texts": texts, "labels": labels, "tiny": tiny}
    for code in blocks:
        shortened = code.replace('TinyTextClassifier(budget="5min")', "tiny()")
        exec(compile(shortened, "README.md", "exec"), seen)

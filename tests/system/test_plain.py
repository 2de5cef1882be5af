"""JSON and YAML that mean harm: refused with a sentence, and soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinylm.errors import UserError
from tinylm.system.plain_json import read_json
from tinylm.system.plain_yaml import parse_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "line 2 is not valid YAML: aliases, such as"),
        (MERGES, "line 3 is not valid YAML: aliases, such as"),
        ("a: &a [*a]", "line 1 is not valid YAML: aliases, such as"),
        (
            "a: !!python/object/apply:os.system [exit]",
            "line 1 is not valid YAML: could not determine a constr",
        ),
        ("[" * 100_000, "is not valid YAML"),
        ("a: \x00", "special characters are not allowed"),
        ("a: 2020-99-99", "month must be in 1..12"),
        ("a: !!int x", "invalid literal for int"),
        ("? [1]\n: 2", "line 1 is not valid YAML: found unhashable key"),
    ],
)
def test_yaml_is_plain_values(text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse_yaml(text, "mine.yaml")
    assert str(error.value).startswith("mine.yaml") and said in str(error.value)


def test_sound_yaml_is_read_with_its_lines() -> None:
    values, nodes = parse_yaml("a: 1\nb: [x, 2.5, true, null]\n", "mine.yaml")
    assert values == {"a": 1, "b": ["x", 2.5, True, None]}
    assert nodes.value[1][0].start_mark.line == 1


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[1]", b"{", b"\xff", b""])
def test_json_is_an_object(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is "):
        read_json(tmp_path / "a.json")


def test_a_device_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="no file"):
        read_json(tmp_path / "a.json")

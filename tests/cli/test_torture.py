"""The short form of `make torture`: a fit that is killed twice ends as an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.torture import COMMANDS, make_inputs, torture


@pytest.mark.slow
def test_a_killed_fit_gives_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    make_inputs(tmp_path / "inputs")
    command = COMMANDS["fit"].replace("--members 2", "--members 1")
    assert len(list(torture(command, tmp_path / "inputs", tmp_path, kills=2))) == 2

"""Feed the targets of `tests.fuzz` what reaches branches that no example before it has reached.

    python -m tests.fuzz_coverage [--minutes N] [--seed N] [TARGET ...]

Atheris watches which branches of tinylm, and of the readers in Python below it, an input takes, and mutates
those that took new ones. An input is either the bytes of a file, or the choices of which hypothesis makes an
example; the first ones are examples of `tests.fuzz`. Each target has a process of its own for its share of
the time. An example that fails is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
from tests.fuzz import FOLDER, LINK, SECONDS, allowed, check, targets

INSTRUMENTED = ["tinylm", "yaml", "openpyxl", "uvicorn", "h11"]
# By numba, which knows no instruments; they read nothing.
COMPILED = [
    "tinylm.ops.kernels",
    "tinylm.ops.scalar",
    "tinylm.ops.int8_linear",
    "tinylm.ops.linear_svm",
    "tinylm.train.adamw",
]
CHOICES = b"\xff"  # the first byte of an input that is not a file
FORM = 50  # inputs of each form to start from
SETTINGS = hypothesis.settings(
    max_examples=FORM,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
)


def drive(name: str, seconds: int, seed: int, folder: Path) -> None:
    """Fuzz one target and end this process, with exit code 0 where nothing was found.

    The folder gets what libFuzzer prints as `log`, and the last example as `example`.
    """
    import atheris

    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), 2)
    with atheris.instrument_imports(INSTRUMENTED, COMPILED):
        target = targets()[name]
        drawn: list[Any] = []

        @hypothesis.seed(seed)
        @SETTINGS
        @hypothesis.given(target.examples)
        def draw(example: Any) -> None:
            drawn.append(example)

        def watched(example: Any) -> None:
            (folder / "example").write_text(repr(example))
            check(target, example)

        @SETTINGS
        @hypothesis.given(target.examples)
        def chosen(example: Any) -> None:
            watched(example)

        def read(data: bytes) -> None:
            start, content = data[:1], data[1:]
            if start == CHOICES:
                chosen.hypothesis.fuzz_one_input(content)
            elif start and not content.startswith((LINK, FOLDER)):  # these two are up to hypothesis
                watched((*names[start[0] % len(names)], content) if names else content)

        draw()
        # What is imported and cached for the first examples does not count as theirs.
        for example in drawn:
            (folder / "example").write_text(repr(example))
            with tempfile.TemporaryDirectory() as temporary, allowed():
                target.read(Path(temporary), example)
        # A file's place in a folder stands before its bytes, as the number of the name.
        names = sorted({example[:-1] for example in drawn if isinstance(example, tuple)})
        files = [
            bytes([names.index(example[:-1])]) + example[-1] if names else b"\0" + example
            for example in drawn
        ]
        chance = random.Random(seed)
        (folder / "inputs").mkdir()
        for number, content in enumerate(files + [CHOICES + chance.randbytes(1000) for _ in range(FORM)]):
            (folder / "inputs" / str(number)).write_bytes(content)
        # `check` bounds time and memory; libFuzzer's own timer would disturb it.
        options = f"-max_total_time={seconds} -seed={seed} -timeout=99999 -rss_limit_mb=0 -len_control=0"
        output = f"-verbosity=0 -print_final_stats=1 -artifact_prefix={folder}/"
        atheris.Setup([sys.argv[0], *options.split(), *output.split(), str(folder / "inputs")], read)
        atheris.Fuzz()


def main() -> None:
    """Fuzz the targets named on the command line, or all, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[*targets(), []], help="all by default")
    parser.add_argument("--minutes", type=float, default=30, help="altogether")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is missing: pip install atheris")
    names = arguments.targets or list(targets())
    seconds = round(60 * arguments.minutes / len(names))
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            process = multiprocessing.get_context("spawn").Process(
                target=drive, args=(name, seconds, arguments.seed, Path(temporary))
            )
            process.start()
            process.join(seconds + 5 * SECONDS)
            process.kill()  # one that hangs in code that is not Python
            process.join()
            log = (Path(temporary) / "log").read_text(errors="replace")
            if process.exitcode != 0:
                failed = True
                print(log, f"{name}: {(Path(temporary) / 'example').read_text()}", sep="\n")
            count = re.search(r"number_of_executed_units: (\d+)", log)
            print(f"seed {arguments.seed}, {name}: {int(count[1]) if count else 0:,} inputs", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

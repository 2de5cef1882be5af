"""Kill commands at random moments, start them again, and compare with an undisturbed run.

    python -m tests.torture [--kills N] [--seed N] [COMMAND ...]

Every second kill comes as soon as a file is being written, the others at any time. Half of them hit the
command alone, whose workers must notice, and half all its processes at once, as a machine that stops does.
The command that is started again must end with the same bits as one that was not killed, and leave nothing
temporary behind.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.inputs import TINY_SPEC, WORDS

SMALL = "--vocabulary 300 --layers 1 --heads 1 --recipe fast"
COMMANDS = {
    "corpus": "corpus --corpus large.txt --vocabulary 300 --size 20000 --out out",
    "pretrain": f"pretrain --corpus corpus.txt {SMALL} --epochs 6 --out out",
    "finetune": "finetune pretrained --task table.csv --epochs 10 --out out",
    "fit": "fit table.csv --corpus none --members 2 --max-tokens 12 --budget none --out out",
    "distill": "distill classifier table.csv --corpus none --out out",
    "paper run": "paper run tiny.yaml --preset smoke --results out",
    "export": "export classifier --to onnx --int8 --out out",
}
# What differs between two undisturbed runs: times, and hashes of files that hold times.
TIMES = ("finished", "seconds", "latency", "files", "ms")
WITH_TIMES = ("README.md", "report.html")
POLL = 0.003  # seconds between two looks at what is being written
ENDED = "after the end"  # the command was quicker
LEAVES = ("*.partial", "*.checkpoint*", "*.damaged")  # nothing of this may be left


def make_inputs(folder: Path) -> None:
    """Write what the commands read."""
    chance = random.Random(0)

    def sentence(topic: str) -> str:
        return " ".join(["the", *chance.choices(WORDS[topic].split(), k=chance.randint(2, 9))])

    topics = [chance.choice(sorted(WORDS)) for _ in range(600)]
    for name, copies in (("corpus.txt", 1), ("large.txt", 100)):
        text = "\n".join(sentence(topic) for topic in topics * copies)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(sentence(topic), topic) for topic in topics[:120]]
        csv.writer(file).writerows([("text", "label"), *rows])
    (folder / "tiny.yaml").write_text(TINY_SPEC, encoding="utf-8")


@dataclass(frozen=True)
class Torture:
    """One command in a folder of its own.

    Attributes:
        command: of `tinylm`, whose output is `out`.
        inputs: a folder that it starts from, copied for every attempt.
        folder: for the attempts.
    """

    command: str
    inputs: Path
    folder: Path

    def begin(self, name: str) -> Path:
        """The working folder of a new attempt, with an empty cache."""
        work = self.folder / name
        shutil.copytree(self.inputs, work)
        return work

    def start(self, work: Path) -> subprocess.Popen[bytes]:
        """The command as a process group."""
        return subprocess.Popen(
            [sys.executable, "-m", "tinylm", *self.command.split()],
            cwd=work,
            env=os.environ | {"TINYLM_CACHE": str(work / "cache"), "TINYLM_CHECKPOINT_SECONDS": "0.1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self, work: Path) -> None:
        """Run the command to its end."""
        process = self.start(work)
        _, said = process.communicate()
        if process.returncode:
            raise AssertionError(f"{self.command} in {work}: {said.decode()[-2000:]}")

    def kill(self, work: Path, moment: float | int, everything: bool) -> str:
        """Start the command and kill it after some seconds (float), or when it writes its nth file (int).

        Returns:
            What it was doing, in words.
        """
        process, begin, seen = self.start(work), time.monotonic(), set[Path]()
        while process.poll() is None:
            if isinstance(moment, int):
                seen |= set(_found(work, "*.partial"))
            if (len(seen) if isinstance(moment, int) else time.monotonic() - begin) >= moment:
                break
            time.sleep(POLL)
        state = ENDED if process.poll() is not None else f"after {time.monotonic() - begin:.1f} s"
        with suppress(ProcessLookupError):  # it has ended
            (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
        process.communicate()
        return state + (f", at file {moment}" if isinstance(moment, int) else "")


def torture(command: str, inputs: Path, folder: Path, kills: int, seed: int = 0) -> Iterator[str]:
    """Kill a command `kills` times; yields a line for each, and raises an error where the bits differ."""
    chance = random.Random(seed)
    run = Torture(command, inputs, folder)
    work = run.begin("undisturbed")
    begin = time.monotonic()
    writes = _count_writes(run, work)
    seconds, expected = time.monotonic() - begin, content(work / "out")
    for number in range(kills):
        moment = chance.randint(1, max(writes, 1)) if number % 2 else chance.uniform(0, seconds)
        while True:
            work = run.begin(f"kill-{number}")
            state = run.kill(work, moment, everything=bool(number // 2 % 2))
            if not state.startswith(ENDED):
                break
            # The machine has become quicker since the undisturbed run: then earlier.
            moment = moment // 2 if isinstance(moment, int) and moment > 1 else moment / 2
            shutil.rmtree(work)
        if not complete(work / "out"):
            run.finish(work)
        found = content(work / "out")
        different = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
        if different:
            raise AssertionError(
                f"{command}, killed {state}: {', '.join(sorted(different))} differ in {work}"
            )
        if left := [str(path.relative_to(work)) for pattern in LEAVES for path in _found(work, pattern)]:
            raise AssertionError(f"{command}, killed {state}: {', '.join(left)} is left in {work}")
        yield f"killed {state}; the same bits"
        shutil.rmtree(work)


def _count_writes(run: Torture, work: Path) -> int:
    """Run a command to its end; returns how many files it was seen to write."""
    process, seen = run.start(work), set[Path]()
    while process.poll() is None:
        seen |= set(_found(work, "*.partial"))
        time.sleep(POLL)
    _, said = process.communicate()
    if process.returncode:
        raise AssertionError(f"{run.command}: {said.decode()[-2000:]}")
    return len(seen)


def _found(folder: Path, pattern: str) -> list[Path]:
    """Files of a pattern; folders may vanish while they are searched."""
    try:
        return list(folder.rglob(pattern))
    except OSError:
        return []


def complete(out: Path) -> bool:
    """Whether the command had ended: an output folder appears when it is complete; results grow."""
    return out.is_dir() and not (out / "preset.json").exists() and any(out.iterdir())


def content(out: Path) -> dict[str, str]:
    """A hash of each file of an output folder, times left out."""
    hashes = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if path.name in WITH_TIMES or name.startswith(".locks/"):
            continue
        text = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            values = [json.loads(line) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])]
            text = json.dumps(without_times(values), sort_keys=True).encode()
        hashes[name] = hashlib.sha256(text).hexdigest()
    return hashes


def without_times(value: Any) -> Any:
    """JSON without the entries of TIMES."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key not in TIMES}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def prepare(inputs: Path) -> None:
    """Inputs, a pre-trained model and a classifier."""
    make_inputs(inputs)
    for command in (
        f"pretrain --corpus corpus.txt {SMALL} --epochs 1 --out pretrained",
        "finetune pretrained --task table.csv --epochs 1 --out classifier",
    ):
        environment = os.environ | {"TINYLM_CACHE": str(inputs / "cache")}
        subprocess.run(
            [sys.executable, "-m", "tinylm", *command.split()], cwd=inputs, env=environment, check=True
        )
    shutil.rmtree(inputs / "cache")


def main() -> None:
    """Torture the commands named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []], help="all by default")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Path(temporary) / "inputs"
        inputs.mkdir()
        prepare(inputs)
        for name in arguments.commands or COMMANDS:
            folder = Path(temporary) / name.replace(" ", "-")
            lines = torture(COMMANDS[name], inputs, folder, arguments.kills, arguments.seed)
            for number, line in enumerate(lines, 1):
                print(f"{name} {number}/{arguments.kills}: {line}", flush=True)


if __name__ == "__main__":
    main()

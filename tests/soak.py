"""Load a server with twice what it can compute, among slow, broken and huge requests, and stop it meanwhile.

    python -m tests.soak [--seconds N] [--workers N] [--texts N] [--model FOLDER] [--seed N] [--json FILE]

Everything stays on this machine. One client after the other shows how long a response takes without load
(p95), several at a time how many there are in a second (capacity). The server is then started with
`--longest-wait` of a quarter of that p95 and gets twice as many requests as its capacity, at random moments:

- each gets its own predictions once, or 503, and nothing else;
- p95 of the predictions is at most three times that without load;
- the memory does not grow;
- on SIGTERM in the middle, no connection that the server had accepted is left without its response.

The generator has one core and the server the others, where each of its workers has one then. Otherwise they
share all cores, and what is measured is the two together.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
AT_ONCE = 8  # clients that show the capacity
OVERLOAD = 2.0  # times the capacity
WAIT = 0.25  # of the p95 without load, for `--longest-wait`: a response takes that long and a batch
SLOWER = 3.0  # times the p95 without load is allowed with it
GROWTH, SPARE = 1.1, 16 << 20  # times the memory of the first third, and bytes more, are allowed in the last
QUESTIONS = 64  # different requests, whose predictions are known
ODD_SHARE = 0.1  # of the requests are slow, broken or huge


@dataclass(frozen=True)
class Outcome:
    """What a client saw.

    Attributes:
        kind: of the request.
        status: that of HTTP, or "refused" (no connection), "lost" (no whole response), "twice" (more than
            one), "wrong" (another's predictions), "left" (the client went away).
        seconds: from connecting until the response had come.
        body: of the response.
        number: of the question.
    """

    kind: str
    status: int | str
    seconds: float
    body: bytes = b""
    number: int = -1


# --- clients ---


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


def post(body: bytes, length: int | None = None) -> bytes:
    """A request to predict; `length` is what its head claims."""
    length = len(body) if length is None else length
    return (
        b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % length
        + body
    )


async def response(reader: asyncio.StreamReader) -> tuple[int | str, bytes]:
    """Status and body of the one response; "twice" if more follows, "lost" if none comes."""
    received = await reader.read(-1)
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1.1 (\d+)", head)
    length = re.search(rb"content-length: (\d+)", head)
    if found is None or (length is not None and len(body) < int(length[1])):
        return "lost", received
    if length is not None and len(body) > int(length[1]):
        return "twice", received
    return int(found[1]), body


async def send(port: int, kind: str, request: bytes, pieces: int = 1) -> Outcome:
    """Send a request on its own connection, its pieces a tenth of a second apart; await the response."""
    begin, connected = time.perf_counter(), False
    try:
        async with connection(port) as (reader, writer):
            connected = True
            step = -(-len(request) // pieces)
            first = max(step, request.find(b"\r\n\r\n") + 4)  # with the head, which has its own time limit
            writer.write(request[:first])
            for start in range(first, len(request), step):
                await asyncio.sleep(0.1)
                writer.write(request[start : start + step])
            status, body = await response(reader)
    except OSError:
        status, body = "lost" if connected else "refused", b""
    return Outcome(kind, status, time.perf_counter() - begin, body)


async def drip(port: int, kind: str, request: bytes) -> Outcome:
    """Send a request within two seconds."""
    return await send(port, kind, request, pieces=20)


async def leave(port: int, kind: str, request: bytes) -> Outcome:
    """Send a request and go away."""
    with contextlib.suppress(OSError):
        async with connection(port) as (_, writer):
            writer.write(request)
            await writer.drain()
    return Outcome(kind, "left", 0.0)


Client = Callable[[int, str, bytes], Awaitable[Outcome]]


def odd_requests(texts: int) -> dict[str, tuple[Client, bytes, set[int | str]]]:
    """Slow, broken and huge requests by name: who sends them, what, and the right outcomes beside 503."""
    good = json.dumps({"texts": ["one two three"] * texts}).encode()
    long = json.dumps({"texts": ["seven " * 500] * 256}).encode()
    return {
        "slow": (drip, post(good), {200}),
        "no JSON": (send, post(b'{"texts": ["one'), {422}),
        "no HTTP": (send, b"\x16\x03\x01\x02\x00\r\n\r\n", {400}),
        "too many texts": (send, post(json.dumps({"texts": ["one"] * 257}).encode()), {422}),
        "huge": (send, post(long), {200}),
        "too large": (send, post(b" " * (5 << 20)), {413}),
        "half a body": (leave, post(good[:20], len(good)), {"left"}),
        "gone": (leave, post(good), {"left"}),
    }


# --- the server ---


@dataclass
class Server:
    """`tinylm serve` on a free port; `peaks` are samples of its memory in bytes."""

    process: subprocess.Popen[str]
    port: int
    memory: list[int] = field(default_factory=list)

    def pids(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    async def watch(self) -> None:
        """Sample the memory of all processes, shared pages in part, until cancelled."""
        while True:
            total = 0
            for pid in self.pids():
                with contextlib.suppress(OSError):
                    found = re.search(
                        r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M
                    )
                    total += 1024 * int(found[1]) if found else 0
            self.memory.append(total)
            await asyncio.sleep(0.25)


@contextlib.contextmanager
def apart(workers: int) -> Iterator[set[int]]:
    """Keep this process to one core for the time of the block; yields the cores that are left to the server.

    Where some worker would have none, both have all.
    """
    cores = os.sched_getaffinity(0)
    mine = {min(cores)} if len(cores) > workers else cores
    os.sched_setaffinity(0, mine)
    try:
        yield (cores - mine) or cores
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def serving(folder: Path, cores: set[int], *options: str) -> Iterator[Server]:
    """A server on some cores for the time of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tinylm", "serve", str(folder), "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    os.sched_setaffinity(process.pid, cores)
    try:
        assert process.stdout is not None
        address = re.match(r"http://[\d.]+:(\d+)", line := process.stdout.readline())
        assert address, f"the server said {line!r}"
        yield Server(process, int(address[1]))
    finally:
        process.kill()
        process.wait()


# --- the load ---


class Soak:
    """Requests with known predictions, and how they are sent."""

    def __init__(self, model: Path, texts: int, seed: int) -> None:
        from tinylm.export.runtime import load_predictor

        self.chance, self.texts = random.Random(seed), texts
        predictor = load_predictor(model)
        asked = [
            [" ".join(self.chance.choices(WORDS, k=self.chance.randint(10, 100))) for _ in range(texts)]
            for _ in range(QUESTIONS)
        ]
        self.requests = [post(json.dumps({"texts": texts}).encode()) for texts in asked]
        self.names = predictor.label_names
        self.expected = [predictor.predict_proba(texts) for texts in asked]
        self.numbers = itertools.cycle(range(QUESTIONS))
        self.odd = odd_requests(texts)

    async def ask(self, port: int) -> Outcome:
        """Send the next request."""
        number = next(self.numbers)
        return dataclasses.replace(await send(port, "normal", self.requests[number]), number=number)

    def checked(self, outcomes: list[Outcome]) -> list[Outcome]:
        """The same, but "wrong" where the predictions are not those of the request."""
        return [
            dataclasses.replace(outcome, status="wrong") if self._is_wrong(outcome) else outcome
            for outcome in outcomes
        ]

    def _is_wrong(self, outcome: Outcome) -> bool:
        if (outcome.kind, outcome.status) != ("normal", 200):
            return False
        found = [
            [prediction["probabilities"][name] for name in self.names]
            for prediction in json.loads(outcome.body)["predictions"]
        ]
        expected = self.expected[outcome.number]
        return np.shape(found) != expected.shape or not np.allclose(found, expected, atol=1e-4)

    async def one_by_one(self, port: int, seconds: float, clients: int = 1) -> list[Outcome]:
        """Clients that send a request when they have the response to the one before."""
        end = time.monotonic() + seconds

        async def client() -> list[Outcome]:
            outcomes = []
            while time.monotonic() < end:
                outcomes.append(await self.ask(port))
            return outcomes

        found = await asyncio.gather(*(client() for _ in range(clients)))
        return self.checked(list(itertools.chain(*found)))

    async def at_rate(
        self, port: int, rate: float, seconds: float, stop: Callable[[], bool] = lambda: False
    ) -> list[Outcome]:
        """Requests at random moments, `rate` of them in a second, whatever becomes of those before."""
        tasks: list[asyncio.Task[Outcome]] = []
        moment = begin = time.monotonic()
        while (moment := moment + self.chance.expovariate(rate)) < begin + seconds and not stop():
            if (wait := moment - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if self.chance.random() < ODD_SHARE:
                kind = self.chance.choice(sorted(self.odd))
                client, request, _ = self.odd[kind]
                work: Awaitable[Outcome] = client(port, kind, request)
            else:
                work = self.ask(port)
            tasks.append(asyncio.ensure_future(work))
        return self.checked(await asyncio.gather(*tasks))


def p95(outcomes: list[Outcome]) -> float:
    """Of the seconds that predictions took."""
    seconds = [outcome.seconds for outcome in outcomes if (outcome.kind, outcome.status) == ("normal", 200)]
    return float(np.percentile(seconds, 95)) if seconds else float("nan")


def counted(outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """How often each kind of request had each outcome."""
    table: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for (kind, status), count in sorted(
        collections.Counter((outcome.kind, str(outcome.status)) for outcome in outcomes).items()
    ):
        table[kind][status] = count
    return dict(table)


def unexpected(soak: Soak, outcomes: list[Outcome], more: set[int | str]) -> list[str]:
    """Outcomes that no request of the kind may have."""
    allowed = {kind: right for kind, (_, _, right) in soak.odd.items()} | {"normal": {200}}
    wrong = collections.Counter(
        f"{outcome.kind}: {outcome.status}"
        for outcome in outcomes
        if outcome.status not in allowed[outcome.kind] | {503} | more
    )
    return [f"{what} ({count} times)" for what, count in sorted(wrong.items())]


async def run(model: Path, seconds: float, workers: int, texts: int, seed: int) -> dict[str, Any]:
    """Requests without load, capacity, twice that, and the end; mistakes are in `problems` and `too_much`."""
    with apart(workers) as cores:
        return await _run(Soak(model, texts, seed), model, seconds, workers, cores)


async def _run(soak: Soak, model: Path, seconds: float, workers: int, cores: set[int]) -> dict[str, Any]:
    options, short = ("--workers", str(workers)), max(1.0, seconds / 6)
    result: dict[str, Any] = {"seconds": seconds, "workers": workers, "texts": soak.texts}
    result |= {"cores": len(cores), "generator_apart": not os.sched_getaffinity(0) & cores}
    problems: list[str] = []
    with serving(model, cores, *options) as server:
        await soak.one_by_one(server.port, short / 4, AT_ONCE)  # warms up
        alone = await soak.one_by_one(server.port, short)
        together = await soak.one_by_one(server.port, short, AT_ONCE)
    problems += unexpected(soak, alone + together, set())
    capacity = sum(outcome.status == 200 for outcome in together) / short
    rate, wait = OVERLOAD * capacity, p95(alone) * WAIT
    result |= {"unloaded_p95": p95(alone), "capacity": capacity, "longest_wait": wait}
    with serving(model, cores, *options, "--longest-wait", f"{wait:.4f}") as server:
        await soak.one_by_one(server.port, short / 4)
        for kind, (
            client,
            request,
            _,
        ) in soak.odd.items():  # the largest that it ever computes, for the memory
            await client(server.port, kind, request)
        watcher = asyncio.ensure_future(server.watch())
        loaded = await soak.at_rate(server.port, rate, seconds)
        watcher.cancel()
    third = len(server.memory) // 3
    before, after = max(server.memory[: third or 1]), max(server.memory[-third:])
    good = sum((outcome.kind, outcome.status) == ("normal", 200) for outcome in loaded)
    result |= {
        "rate": rate,
        "loaded_p95": p95(loaded),
        "predictions_per_second": good / seconds,
        "memory_first_third": before,
        "memory_last_third": after,
        "outcomes": counted(loaded),
    }
    problems += unexpected(soak, loaded, set())
    too_much: list[str] = []
    if not p95(loaded) <= SLOWER * p95(alone):
        too_much.append(f"p95 is {p95(loaded) / p95(alone):.1f} times as long as without load")
    if after > GROWTH * before + SPARE:
        too_much.append(f"the memory grew from {before >> 20} to {after >> 20} MB")

    with serving(model, cores, *options, "--longest-wait", f"{wait:.4f}") as server:
        await soak.one_by_one(server.port, short / 4)
        load = asyncio.ensure_future(
            soak.at_rate(server.port, rate, 2 * short + 1, lambda: server.process.poll() is not None)
        )
        await asyncio.sleep(short * soak.chance.uniform(0.5, 1.5))
        server.process.send_signal(signal.SIGTERM)
        ending = await load
        code = server.process.wait(60)
    result |= {"outcomes_sigterm": counted(ending), "exit_code": code}
    # A slow client may be cut off: it has seconds for its body, and the server does not wait for ever.
    problems += [f"SIGTERM: {what}" for what in unexpected(soak, ending, {"refused"})]
    if code:
        problems.append(f"SIGTERM: exit code {code}")
    return result | {"problems": problems, "too_much": too_much}


def make_model(folder: Path) -> Path:
    """Three encoders with random weights, exported."""
    sys.path.insert(0, str(ROOT))
    from helpers.toys import make_classifier
    from tinylm.export.onnx import export_onnx
    from tinylm.infer.committee import Committee

    members = [make_classifier(seed, layers=2, heads=2, max_tokens=64) for seed in range(3)]
    (folder / "committee").mkdir()
    Committee(members).save(folder / "committee")
    (folder / "onnx").mkdir()
    export_onnx(folder / "committee", folder / "onnx")
    return folder / "onnx"


def table(result: dict[str, Any]) -> str:
    """The result as people read it."""
    milliseconds = [
        f"{1000 * result[name]:.1f} ms" for name in ("unloaded_p95", "longest_wait", "loaded_p95")
    ]
    memory = [f"{result[f'memory_{part}_third'] / 2**20:.0f} MB" for part in ("first", "last")]
    rows = {
        "server": f"workers: {result['workers']}, cores: {result['cores']}, the generator "
        + ("on another" if result["generator_apart"] else "on the same"),
        "p95 without load": milliseconds[0],
        "capacity": f"{result['capacity']:.0f} requests of {result['texts']} texts per second",
        "longest wait": milliseconds[1],
        "load": f"{result['rate']:.0f} requests per second for {result['seconds']:g} s",
        "predictions": f"{result['predictions_per_second']:.0f} per second",
        "p95 with load": f"{milliseconds[2]}, {result['loaded_p95'] / result['unloaded_p95']:.1f} times",
        "memory": f"{memory[0]} in the first third, {memory[1]} in the last",
    }
    lines = [f"{name:<20} {value}" for name, value in rows.items()]
    for title, name in (("load", "outcomes"), ("SIGTERM", "outcomes_sigterm")):
        for kind, found in result[name].items():
            outcomes = ", ".join(f"{status}: {count}" for status, count in found.items())
            lines.append(f"{title + ', ' + kind:<24} {outcomes}")
    return "\n".join(
        [*lines, *(f"PROBLEM: {problem}" for problem in result["problems"] + result["too_much"])]
    )


def main() -> None:
    """Soak a server; exit code 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of the overload")
    parser.add_argument("--workers", type=int, default=1, help="of the server")
    parser.add_argument("--texts", type=int, default=16, help="in a request")
    parser.add_argument("--model", type=Path, help="a model folder; by default a committee of random weights")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and texts")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        model = arguments.model or make_model(Path(temporary))
        result = asyncio.run(
            run(model, arguments.seconds, arguments.workers, arguments.texts, arguments.seed)
        )
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))
    sys.exit(bool(result["problems"] + result["too_much"]))


if __name__ == "__main__":
    main()

"""The server as a process of its own: its responses, and that no request ends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers.command import refused, tinylm
from helpers.serving import SEVEN, TOKENIZER, Server, export_toys, save_counted, serve, toys
from tinylm.export.runtime import load_onnx
from tinylm.infer.committee import Committee
from tinylm.serve.app import create_app
from tinylm.serve.batcher import Batcher, OverloadError
from tinylm.serve.limits import Limits
from tinylm.serve.server import Server as Uvicorn
from tinylm.serve.server import listen, server_config

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n"
TEXTS = ["one two three", "", "four five six seven eight nine ten " * 5, "Two, two!", "eleven 🙂"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_toys(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Server]:
    with serve(exported) as server:
        yield server
        assert server.process.poll() is None  # whatever the tests did


# --- predictions ---


def test_predictions_are_the_committees(server: Server) -> None:
    committee = Committee(toys())
    status, response, _ = server.request("/predict", {"texts": TEXTS})
    assert status == 200
    predictions = response["predictions"]
    assert [prediction["label"] for prediction in predictions] == committee.predict(TEXTS)
    assert [prediction["labels"] for prediction in predictions] == [[x] for x in committee.predict(TEXTS)]
    got = [
        [prediction["probabilities"][name] for name in committee.label_names] for prediction in predictions
    ]
    np.testing.assert_allclose(got, committee.predict_proba(TEXTS), atol=1e-4)
    assert all(
        list(p["probabilities"].values()) == sorted(p["probabilities"].values())[::-1] for p in predictions
    )
    assert all(prediction["details"] is None for prediction in predictions)
    assert response["milliseconds"] > 0


def test_several_labels_per_text(tmp_path: Path) -> None:
    """With thresholds amid the probabilities, texts have different numbers of labels."""
    members = toys()[:1]
    thresholds = np.percentile(Committee(members, thresholds=np.ones(3)).predict_proba(TEXTS), 60, axis=0)
    committee = Committee(members, thresholds=thresholds)
    reached = committee.predict_proba(TEXTS) >= thresholds
    expected = [np.array(committee.label_names)[row].tolist() for row in reached]
    assert len({len(labels) for labels in expected}) > 1
    save_counted(committee, tmp_path / "committee")
    with serve(tmp_path / "committee") as server:
        status, response, _ = server.request("/predict", {"texts": TEXTS, "details": True})
    assert status == 200
    assert [prediction["labels"] for prediction in response["predictions"]] == expected
    for prediction, row in zip(response["predictions"], committee.predict_proba(TEXTS), strict=True):
        got = [prediction["probabilities"][name] for name in committee.label_names]
        np.testing.assert_allclose(got, row, atol=1e-4)
        assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)


def test_columns_are_joined_as_in_the_fit(tmp_path: Path) -> None:
    folder = export_toys(tmp_path)
    path = folder / "tinylm-onnx.json"
    decision = json.loads(path.read_text(encoding="utf-8"))
    assert decision["text_columns"] is None  # the toys were fitted on no table
    path.write_text(json.dumps(decision | {"text_columns": ["three", "one"]}), encoding="utf-8")
    columns = {"one": "one two", "empty": " ", "three": "three"}
    with serve(folder) as server:
        _, response, _ = server.request("/predict", {"texts": [columns, "three one two", "one two three"]})
    joined, same, other = response["predictions"]
    assert joined == same != other


def test_labels_that_are_numbers(tmp_path: Path) -> None:
    folder = export_toys(tmp_path)
    path = folder / "tinylm-onnx.json"
    decision = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(decision | {"label_names": [3, 10, 7]}), encoding="utf-8")
    with serve(folder) as server:
        _, response, _ = server.request("/predict", {"text": "one two", "details": True})
    (found,) = response["predictions"]
    assert found["labels"] == [found["label"]] and found["label"] in [3, 10, 7]
    assert str(found["label"]) == next(iter(found["probabilities"]))
    assert all(vote["label"] in [3, 10, 7] for vote in found["details"]["members"])


def test_details_tell_votes_and_tokens(server: Server) -> None:
    text = "seven 🙂 one " + "two " * 60
    _, response, _ = server.request("/predict", {"text": text, "details": True})
    details = response["predictions"][0]["details"]
    for vote, member in zip(details["members"], toys(), strict=True):
        alone = Committee([member] * 3)  # as if all said the same
        assert vote["member"] == member.config.name
        assert vote["label"] == alone.predict([text])[0]
        assert vote["probability"] == pytest.approx(float(alone.predict_proba([text]).max()), abs=1e-4)
    assert [text[start:end] for start, end in details["rare_tokens"]] == ["seven", "🙂"]
    ids = TOKENIZER.encode([text[: details["characters_read"]]], 32)[0]
    assert (len(ids), ids[1]) == (32, SEVEN)  # cut one character earlier, a token would be missing
    assert len(TOKENIZER.encode([text[: details["characters_read"] - 3]], 32)[0]) == 31


def test_health_schema_and_pages(server: Server) -> None:
    assert server.request("/healthz")[:2] == (200, {"status": "ok"})
    schema = server.request("/openapi.json")[1]
    assert set(schema["paths"]) == {"/predict", "/healthz", "/metrics"}
    assert {"200", "401", "413", "422", "503", "504"} <= set(schema["paths"]["/predict"]["post"]["responses"])
    for path in ("/", "/docs"):
        status, page, headers = server.request(path)
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    assert server.request("/nothing-here")[0] == 404
    assert server.request("/predict")[0] == 405


def test_metrics_count_requests_and_batches(server: Server) -> None:
    def figure(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", server.request("/metrics")[1], re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    served, missing = (
        f'tinylm_requests_total{{path="{path}",status="{status}"}}'
        for path, status in (("/predict", 200), ("other", 404))
    )
    names = (served, missing, "tinylm_batch_texts_sum", 'tinylm_request_seconds_count{path="/predict"}')
    before = [figure(name) for name in names]
    server.request("/predict", {"texts": ["one"] * 7})
    server.request("/a/path/of/no/meaning")
    assert [figure(name) for name in names] == [before[0] + 1, before[1] + 1, before[2] + 7, before[3] + 1]


# --- bad requests ---

BAD = {
    b"": "Invalid JSON: EOF",
    b"{": "Invalid JSON: EOF while parsing an object",
    b"[]": "should be an object",
    b"3": "should be an object",
    b"{}": "give either text or texts",
    b'{"text": "one", "texts": ["two"]}': "give either text or texts",
    b'{"text": 3}': "at text: Input should be a valid string",
    b'{"texts": ["one", null]}': "at texts.1: Input should be a valid string",
    b'{"texts": []}': "at texts: List should have at least 1 item",
    b'{"texts": "one"}': "at texts: Input should be a valid array",
    b'{"text": "one", "label": "red"}': "at label: Extra inputs are not permitted",
    b'{"text": "\xff"}': "Invalid JSON: invalid unicode code point",
    b"\xff\xfe\x00": "Invalid JSON",
    b'{"text": "\\ud800"}': "Invalid JSON",
    b"[" * 900_000: "Invalid JSON: recursion limit exceeded",
    b'{"text": ' + b"9" * 900_000 + b"}": "Invalid JSON: number out of range",
    b"\x00" * 1000: "Invalid JSON",
    json.dumps({"texts": ["one"] * 257}).encode(): "257 texts were given; at most 256",
    json.dumps({"texts": ["one", "x" * 20_001]}).encode(): "Text 2 has 20,001 characters; at most 20,000",
}


@pytest.mark.parametrize("body", BAD, ids=lambda body: repr(body[:32]))
def test_a_bad_body_is_explained(server: Server, body: bytes) -> None:
    status, response, _ = server.request("/predict", body)
    assert status == 422
    assert BAD[body] in response["detail"]
    assert len(response["detail"]) < 300


def test_the_largest_request_that_is_allowed_is_served(server: Server) -> None:
    assert server.request("/predict", {"texts": ["one"] * 256})[0] == 200
    assert server.request("/predict", {"texts": ["x " * 10_000]})[0] == 200


@pytest.mark.parametrize("size", [(1 << 20) + 1, 5 << 20])
def test_a_body_too_large_is_refused(server: Server, size: int) -> None:
    status, response, _ = server.request("/predict", b'{"text": "' + b"x" * size)
    assert (status, response["detail"]) == (
        413,
        "The body has more than 1,048,576 bytes, which is the most that is allowed.",
    )


def exchange(server: Server, *parts: bytes, pause: float = 0.0) -> bytes:
    """What comes back on a connection of its own, until the server closes it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(1 << 16):
                received += chunk
    return received


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
    ],
    ids=["no-http", "bad-length", "endless-path", "endless-head"],
)
def test_what_is_no_http_is_refused(server: Server, head: bytes) -> None:
    assert exchange(server, head).startswith(b"HTTP/1.1 400")
    assert server.label("one")


def test_a_client_that_goes_away_in_the_middle_harms_nobody(server: Server) -> None:
    for sent in (b"POST /pre", HEAD % 100, HEAD % 100 + b'{"text"', HEAD % 15 + b'{"text": "one"}'):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(sent)
    assert server.label("one") == Committee(toys()).predict(["one"])[0]


# --- slow, many, too many ---


def test_slow_clients_are_sent_away(exported: Path) -> None:
    with serve(exported, limits="header_seconds=0.5, body_seconds=0.5") as server:
        began = time.monotonic()
        assert exchange(server) == b""  # connects and says nothing
        # A byte now and then does not put the end off, neither in a head nor in a body.
        drops = [b"GET / HTTP/1.1\r\n", *[b"A: b\r\n"] * 4]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            assert exchange(server, *drops, pause=0.2) == b""
        after_a_response = exchange(
            server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /hea", pause=0.2
        )
        assert after_a_response.count(b"HTTP/1.1 200") == 1
        response = exchange(server, HEAD % 100 + b'{"text":')
        assert response.startswith(b"HTTP/1.1 408")
        assert b"did not arrive within 0.5 seconds" in response
        assert time.monotonic() - began < 15  # uvicorn alone would wait for ever
        assert server.label("one")


def test_a_client_that_does_not_take_its_response_is_left(exported: Path) -> None:
    with serve(exported, limits="response_seconds=1") as server:
        body = json.dumps({"texts": ["seven " * 29] * 256, "details": True}).encode()  # a response of 160 kB
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(HEAD % len(body) + body)
            while 'requests_total{path="/predict",status="200"} 1' not in server.request("/metrics")[1]:
                time.sleep(0.1)
            time.sleep(1.5)  # the response has begun by now; it is given up after a second
            received = b""
            while chunk := connection.recv(1 << 20):
                received += chunk
        head, response = received.split(b"\r\n\r\n", 1)
        length = re.search(rb"content-length: (\d+)", head)
        assert length
        came, whole = len(response), int(length.group(1))
        assert 0 < came < whole  # what was on its way; the rest was thrown away
        assert server.label("one")


def test_a_response_that_takes_too_long_is_given_up(exported: Path) -> None:
    with serve(exported, limits="response_seconds=0.001") as server:
        status, response, _ = server.request("/predict", {"texts": ["one two three"] * 256})
        assert (status, response["detail"]) == (
            504,
            "There was no response within 0.001 seconds; try again later.",
        )
        assert server.process.poll() is None


def test_more_than_the_queue_holds_is_put_off(exported: Path) -> None:
    with serve(exported, limits="waiting_texts=10") as server:
        status, response, headers = server.request("/predict", {"texts": ["one"] * 11})
        assert (status, headers["retry-after"]) == (503, "1")
        assert "try again later" in response["detail"]
        assert server.request("/predict", {"texts": ["one"] * 10})[0] == 200


def test_what_has_waited_for_too_long_is_put_off(exported: Path) -> None:
    many = {"texts": ["one two three"] * 256}
    with serve(exported, "--longest-wait", "0.001") as server, ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(lambda body: server.request("/predict", body), [many] * 40))
        assert {status for status, _, _ in responses} == {200, 503}
        late = next(response for response in responses if response[0] == 503)
        assert "the texts have waited for too long; try again later" in late[1]["detail"]
        assert late[2]["retry-after"] == "1"


def test_bodies_that_fill_the_memory_are_put_off(exported: Path) -> None:
    with serve(exported, limits="held_bytes=1000") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as waiting:
            waiting.sendall(HEAD % 1000 + b" " * 900)
            time.sleep(0.3)
            status, response, headers = server.request("/predict", b" " * 101)
            assert (status, headers["retry-after"]) == (503, "1")
            assert "Too many requests" in response["detail"]
        time.sleep(0.3)
        assert (
            server.request("/predict", {"text": "one" + " " * 500})[0] == 200
        )  # given back when the other left


@pytest.mark.slow
def test_ten_thousand_at_once(exported: Path) -> None:
    """Each request gets a prediction or a 503, none is lost, and the server keeps running."""
    count, hard = 10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < count + 100:
        pytest.skip(f"this process may open {hard:,} files, fewer than {count:,} connections")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    body = b'{"text": "one two three"}'
    everyone = asyncio.Event()
    connected = 0

    async def client(port: int) -> bytes:
        nonlocal connected
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        connected += 1
        if connected == count:
            everyone.set()
        await everyone.wait()
        writer.write(HEAD.replace(b"keep-alive", b"close") % len(body) + body)
        response = await reader.read()
        writer.close()
        return response

    async def clients(port: int) -> list[bytes]:
        return await asyncio.gather(*(client(port) for _ in range(count)))

    # All connect before the first sends: on a busy machine that takes longer than the usual limits.
    patient = "header_seconds=600, body_seconds=600, response_seconds=600, waiting_seconds=600"
    try:
        with serve(exported, limits=patient) as server:
            responses = asyncio.run(clients(server.port))
            assert server.label("one")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    good = sum(response.startswith(b"HTTP/1.1 200") for response in responses)
    put_off = sum(response.startswith(b"HTTP/1.1 503") for response in responses)
    assert good + put_off == count
    assert good >= Limits.waiting_texts


# --- the end ---


def test_nothing_in_flight_is_lost_when_the_server_stops(exported: Path) -> None:
    with serve(exported) as server:
        text = "one two three"
        (label,) = Committee(toys()).predict([text])
        body = json.dumps({"texts": [text] * 150}).encode()
        quick, slow, late = (socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(3))
        waiting = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(20)]
        for connection in waiting:
            connection.sendall(HEAD % len(body) + body)
        slow.sendall(HEAD % len(body) + body[:100])  # half a request
        quick.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while not received.endswith(b"}"):  # head and body may come one after the other
            received += quick.recv(1 << 16)
        assert received.startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        late.sendall(HEAD % len(body) + body)  # it had connected in time
        slow.sendall(body[100:])
        for connection in (*waiting, slow, late):
            received = b""
            while chunk := connection.recv(1 << 16):
                received += chunk
            head, response = received.split(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert [p["label"] for p in json.loads(response)["predictions"]] == [label] * 150
        assert quick.recv(1) == b""  # idle, so closed
        assert server.process.wait(10) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))


def test_a_connection_that_nobody_has_met_yet_is_served_when_the_server_stops(exported: Path) -> None:
    async def stop_at_once() -> bytes:
        listener = listen("127.0.0.1", 0)
        config = server_config(create_app(load_onnx(exported)), Limits())
        server = Uvicorn(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        # Without an await in between, the event loop does not see them.
        waiting = [socket.create_connection(listener.getsockname(), 20) for _ in range(3)]
        waiting[0].sendall(HEAD % 15 + b'{"text": "one"}')
        waiting[1].sendall(HEAD % 15)
        stopping = asyncio.create_task(server.shutdown([listener]))
        await asyncio.sleep(0.2)
        waiting[1].sendall(b'{"text": "one"}')
        await stopping
        assert waiting[2].recv(1) == b""  # it said nothing
        return waiting[0].recv(1 << 16) + waiting[1].recv(1 << 16)

    assert asyncio.run(stop_at_once()).count(b"HTTP/1.1 200") == 2


def test_an_interrupt_ends_it_too(exported: Path) -> None:
    with serve(exported) as server:
        assert server.label("one")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0


# --- connections that stay, and pages of other servers ---


def test_a_connection_outlives_those_of_proxies(exported: Path) -> None:
    seconds = server_config(create_app(load_onnx(exported)), Limits()).timeout_keep_alive
    assert seconds > 60  # the default of nginx and of most load balancers
    with (
        serve(exported, "--keep-alive", "1") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
    ):
        for _ in range(2):  # the second request comes on the same connection
            connection.sendall(HEAD % 15 + b'{"text": "one"}')
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(1 << 16)
            assert received.startswith(b"HTTP/1.1 200")
        assert connection.recv(1 << 16) == b""  # closed after a second without a request


PREFLIGHT = {"origin": "https://www.example.org", "access-control-request-method": "POST"}


def test_pages_of_other_origins_are_not_allowed_by_default(server: Server) -> None:
    status, _, headers = server.request("/predict", headers=PREFLIGHT, method="OPTIONS")
    assert (status, headers["access-control-allow-origin"]) == (405, None)
    headers = server.request("/predict", {"text": "one"}, PREFLIGHT)[2]
    assert headers["access-control-allow-origin"] is None


def test_pages_of_an_allowed_origin_may_send_requests(exported: Path) -> None:
    origin = PREFLIGHT["origin"]
    wanted = PREFLIGHT | {"access-control-request-headers": "authorization,content-type"}
    options = ("--allow-origin", origin, "--allow-origin", "http://localhost:5173")
    with serve(exported, *options, environment={"TINYLM_TOKEN": "open-sesame"}) as server:
        status, _, headers = server.request("/predict", headers=wanted, method="OPTIONS")
        assert (status, headers["access-control-allow-origin"]) == (200, origin)
        assert "authorization" in headers["access-control-allow-headers"]
        # A page can also read why it was refused.
        status, _, headers = server.request("/predict", {"text": "one"}, {"origin": origin})
        assert (status, headers["access-control-allow-origin"]) == (401, origin)
        shown = {"origin": origin, "authorization": "Bearer open-sesame"}
        status, _, headers = server.request("/predict", b" " * ((1 << 20) + 1), shown)
        assert (status, headers["access-control-allow-origin"]) == (413, origin)
        status, _, headers = server.request("/predict", {"text": "one"}, shown)
        assert (status, headers["access-control-allow-origin"]) == (200, origin)
        other = {**wanted, "origin": "https://elsewhere.example.org"}
        status, _, headers = server.request("/predict", headers=other, method="OPTIONS")
        assert (status, headers["access-control-allow-origin"]) == (400, None)


# --- tokens ---


@pytest.mark.parametrize("from_file", [True, False])
def test_a_token_is_asked_for(exported: Path, tmp_path: Path, from_file: bool) -> None:
    (tmp_path / "token").write_text("open-sesame\n")
    options = ("--token-file", str(tmp_path / "token")) if from_file else ()
    environment = {"TINYLM_TOKEN": "not-this" if from_file else "open-sesame"}
    with serve(exported, *options, environment=environment) as server:
        for headers in (
            {},
            {"authorization": "Bearer not-this"},
            {"authorization": "Bearer open-sesame2"},
            {"authorization": "Bearer \xe9"},
            {"authorization": "Basic open-sesame"},
        ):
            status, response, sent = server.request("/predict", {"text": "one"}, headers)
            assert (status, sent["www-authenticate"]) == (401, "Bearer")
            assert "open-sesame" not in response["detail"]
            assert server.request("/metrics", headers=headers)[0] == 401
        shown = {"authorization": "Bearer open-sesame"}
        assert server.request("/predict", {"text": "one"}, shown)[0] == 200
        assert server.request("/metrics", headers=shown)[0] == 200
        assert [server.request(path)[0] for path in ("/", "/docs", "/healthz")] == [200, 200, 200]


def test_a_committee_folder_is_served_as_it_is(tmp_path: Path) -> None:
    save_counted(Committee(toys()[:1]), tmp_path / "committee")
    with serve(tmp_path / "committee") as server:
        assert server.label("one two") == Committee(toys()[:1]).predict(["one two"])[0]


# --- mistakes on the command line ---


def test_mistakes_end_with_a_sentence(exported: Path, tmp_path: Path) -> None:
    for origin in ("www.example.org", "https://www.example.org/page", "ftp://example.org"):
        said = refused(tinylm("serve --port 0 --allow-origin", origin, exported))
        assert f"--allow-origin was {origin!r}; expected an origin such as https://" in said
    assert "--keep-alive" in refused(tinylm("serve --port 0 --keep-alive 0", exported))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1, port {port}" in refused(tinylm(f"serve --port {port}", exported))
    assert "cannot listen on 192.0.2.1" in refused(tinylm("serve --host 192.0.2.1 --port 0", exported))
    assert "no/model is not a folder" in refused(tinylm("serve no/model --port 0"))
    assert "--port" in refused(tinylm("serve --port 70000", exported))
    for content in (b"", b" \n", b"two words", "ключ".encode()):
        (tmp_path / "token").write_bytes(content)
        said = refused(tinylm("serve --port 0 --token-file", tmp_path / "token", exported))
        assert f"{tmp_path / 'token'} holds no token" in said
    (tmp_path / "token").write_bytes(b"\xff")
    assert "is not UTF-8" in refused(tinylm("serve --port 0 --token-file", tmp_path / "token", exported))
    (exported / "model.onnx").rename(tmp_path / "model.onnx")
    (exported / "model.onnx").write_bytes(b"no graph")
    assert "model.onnx is missing or damaged" in refused(tinylm("serve --port 0", exported))
    (tmp_path / "model.onnx").replace(exported / "model.onnx")


# --- batches ---


def test_requests_that_wait_are_computed_together() -> None:
    sizes: list[int] = []
    waiting: list[int] = []
    busy = threading.Event()

    def work(questions: list[int]) -> list[int]:
        busy.wait(5)
        if 13 in questions:
            raise ZeroDivisionError
        return [question * question for question in questions]

    async def predict() -> None:
        batcher = Batcher[int, int](work, 4, 8, 600, sizes.append, waiting.append)
        worker = asyncio.create_task(batcher.run())
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.05)  # it is being computed
        others = [asyncio.create_task(batcher.submit(numbers)) for numbers in ([2], [3, 4], [5], [6])]
        gone = asyncio.create_task(batcher.submit([7]))
        await asyncio.sleep(0.05)
        assert batcher.waiting == waiting[-1] == 6
        with pytest.raises(OverloadError):
            await batcher.submit([8, 9, 10])
        gone.cancel()
        busy.set()
        assert [await task for task in (first, *others)] == [[1], [4], [9, 16], [25], [36]]
        with pytest.raises(ZeroDivisionError):
            await batcher.submit([13])
        assert await batcher.submit([2, 3]) == [4, 9]  # one failure ends nothing
        assert batcher.waiting == waiting[-1] == 0
        worker.cancel()

    asyncio.run(predict())
    assert sizes == [1, 4, 1, 1, 2]


def test_requests_are_computed_together_as_long_as_none_waits_too_long_for_the_others(monkeypatch) -> None:
    sizes: list[int] = []
    clock = [0.0]
    seconds_each = iter([1, 0.5, 3, 1, 1, 1])

    def work(questions: list[int]) -> list[int]:
        clock[0] += next(seconds_each) * len(questions)
        return questions

    async def predict() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
        batcher = Batcher[int, int](work, 64, 600, 10, sizes.append, print)  # ten seconds are allowed
        worker = asyncio.create_task(batcher.run())
        for requests in ([8], [4, 4, 4], [2, 2], [16]):
            await asyncio.gather(*(batcher.submit([0] * size) for size in requests))
        worker.cancel()

    asyncio.run(predict())
    # A second for each is known: two of 4 fit. Then three seconds: two of 2 do not, and one of 16 is alone.
    assert sizes == [8, 8, 4, 2, 2, 16]


def test_a_request_that_has_waited_for_too_long_is_not_computed() -> None:
    computed: list[int] = []
    busy = threading.Event()

    def work(questions: list[int]) -> list[int]:
        busy.wait(5)
        computed.extend(questions)
        return questions

    async def predict() -> None:
        batcher = Batcher[int, int](work, 4, 8, 0.1, print, print)
        worker = asyncio.create_task(batcher.run())
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.01)
        late = asyncio.create_task(batcher.submit([2]))
        await asyncio.sleep(0.2)
        prompt = asyncio.create_task(batcher.submit([3]))
        await asyncio.sleep(0.01)
        busy.set()
        assert (await first, await prompt) == ([1], [3])
        with pytest.raises(OverloadError, match="waited"):
            await late
        assert batcher.waiting == 0
        worker.cancel()

    asyncio.run(predict())
    assert computed == [1, 3]

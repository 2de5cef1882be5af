"""The application: predictions over HTTP, and the page at `/`."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

import jinja2
import prometheus_client
from fastapi import Depends, FastAPI, HTTPException, Request, Response, Security
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client.multiprocess import MultiProcessCollector
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from tinylm.infer.predictor import Predictor, decide
from tinylm.serve.batcher import Batcher, OverloadError
from tinylm.serve.guard import Guard
from tinylm.serve.limits import Limits

# Browsers must load nothing from other servers, whatever a page may hold.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; connect-src 'self'; img-src data:;"
    " script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
}
BEARER = HTTPBearer(auto_error=False, description="Needed only if the server was started with a token.")


class PredictRequest(BaseModel):
    """One text or several; a text may be an object of columns, which are joined as in the fit."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"texts": ["The first text.", "Another."]}]}
    )

    text: str | dict[str, str] | None = Field(default=None, description="One text; instead of texts.")
    texts: list[str | dict[str, str]] | None = Field(
        default=None, min_length=1, description="Several texts; instead of text."
    )
    details: bool = Field(
        default=False, description="Also return the vote of each member and what the model read."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> PredictRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either text or texts")
        return self

    def all_texts(self, columns: Sequence[str] | None) -> list[str]:
        """The texts, in either form; `columns` are those of the fit, in their order."""
        texts = [self.text] if self.texts is None else self.texts
        return [_joined(text, columns) for text in texts if text is not None]


def _joined(text: str | dict[str, str], columns: Sequence[str] | None) -> str:
    """A text, or its columns joined with a space as those of a table are."""
    if isinstance(text, str):
        return text
    return " ".join(text[name] for name in columns or text if text.get(name, "").strip())


REQUEST_SCHEMA = PredictRequest.model_json_schema()
EXAMPLE = json.dumps(REQUEST_SCHEMA["examples"][0])


Label = str | int | float | bool


class Vote(BaseModel):
    """The label that one member predicts, and how probable it would be if all members had the same logits."""

    member: str
    label: Label
    probability: float


class Details(BaseModel):
    """How a prediction came about. Positions in the text are counted in Unicode characters."""

    members: list[Vote]
    characters_read: int = Field(
        description="The model read this many characters of the text and no further."
    )
    rare_tokens: list[tuple[int, int]] | None = Field(
        description="Start and end of each token that was rare in pre-training, or null if this is not known."
    )


class Prediction(BaseModel):
    """The prediction for one text."""

    label: Label = Field(description="The most probable label; a number where labels are numbers.")
    labels: list[Label] = Field(
        description="The predicted labels: the most probable one or, if a text may have several, all that"
        " reach their threshold."
    )
    probabilities: dict[str, float] = Field(
        description="The probability of every label, the most probable first."
    )
    details: Details | None = None


class PredictResponse(BaseModel):
    """The predictions for all texts, in their order."""

    predictions: list[Prediction]
    milliseconds: float = Field(description="Time from the arrival of the request to this response.")


class Problem(BaseModel):
    """Why there is no prediction."""

    detail: str


@dataclass(frozen=True)
class _Item:
    text: str
    details: bool


def create_app(
    classifier: Predictor,
    token: str | None = None,
    limits: Limits | None = None,
    allow_origins: Sequence[str] = (),
) -> ASGIApp:
    """The application for one committee.

    Args:
        classifier: the committee.
        token: needed for `/predict` and `/metrics` (`Authorization: Bearer ...`); None for none.
        limits: what a request may cost.
        allow_origins: web pages of other servers that may send requests, such as
            "https://www.example.org"; "*" for all.
    """
    limits = limits or Limits()
    registry = prometheus_client.CollectorRegistry()
    sizes = prometheus_client.Histogram(
        "tinylm_batch_texts", "Texts in a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
    )
    waiting = prometheus_client.Gauge(
        "tinylm_waiting_texts", "Texts in the queue", registry=registry, multiprocess_mode="livesum"
    )
    batcher = Batcher[_Item, Prediction](
        lambda items: _predict(classifier, items),
        limits.batch_texts,
        limits.waiting_texts,
        limits.waiting_seconds,
        sizes.observe,
        waiting.set,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()

    def authorise(shown: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]) -> None:
        given = shown.credentials if shown else ""
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(
                401,
                "This server needs a token: 'Authorization: Bearer TOKEN'.",
                {"www-authenticate": "Bearer"},
            )

    app = FastAPI(
        title="tinylm",
        summary=f"{len(classifier.member_names)} members, {len(classifier.label_names)} labels",
        version="1",
        docs_url=None,  # FastAPI's own pages load scripts from other servers
        redoc_url=None,
        lifespan=lifespan,
    )
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("tinylm.serve", "page"), autoescape=True, trim_blocks=True
    )
    start = resources.files("tinylm.serve").joinpath("page/index.html").read_text(encoding="utf-8")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": "The server failed; its log says why."}, 500)

    problems = {
        401: "The token is missing or wrong.",
        408: "The body took too long to arrive.",
        413: "The body is too large.",
        422: "The body is not valid.",
        503: "Too many texts are waiting, or for too long. Retry-After says when to try again.",
        504: "There was no prediction in time.",
    }

    @app.post(
        "/predict",
        dependencies=[Depends(authorise)],
        responses={status: {"model": Problem, "description": text} for status, text in problems.items()},
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": REQUEST_SCHEMA}}}
        },
    )
    async def predict(request: Request) -> PredictResponse:
        """Predict the label of one text or of several."""
        began = time.perf_counter()
        try:
            # Not as a parameter: FastAPI's own response to an invalid body may repeat what was sent.
            wanted = PredictRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise HTTPException(422, _sentence(error)) from None
        texts = wanted.all_texts(classifier.text_columns)
        if len(texts) > limits.texts:
            raise HTTPException(
                422, f"{len(texts):,} texts were given; at most {limits.texts:,} are allowed."
            )
        longest = max(range(len(texts)), key=lambda i: len(texts[i]))
        if (characters := len(texts[longest])) > limits.text_characters:
            sentence = f"Text {longest + 1} has {characters:,} characters; at most {limits.text_characters:,}"
            raise HTTPException(422, f"{sentence} are allowed.")
        try:
            predictions = await batcher.submit([_Item(text, wanted.details) for text in texts])
        except OverloadError as error:
            raise HTTPException(
                503, f"The server is overloaded: {error}; try again later.", {"retry-after": "1"}
            ) from None
        milliseconds = round(1000 * (time.perf_counter() - began), 2)
        return PredictResponse(predictions=list(predictions), milliseconds=milliseconds)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the server is running."""
        return {"status": "ok"}

    @app.get("/metrics", dependencies=[Depends(authorise)], response_class=Response)
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        counted = registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # of all workers
            MultiProcessCollector(counted := prometheus_client.CollectorRegistry())
        return Response(
            prometheus_client.generate_latest(counted), media_type=prometheus_client.CONTENT_TYPE_LATEST
        )

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(start, headers=PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        values = {"schema": app.openapi(), "example": EXAMPLE}
        template = pages.get_template("docs.html")
        return HTMLResponse(template.render(values, address=request.base_url), headers=PAGE_HEADERS)

    paths = frozenset(route.path for route in app.routes if hasattr(route, "path"))
    guarded = Guard(app, limits, paths, registry)
    if not allow_origins:
        return guarded
    # Outermost, so that a page can read refusals too.
    return CORSMiddleware(
        guarded,
        allow_origins=allow_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["retry-after"],
    )


def _predict(classifier: Predictor, items: Sequence[_Item]) -> list[Prediction]:
    logits = classifier.member_logits([item.text for item in items])
    probabilities = classifier.probabilities_of(logits.sum(0))
    decisions = decide(probabilities, classifier.thresholds)
    names, labels = classifier.label_names, classifier.labels
    predictions = []
    for number, item in enumerate(items):
        row = probabilities[number]
        order = row.argsort()[::-1]
        details = None
        if item.details:
            votes = classifier.probabilities_of(len(logits) * logits[:, number])
            characters_read, rare_tokens = classifier.read(item.text)
            details = Details(
                members=[
                    Vote(member=member, label=labels[vote.argmax()], probability=round(float(vote.max()), 6))
                    for member, vote in zip(classifier.member_names, votes, strict=True)
                ],
                characters_read=characters_read,
                rare_tokens=rare_tokens,
            )
        predictions.append(
            Prediction(
                label=labels[order[0]],
                labels=[labels[i] for i in decisions[number].nonzero()[0]],
                probabilities={names[i]: round(float(row[i]), 6) for i in order},
                details=details,
            )
        )
    return predictions


def _sentence(error: ValidationError) -> str:
    """One sentence about the first mistake in a body."""
    first = error.errors(include_input=False, include_url=False)[0]
    # Of what a text may be, the first stands for both: a string, or an object of strings.
    place = ".".join(str(part) for part in first["loc"] if part != "str")
    return f"The body{place and f', at {place}'}: {first['msg']}; expected {EXAMPLE}."

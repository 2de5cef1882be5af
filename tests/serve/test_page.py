"""The page at `/` in a real browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.serving import TOKENIZER, Server, export_toys, serve, toys
from tinylm.infer.committee import Committee

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
TEXT = "one two 🙂 seven three, seven"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(export_toys(tmp_path_factory.mktemp("page"))) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page as opened; a test fails if it, or a script of it, requests anything from another server."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    requested: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(server.url)
    yield page
    page.close()
    assert not [url for url in requested if not url.startswith((server.url, "data:"))]
    assert not errors


def test_the_label_appears_while_typing(page: Any) -> None:
    page.get_by_label("Text").press_sequentially(TEXT, delay=5)
    committee = Committee(toys())
    (label,) = committee.predict([TEXT])
    probabilities = dict(zip(committee.label_names, committee.predict_proba([TEXT])[0], strict=True))
    playwright.expect(page.locator("#decision")).to_have_text(f"Label{label}")
    playwright.expect(page.get_by_role("status")).to_have_text(f"{label} {_percent(probabilities[label])}")

    rows = page.get_by_role("table", name="Probability of each label").get_by_role("row")
    ordered = sorted(probabilities, key=probabilities.__getitem__, reverse=True)
    shown = [re.sub(r"\s+", " ", text).strip() for text in rows.all_inner_texts()]
    assert shown == [f"{name} {_percent(probabilities[name])}" for name in ordered]
    for name, track in zip(ordered, page.locator(".track").all(), strict=True):
        share = track.locator("div").bounding_box()["width"] / track.bounding_box()["width"]
        assert share == pytest.approx(probabilities[name], abs=0.02)

    votes = page.locator("#members tbody tr").all_inner_texts()
    assert len(votes) == 3
    for vote, member in zip(votes, toys(), strict=True):
        assert member.config.name in vote
        assert Committee([member]).predict([TEXT])[0] in vote
    assert re.search(r"\d+\.\d ms in the server, \d+ ms", page.locator("#time").inner_text())


def test_rare_tokens_are_marked_and_what_is_not_read_is_struck_out(page: Any) -> None:
    page.get_by_label("Text").fill(TEXT + " one" * 40)
    playwright.expect(page.locator("#reading mark")).to_have_text(["🙂", "seven", "seven"])
    read = TOKENIZER.encode([TEXT + " one" * 40], 32)[0]
    unread = " one" * (40 - (read == TOKENIZER.vocab.index("one")).sum() + 1)
    assert page.locator("#reading .unread").inner_text().split() == unread.split()
    page.get_by_label("Text").fill("one two")
    playwright.expect(page.locator("#rare-note")).to_have_text(
        "Pre-training met every token of this text several times."
    )
    assert page.locator("#reading mark").count() == 0


def test_markup_in_a_text_stays_text(page: Any) -> None:
    text = "<img src=x onerror=alert(1)> <b>one</b>"
    page.get_by_label("Text").fill(text)
    playwright.expect(page.locator("#reading")).to_have_text(text)
    assert page.locator("#reading img, #reading b").count() == 0


def test_an_emptied_field_hides_the_result(page: Any) -> None:
    page.get_by_label("Text").fill("one")
    playwright.expect(page.locator("#result")).to_be_visible()
    page.get_by_label("Text").fill("  ")
    playwright.expect(page.locator("#result")).to_be_hidden()


def test_keys_alone_reach_everything(page: Any) -> None:
    """The field has the focus from the start; no other element needs a pointer."""
    page.keyboard.type("one two three")
    playwright.expect(page.locator("#result")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "reading"


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("desktop", 1280, "light"), ("phone", 390, "light"), ("phone-dark", 390, "dark")],
)
def test_it_fits_the_screen(page: Any, name: str, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    page.get_by_label("Text").fill(TEXT)
    playwright.expect(page.locator("#result")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_the_page_for_programs_needs_nothing_else(page: Any, server: Server) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(server.url + "/docs")
    assert page.get_by_role("heading", name="POST /predict").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=SCREENSHOTS / "docs-phone.png", full_page=True)


def test_a_server_that_is_gone_is_said(browser: Any, server: Server) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.route("**/predict", lambda route: route.abort())
    page.get_by_label("Text").fill("one")
    playwright.expect(page.get_by_role("alert")).to_have_text(
        "The server does not respond. Is it still running?"
    )
    page.close()


def test_a_token_is_asked_for_and_remembered(browser: Any, tmp_path: Path) -> None:
    with serve(export_toys(tmp_path), environment={"TINYLM_TOKEN": "open-sesame"}) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_label("Text").fill("one")
        playwright.expect(page.get_by_role("alert")).to_contain_text("needs a token")
        page.get_by_label("Token").fill("open-sesame")
        playwright.expect(page.locator("#result")).to_be_visible()
        page.reload()
        page.get_by_label("Text").fill("two")
        playwright.expect(page.locator("#result")).to_be_visible()
        page.close()


def _percent(share: float) -> str:
    if share > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"

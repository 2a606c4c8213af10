"""The studio in a browser: Chromium of the system, driven by Playwright. Skipped where there is none.

STUDIO_SHOTS=folder keeps a screenshot of every state.
"""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest
import toy_studio

import outgen_jax as og

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("uvicorn")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"wide": (1280, 860), "narrow": (390, 844)}
# Of numbers whose bars end at -2 and 2.
CARD = {"output_scale": 0.5, "output_range": [[-2, 2]] * 4}
PATIENCE = 60_000  # ms; steps take far less on a machine with nothing else to do


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}; apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # Chromium has no sandbox for root.
        options = [] if os.geteuid() else ["--no-sandbox"]
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server():
    many = toy_studio.network(50)
    many = dataclasses.replace(many, name="many")
    numbers = toy_studio.network(output=og.outputs.values(), card=CARD)
    numbers = dataclasses.replace(numbers, name="numbers")
    catalogue = toy_studio.catalogue(toy=toy_studio.network(), many=many, numbers=numbers)
    with toy_studio.served(catalogue) as found:
        yield found


@pytest.fixture
def window(browser, server):
    """`window(size)` opens the studio; no script may fail, and nothing may be asked for elsewhere."""
    contexts, failures = [], []

    def open_window(size: str = "wide", scheme: str = "light"):
        width, height = WIDTHS[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((server.address, "data:")) or failures.append(request.url)
            ),
        )
        page.goto(server.address)
        page.get_by_text("Ready. Drag the bars").wait_for()
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert failures == []


def shot(page, name: str) -> None:
    folder = os.environ.get("STUDIO_SHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def wanted(page) -> list[float]:
    return [float(box.input_value()) for box in page.locator("#bars [type=number]").all()]


def run(page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Reached within").wait_for()
    sync_api.expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize(
    ("size", "scheme"), [("wide", "light"), ("narrow", "dark"), ("wide", "dark")]
)
def test_a_target_is_reached_and_saved(window, size, scheme, tmp_path):
    page = window(size, scheme)
    shot(page, f"{size}_{scheme}_rest")
    page.get_by_label("ship, wanted, in percent").fill("70")
    page.get_by_label("ship, wanted, in percent").press("Tab")
    sync_api.expect(page.get_by_label("ship, wanted", exact=True)).to_have_value("70")
    assert sum(wanted(page)) == pytest.approx(100)
    source = page.locator("#result").get_attribute("src")
    run(page)
    shot(page, f"{size}_{scheme}_done")
    assert page.locator("#result").get_attribute("src") != source
    assert "×" in page.locator("#factor").inner_text()
    text = page.get_by_label("ship, wanted", exact=True).get_attribute("aria-valuetext")
    assert "the network says 7" in text or "the network says 69.9" in text
    for button, start in (("Save PNG", b"\x89PNG"), ("Save JSON", b"{")):
        with page.expect_download() as download:
            page.get_by_role("link", name=button).click()
        download.value.save_as(tmp_path / "saved")
        assert (tmp_path / "saved").read_bytes().startswith(start)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"


def test_the_keyboard_is_enough(window):
    page = window()
    slider = page.get_by_label("dog, wanted", exact=True)
    before = float(slider.input_value())
    slider.focus()
    page.keyboard.press("ArrowLeft" if before > 50 else "ArrowRight")
    page.wait_for_timeout(300)
    assert abs(float(slider.input_value()) - before) == pytest.approx(1, abs=0.6)
    moved = wanted(page)
    lock = page.get_by_role("button", name="Lock dog")
    lock.focus()
    page.keyboard.press("Space")
    sync_api.expect(lock).to_have_attribute("aria-pressed", "true")
    sync_api.expect(slider).to_be_disabled()
    page.get_by_label("cat, wanted, in percent").fill("100")
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    page.wait_for_timeout(300)
    assert wanted(page)[1] == moved[1]
    page.get_by_role("button", name="Run", exact=True).focus()
    for _ in range(3):  # the number, the lock, the bar
        page.keyboard.press("Control+z")
        page.wait_for_timeout(300)
    sync_api.expect(slider).to_be_enabled()
    assert float(slider.input_value()) == pytest.approx(before)


def test_no_last_move_is_lost_when_another_bar_moves(window):
    """The first bar is let go and the second moved before the server has answered."""
    page = window()
    page.evaluate(
        """async () => {
        const ends = [0, 1].map((place) => document.getElementById("bars").children[place]);
        const [first, second] = ends.map((row) => row.querySelector("[type=range]"));
        const set = (range, value, kind) => {
          range.value = value;
          range.dispatchEvent(new Event(kind));
        };
        for (const value of [70, 60, 50]) set(first, value, "input");
        set(first, 40, "change");
        set(second, 30, "change");
        }"""
    )
    sync_api.expect(page.get_by_label("dog, wanted", exact=True)).to_have_value("30")
    page.get_by_role("button", name="Undo").click()
    sync_api.expect(page.get_by_label("cat, wanted", exact=True)).to_have_value("40")


def test_every_control_has_a_name(window):
    page = window()
    page.get_by_text("The equivalent Python").click()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, a, img")].filter((e) =>
        e.checkVisibility() && !(e.ariaLabel || e.alt || e.innerText || e.labels?.length
        || e.querySelector?.("img[alt]") || e.getAttribute("alt") === "")).map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.locator("main h2").count() == 2
    assert "og.synthesize(" in page.locator("#python").inner_text()


def test_bad_files_get_a_message_and_nothing_breaks(window):
    page = window()

    def choose(name: str, content: bytes) -> None:
        page.locator("#file").set_input_files(
            {"name": name, "mimeType": "image/png", "buffer": content}
        )

    for name, content, message in (
        ("text.png", b"hello", "This is no image"),
        ("bomb.png", toy_studio.bomb(), "million can be used"),
        ("dot.png", toy_studio.image_file(size=(1, 1)), "only 1 × 1 pixels"),
        ("moving.gif", toy_studio.animation(), "first frame"),
        ("print.jpg", toy_studio.image_file("CMYK", kind="JPEG"), "CMYK"),
    ):
        choose(name, content)
        sync_api.expect(page.get_by_role("alert")).to_contain_text(message)
        shot(page, f"upload_{name}")
    page.evaluate(
        """() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["hello"], "dropped.png"));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }"""
    )
    sync_api.expect(page.get_by_role("alert")).to_contain_text("This is no image")
    page.get_by_label("cat, wanted, in percent").fill("60")
    page.keyboard.press("Tab")
    run(page)


def test_a_run_can_be_stopped(window, monkeypatch):
    from outgen_jax.studio import app

    page = window()
    monkeypatch.setattr(app, "solve", toy_studio.Endless())
    page.get_by_role("button", name="Run", exact=True).click()
    sync_api.expect(page.locator("#distance")).to_have_text("0.50")
    sync_api.expect(page.get_by_role("combobox", name="Network")).to_be_disabled()
    shot(page, "running")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Not reached").wait_for()
    sync_api.expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def test_two_windows_are_apart(window):
    first, second = window(), window("narrow")
    for page, name in ((first, "cat"), (second, "frog")):
        page.get_by_label(f"{name}, wanted, in percent").fill("90")
        page.keyboard.press("Tab")
        sync_api.expect(page.get_by_label(f"{name}, wanted", exact=True)).to_have_value("90")
    for page in (first, second):
        page.get_by_role("button", name="Run", exact=True).click()
    for page, place in ((first, 0), (second, 3)):
        page.get_by_text("Reached within").wait_for()
        assert wanted(page)[place] == 90


def test_classes_of_many_are_searched_for(window):
    page = window()
    page.get_by_role("combobox", name="Network").select_option("many")
    page.get_by_label("Add a class").fill("class 42")
    page.get_by_role("button", name="Add").click()
    page.get_by_label("class 42, wanted, in percent").fill("50")
    page.keyboard.press("Tab")
    page.get_by_text("Ready. Drag the bars").wait_for()
    run(page)
    shot(page, "many")
    assert "class 42" in page.locator("#top").inner_text()
    page.get_by_role("button", name="Remove class 42").click()
    sync_api.expect(page.get_by_label("class 42, wanted", exact=True)).to_have_count(0)


@pytest.mark.parametrize(
    ("size", "scheme"),
    [("wide", "light"), ("wide", "dark"), ("narrow", "light"), ("narrow", "dark")],
)
def test_numbers_are_free_until_they_are_moved_or_checked(window, size, scheme):
    page = window(size, scheme)
    expect = sync_api.expect
    page.get_by_role("combobox", name="Network").select_option("numbers")
    page.get_by_text("All numbers are free").wait_for()
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    shot(page, f"numbers_{size}_{scheme}_rest")
    field = page.get_by_label("ship, wanted, as a number")
    slider = page.get_by_label("ship, wanted", exact=True)
    check = page.get_by_label("Prescribe ship")
    expect(field).to_have_value("")
    expect(check).not_to_be_checked()
    before = float(slider.input_value())
    slider.focus()
    page.keyboard.press("ArrowLeft" if before > 0 else "ArrowRight")
    expect(check).to_be_checked()
    coarse = -0.1 if before > 0 else 0.1
    assert float(field.input_value()) == pytest.approx(round(before / 0.1) * 0.1 + coarse, abs=1e-6)
    field.fill("2.625")  # beyond the end of the bar, and between its steps
    page.keyboard.press("Tab")
    page.get_by_text("Ready. Drag the bars").wait_for()
    expect(slider).to_have_value("2")
    run(page)
    shot(page, f"numbers_{size}_{scheme}_done")
    row = page.locator(".bar", has=slider)
    assert float(row.locator(".says").inner_text()) == pytest.approx(2.625, abs=2e-3)
    expect(slider).to_have_attribute(
        "aria-valuetext", re.compile("2.625 wanted, the network says 2.62")
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"
    page.get_by_label("dog, wanted, as a number").fill("1")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Prescribe dog")).to_be_checked()
    check.focus()
    page.keyboard.press("Space")
    expect(field).to_have_value("")
    page.keyboard.press("Control+z")  # the box
    expect(field).to_have_value("2.625")
    field.fill("")
    page.keyboard.press("Tab")
    expect(check).not_to_be_checked()
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^free, the network says"))
    expect(page.locator("#python")).to_contain_text("dog=1.0")

"""Makes docs/guide/studio.png: the studio with the shipped CIFAR-10 classifier and scikit-image's cat.

Command   python docs/_ext/studio_screenshot.py
Needs     the package with [dev], and Chromium
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

from toy_studio import served  # noqa: E402

from outgen_jax import files, scripts  # noqa: E402
from outgen_jax.studio import networks  # noqa: E402

SIZE = {"width": 1280, "height": 780}
COLOURS = 200
TIMEOUT = 600_000  # ms


def main() -> None:
    """Writes the picture."""
    scripts.enable_compilation_cache()
    catalogue = networks.offered()
    catalogue.prepare(catalogue.names[0])
    with served(catalogue) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(TIMEOUT)
        page.goto(server.address)
        page.get_by_title("Chelsea").click()
        for name, percent in (("dog", "30"), ("ship", "60")):
            page.get_by_label(f"{name}, wanted, in percent").fill(percent)
            page.keyboard.press("Tab")
            page.wait_for_timeout(1000)
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Reached within").wait_for()
        page.evaluate("document.activeElement.blur()")
        shot = page.screenshot()
        browser.close()
    buffer = io.BytesIO()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(buffer, "PNG", optimize=True)
    files.write_atomic(ROOT / "docs" / "guide" / "studio.png", buffer.getvalue())


if __name__ == "__main__":
    main()

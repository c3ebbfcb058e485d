"""The page of the prediction service, as a person uses it: a real service and a real model, in Chromium."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from medvision_project import DATASET, MODEL
from PIL import Image

from medvision.serving.uploads import MAX_FILE_BYTES

# A pipeline, a server and a browser: more than half a minute.
pytestmark = pytest.mark.slow

ANSWER = "**/api/v1/predict/advanced*"
PATIENT = "DOE^JANE"
UNLIKE = "Not answered: the image is unlike those that the model was trained and validated on."
# Fields and file names of forms: Chromium tells nobody the bodies with files that it sends.
KEEP_WHAT_IS_SENT = """() => {
  const send = window.fetch;
  window.fetch = (path, options) => {
    window.sent = [...options.body].map(([field, file]) => [field, file.name]);
    return send(path, options);
  };
}"""
# Of WCAG 2.2, level AA, for text of the usual size.
CONTRAST = 4.5
# Every element that has text of its own: the contrast with the ground that is seen behind it, by the formula of WCAG.
MEASURE_CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const groundOf = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const ground = parts(getComputedStyle(at).backgroundColor);
      if (ground[3] !== 0) return ground;
    }
  };
  const seen = [...document.body.querySelectorAll("*")].filter(
    (each) => each.checkVisibility() && [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return seen.map((each) => {
    const [one, other] = [light(parts(getComputedStyle(each).color)), light(groundOf(each))].sort();
    return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), each.textContent.slice(0, 40)];
  });
}"""


@pytest.fixture(scope="module")
def key(project):
    """Make an API key."""
    made = project.run("medvision", "keys", "create", "page", "--json")
    assert made.code == 0, made.err
    return json.loads(made.out)["key"]


@pytest.fixture(scope="module")
def service(project, key, browser):
    """Start `medvision serve` on the version that the pipeline has registered."""
    with project.serving("medvision", "serve", f"{MODEL}/1", "--engine", "torch", path="/readyz") as url:
        yield url


@pytest.fixture(scope="module")
def images(project):
    """Return phantoms of two classes."""
    return [
        str(next((project.folder / DATASET / name).glob("*.png"))) for name in ("phantom_glioma", "phantom_pituitary")
    ]


@pytest.fixture
def seat(browser, service, key):
    """Return how a person comes to the page: with a key, and a screen of some kind; what went wrong comes after."""
    with contextlib.ExitStack() as stack:

        def sit_down(*, with_key=True, **screen):
            context = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **screen})
            stack.callback(context.close)
            context.set_default_timeout(60_000)
            if with_key:
                context.add_init_script(f"sessionStorage.setItem('medvision-api-key', '{key}')")
            page = context.new_page()
            page.heard, page.asked = [], []
            page.on("console", lambda message: page.heard.append(message.text))
            page.on("pageerror", lambda error: page.heard.append(str(error)))
            page.on("request", lambda request: page.asked.append(request))
            page.goto(service)
            if with_key:
                page.locator("#model-body").wait_for()
            return page

        yield sit_down


def ask(page, *paths):
    """Choose files, and wait until there is something to say about each; return the cards."""
    page.set_input_files("#files", list(paths))
    ended = "[data-state=answered], [data-state=indeterminate], [data-state=failed]"
    page.locator(ended).nth(len(paths) - 1).wait_for()
    return page.locator("article.case").all()


def real_answer(service, key, path):
    """Ask the service for an answer as the page does."""
    address = f"{service}/api/v1/predict/advanced?heat_map=true"
    with open(path, "rb") as file:
        answered = httpx.post(
            address, files={"image": file}, headers={"Authorization": f"Bearer {key}"}, timeout=60
        ).raise_for_status()
    return answered.json()


def picture(page, tmp_path, name):
    """Keep a picture of what the person sees, where one is asked for."""
    path = tmp_path / name
    page.screenshot(path=path, full_page=True)
    if folder := os.environ.get("MEDVISION_PICTURES"):
        shutil.copy(path, folder)


def test_an_image_is_answered(seat, images, tmp_path):
    """A label, a bar and a number for each class that sum to one, a recommendation, the version and a request id."""
    page = seat()
    (card,) = ask(page, images[0])
    numbers = [float(text.strip("<> %")) for text in card.locator(".bars .number").all_inner_texts()]
    names = card.locator(".bars th").all_inner_texts()
    assert sum(numbers) == pytest.approx(100, abs=0.3)
    assert card.locator(".said .verdict").inner_text() == names[int(np.argmax(numbers))]
    widths = [bar.bounding_box()["width"] for bar in card.locator(".bar").all()]
    assert np.argsort(widths).tolist() == np.argsort(numbers).tolist()
    assert card.locator(".advice").inner_text()
    assert re.search(rf"{MODEL} 1\.0\.0.*\b[0-9a-f]{{32}}\b", card.locator(".facts").inner_text(), re.S)
    picture(page, tmp_path, "page.png")


def test_the_model_is_told_of(seat):
    """Name, version, verdict, policy, figures by class and limits; and the notice, wherever the person has scrolled."""
    page = seat(viewport={"width": 1400, "height": 300})
    told = page.locator("#model").inner_text()
    for text in (MODEL, "1.0.0", "passed, under policy lenient", "Grade", "AUROC", "phantom_meningioma", "Limits"):
        assert text in told
    assert page.locator("#model-limits li").count() >= 2
    notice = page.get_by_text("Supports a reader, and does not replace one.")
    for place in (0, 10_000):
        page.evaluate("place => scrollTo(0, place)", place)
        assert 0 <= notice.bounding_box()["y"] < 300


def test_the_heat_map_is_faded(seat, images):
    """The heat map covers the image to the pixel, and the slider sets its opacity."""
    (card,) = ask(seat(), images[0])
    image, heat, slider = card.locator(".image"), card.locator(".heat"), card.get_by_role("slider", name="Heat map")
    assert heat.bounding_box() == image.bounding_box()
    assert heat.evaluate("each => each.naturalWidth") > 0
    for value in (0, 35, 100):
        slider.fill(str(value))
        assert float(heat.evaluate("each => each.style.opacity")) == value / 100
        assert card.locator(".share").inner_text() == f"{value} %"


def test_noise_gets_no_answer(seat, tmp_path):
    """An image that is like none that the model knows is shown without a class and without a heat map."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 120), dtype=np.uint8)).save(path)
    (card,) = ask(seat(), str(path))
    assert "No answer" in card.inner_text() and "phantom_" not in card.inner_text()
    assert card.locator(".heat").bounding_box() is None


def test_an_image_keeps_its_shape(seat, images, tmp_path):
    """A wide image is drawn as wide as it is, and its heat map with it."""
    path = tmp_path / "wide.png"
    # Stretched: the model sees the square that it was.
    Image.open(images[0]).resize((120, 60)).save(path)
    (card,) = ask(seat(), str(path))
    boxes = [card.locator(name).bounding_box() for name in (".image", ".heat")]
    assert boxes[0] == boxes[1]
    assert boxes[0]["width"] / boxes[0]["height"] == pytest.approx(2, abs=0.02)


def test_one_bad_file_among_several(seat, images, tmp_path):
    """It is named with what is wrong; the others are answered; the summary counts both, and leads to each."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    page = seat()
    cards = ask(page, images[0], str(bad), images[1])
    assert [card.get_attribute("data-state") for card in cards] == ["answered", "failed", "answered"]
    assert "not a readable image" in cards[1].locator(".why").inner_text()
    assert not cards[1].get_by_role("button", name="Try again").is_visible()
    assert page.locator("#counts").inner_text().startswith("3 files: 2 answered, 1 failed.")
    page.get_by_role("link", name="bad.png").click()
    assert page.evaluate("document.activeElement.querySelector('.file').textContent") == "bad.png"


def test_dropped_files(seat, images):
    """Files that are dropped beside the field are answered, and the page stays."""
    page = seat()
    content = list(Path(images[0]).read_bytes())
    page.evaluate(
        """([target, content]) => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([new Uint8Array(content)], "dropped.png", { type: "image/png" }));
          document.querySelector(target).dispatchEvent(
            new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        ["#model", content],
    )
    page.locator("[data-state=answered]").wait_for()
    assert page.locator("article.case .file").inner_text() == "dropped.png"


def test_too_large(seat, tmp_path):
    """A file beyond the limit of the service is refused with the limit, and is not sent."""
    path = tmp_path / "large.png"
    path.write_bytes(bytes(MAX_FILE_BYTES + 1))
    page = seat()
    (card,) = ask(page, str(path))
    assert f"{MAX_FILE_BYTES >> 20} MiB at most" in card.locator(".why").inner_text()
    assert not [request for request in page.asked if request.method == "POST"]


def test_no_answer(seat, images, service, key, tmp_path):
    """An image that the model should not answer: "No answer", why, and neither label, nor number, nor heat map."""
    answer = real_answer(service, key, images[0])
    hidden = dict.fromkeys(("prediction", "confidence", "probabilities", "heat_map_png"))
    unlike = {"level": "indeterminate", "prediction_set": None, "domain_distance": 3.2, "recommendation": UNLIKE}
    answer |= {**hidden, "status": "indeterminate", "called": {}, "members": []}
    answer["uncertainty"] |= unlike
    page = seat()
    page.route(ANSWER, lambda route: route.fulfill(json=answer))
    (card,) = ask(page, images[0])
    assert card.locator(".said .verdict").inner_text() == "No answer"
    assert "unlike those that the model was trained" in card.locator(".advice").inner_text()
    assert "distance 3.20" in card.locator(".facts").inner_text()
    assert "phantom_" not in card.locator(".said").inner_text()
    assert "%" not in card.locator(".answer").inner_text()
    assert not any(card.locator(name).is_visible() for name in (".bars", ".heat", ".fade"))
    picture(page, tmp_path, "page-indeterminate.png")


def test_what_a_browser_cannot_draw(seat, images, service, key, tmp_path):
    """A file that browsers don't draw, as DICOM: the page says so, and shows the heat map alone."""
    path = tmp_path / "slice.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(1000))
    answer = real_answer(service, key, images[0])
    page = seat()
    page.route(ANSWER, lambda route: route.fulfill(json=answer))
    (card,) = ask(page, str(path))
    assert "can't draw" in card.locator(".undrawn").inner_text()
    assert card.locator(".image").count() == 0
    assert card.locator(".heat").bounding_box()["width"] > 100


def test_by_keyboard_alone(seat, images, tmp_path):
    """Tab comes to the field, the slider and the buttons, and each is seen to have the focus; answers are announced."""
    page = seat()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as opened:
        page.keyboard.press("Enter")
    assert page.locator(".drop .button").evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    opened.value.set_files(images[0])
    page.locator("[data-state=answered]").wait_for()
    assert re.search(r"png: phantom_\w+, [\d.]+ %, \w+ uncertainty\. \w", page.get_by_role("status").inner_text())
    walk(page, "input[type=range]")
    page.keyboard.press("ArrowRight")
    assert page.locator("article .share").inner_text() == "60 %"
    walk(page, ".remove", key="Shift+Tab")
    page.keyboard.press("Space")
    assert page.locator("article.case").count() == 0
    assert page.evaluate("document.activeElement.id") == "files"


def walk(page, target, key="Tab"):
    """Go by keyboard to an element, past elements that all show that they have the focus."""
    for _ in range(20):
        page.keyboard.press(key)
        if page.evaluate("target => document.activeElement.matches(target)", target):
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style != "none"
            return
    pytest.fail(f"Tab does not come to {target}")


@pytest.mark.parametrize("width", [320, 360])
def test_on_a_phone(seat, images, tmp_path, width):
    """Nothing is wider than a narrow screen, with several answers and long names."""
    long = tmp_path / f"{'examination-of-a-patient_' * 4}.png"
    shutil.copy(images[0], long)
    page = seat(viewport={"width": width, "height": 740}, device_scale_factor=2, has_touch=True, is_mobile=True)
    ask(page, *images, str(long))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    picture(page, tmp_path, f"page-{width}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(seat, images, tmp_path, scheme):
    """Every text stands out from its ground by 4.5 to 1, light or dark: answers, errors, and the form of the key."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    page = seat(color_scheme=scheme)
    ask(page, *images, str(bad))
    page.evaluate("() => { for (const each of document.querySelectorAll('[hidden]')) each.hidden = false; }")
    for level in ("low", "medium", "high", "indeterminate"):
        page.evaluate(
            "level => { for (const each of document.querySelectorAll('.level')) each.dataset.level = level }", level
        )
        measured = page.evaluate(MEASURE_CONTRAST)
        assert len(measured) > 50
        assert [each for each in measured if each[0] < CONTRAST] == []
    picture(page, tmp_path, f"page-{scheme}.png")


def test_nothing_but_the_request_leaves(seat, images, tmp_path, service):
    """No other origin is asked, no file name is sent, and the console has nothing to say."""
    named = tmp_path / f"{PATIENT}.png"
    shutil.copy(images[0], named)
    page = seat()
    page.evaluate(KEEP_WHAT_IS_SENT)
    ask(page, str(named))
    asked = {request.url for request in page.asked if not request.url.startswith(("data:", "blob:"))}
    assert f"{service}/api/v1/predict/advanced?heat_map=true" in asked
    assert all(address.startswith(f"{service}/") for address in asked)
    assert page.evaluate("window.sent") == [["image", "image"]]
    assert page.heard == []


def test_images_do_not_stay(seat, images):
    """The address under which the browser has an image is void once it is drawn."""
    page = seat()
    (card,) = ask(page, images[0])
    address = card.locator(".image").get_attribute("src")
    assert address.startswith("blob:")
    assert (
        page.evaluate(
            "address => new Promise(end => { const each = new Image(); "
            "each.onload = () => end('there'); each.onerror = () => end('void'); each.src = address; })",
            address,
        )
        == "void"
    )
    page.set_input_files("#files", images)
    page.get_by_role("button", name="Remove all").click()
    assert page.locator("article.case").count() == 0


def test_an_api_key_is_asked_for(seat, images, key):
    """A wrong key is refused; a right one is kept for the session, in it alone; images that waited are answered."""
    page = seat(with_key=False)
    field = page.get_by_label("Key", exact=True)
    page.set_input_files("#files", images[0])
    field.fill("wrong")
    field.press("Enter")
    page.get_by_text("This key is not valid.").wait_for()
    field.fill(key)
    field.press("Enter")
    page.locator("[data-state=answered]").wait_for()
    page.reload()
    page.locator("#model-body").wait_for()
    assert not field.is_visible()
    assert page.evaluate("[localStorage.length, document.cookie, location.href.includes('mv')]") == [0, "", False]
    page.get_by_role("button", name="Forget the API key").click()
    field.wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_is_taken_back(seat, images, project, key):
    """Where the key is refused in the midst of the work, a new one is asked for, and the image is answered then."""
    page = seat()
    page.route(ANSWER, lambda route: route.fulfill(status=401, json={"detail": "Expected an API key."}), times=1)
    page.set_input_files("#files", images[0])
    field = page.get_by_label("Key", exact=True)
    field.fill(key)
    field.press("Enter")
    page.locator("[data-state=answered]").wait_for()


def test_a_busy_service(seat, images):
    """Where the service has no place, the page waits as long as it says, and asks again by itself."""
    page = seat()
    busy = {"status": 429, "headers": {"Retry-After": "2"}, "json": {"detail": "Too many."}}
    page.route(ANSWER, lambda route: route.fulfill(**busy), times=1)
    page.set_input_files("#files", images[0])
    page.get_by_text("Trying again in 2 seconds").wait_for()
    page.locator("[data-state=answered]").wait_for()


def test_a_service_that_is_gone(seat, images):
    """Where the service is not reached, the file says so, and is answered when the person tries again."""
    page = seat()
    page.route(ANSWER, lambda route: route.abort(), times=1)
    (card,) = ask(page, images[0])
    assert "not reached" in card.locator(".why").inner_text()
    card.get_by_role("button", name="Try again").click()
    page.locator("[data-state=answered]").wait_for()

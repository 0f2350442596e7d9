"""The page in a real browser, Debian's Chromium: what it shows of a port, and what it has it do."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect, sync_playwright

from tests import debian
from tests.server.page.served import HOSTILE, Shown, served

pytestmark = pytest.mark.slow
FARES = ("fares", "3")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = debian.program("chromium", "chromium")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        # In a container there is no sandbox within it, and little shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        started = playwright.chromium.launch(
            executable_path=str(program), args=arguments, env=debian.environment(program)
        )
        yield started
        started.close()


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def address(shown: Shown) -> Iterator[str]:
    with served(shown) as found:
        yield found


Opens = Callable[..., Page]


@pytest.fixture
def opens(browser: Browser, address: str) -> Iterator[Opens]:
    """Opens the page as the bearer of a token; what it says on the console, and what it may not do, fail the test."""
    complaints: list[str] = []

    def complain(message: ConsoleMessage) -> None:
        # Of an answer that is an error the browser tells itself, and the page tells people.
        if message.type in ("error", "warning") and "the server responded with a status of 4" not in message.text:
            complaints.append(message.text)

    def elsewhere(response: Response) -> None:
        if not response.url.startswith((address, "data:")):
            complaints.append(response.url)

    def open_page(token: str = "", at: str = address, *, width: int = 1200, **how: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **how)
        page = context.new_page()
        page.on("console", complain)
        page.on("response", elsewhere)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        if token:
            page.add_init_script(f"sessionStorage.setItem('penstock-token', '{token}')")
        page.goto(at)
        return page

    yield open_page
    for context in browser.contexts:
        context.close()
    assert not complaints


def rows(page: Page) -> list[list[str]]:
    return [
        [cell.strip() for cell in row.locator("td").all_inner_texts()] for row in page.locator("#versions tr").all()
    ]


def test_it_shows_what_there_is_and_names_stay_text(opens: Opens) -> None:
    page = opens("look")
    expect(page.locator("#versions tr")).to_have_count(5)
    expect(page.locator("#ready")).to_have_text("ready")
    found = rows(page)
    assert [row[:3] for row in found[:2]] == [["fares", "3", "champion"], ["fares", "4", "canary 5 %"]]
    assert "its digest is wrong" in found[2][3]
    assert found[0][8] == "1 alarm"
    for name in (HOSTILE, f"registry is away: it does not answer {HOSTILE}", f"version cannot be served {HOSTILE}"):
        expect(page.get_by_text(name).first).to_be_visible()
    page.get_by_text("What has happened").first.click()
    expect(page.get_by_text(f"5 %: begun {HOSTILE}")).to_be_visible()
    assert page.locator("img").count() == 0
    assert page.locator("a[href^=javascript]").count() == 0
    expect(page.get_by_text("accuracy 90 % (88 % to 92 %)")).to_be_visible()
    expect(page.locator("#qualities")).to_contain_text("91 % (90 % to 92 %)")


def test_values_follow_the_traffic_and_states_what_happens(opens: Opens, shown: Shown) -> None:
    page = opens("look")
    expect(page.locator("#rate")).to_have_text("0")
    kept = page.locator("#versions tr").first.element_handle()
    rate = page.locator("#versions tr").first.locator("td").nth(4)
    until_s = time.monotonic() + 20
    # The rate is that of the last second: a browser on a busy machine may look again after it.
    while rate.inner_text() == "0":
        assert time.monotonic() < until_s
        shown.answer(FARES, 100_000)
        page.wait_for_timeout(200)
    expect(page.locator("#p99")).to_have_text("≤ 1.1 ms")
    shown.versions.insert(0, shown.versions[3])
    del shown.versions[4]
    expect(page.locator("#versions tr").first).to_contain_text(HOSTILE)
    assert kept is not None
    assert kept.evaluate("row => row === document.querySelectorAll('#versions tr')[1]")  # moved, and not made anew


def test_features_are_drawn_when_somebody_opens_a_version(opens: Opens) -> None:
    page = opens("look")
    page.locator("#drift-list summary").press("Enter")
    expect(page.locator(".feature")).to_have_count(12)
    assert page.locator(".feature h3").first.inner_text() == "delay"
    picture = page.locator(".feature svg").first
    assert picture.get_attribute("aria-label") == "delay: most changed: 1 to 2, from 50 % to 30 %"
    assert picture.locator("rect").count() == 8
    page.get_by_role("button", name="Show all 17").click()
    expect(page.locator(".feature")).to_have_count(17)
    expect(page.locator(".feature h3").get_by_text(HOSTILE)).to_be_visible()


def test_without_the_right_there_is_nothing_to_do(opens: Opens, browser: Browser) -> None:
    page = opens("look")
    expect(page.locator("#who")).to_have_text("token:look, read-only")
    expect(page.locator("#rollout-list article")).to_have_count(2)
    assert page.locator("#rollout-list button").count() == 0
    with served(Shown(), asks=False) as other:
        context = browser.new_context()
        page = context.new_page()
        page.goto(other)
        expect(page.locator("#rollout-list article")).to_have_count(2)
        expect(page.locator("#who")).to_have_text("read-only: no access rules")
        assert page.locator("#rollout-list button").count() == 0


def test_somebody_signs_in_and_out_and_the_token_stays_in_the_tab(opens: Opens) -> None:
    page = opens()
    expect(page.locator("#notice")).to_contain_text("sign in")
    assert page.locator("#versions tr").count() == 0
    page.get_by_role("button", name="Sign in").press("Enter")
    page.keyboard.type("nonsense")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("not known here")
    page.get_by_role("button", name="Sign in").press("Enter")
    page.keyboard.type("fares")
    page.keyboard.press("Enter")
    expect(page.locator("#versions tr")).to_have_count(5)
    expect(page.locator("#who")).to_have_text("token:fares")
    assert page.context.cookies() == []
    assert page.evaluate("localStorage.length") == 0
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#who")).to_have_text("not signed in")
    assert page.locator("#versions tr").count() == 0
    assert page.evaluate("sessionStorage.length") == 0


def test_rollouts_do_what_they_are_told_by_the_keyboard_alone(opens: Opens, shown: Shown) -> None:
    page = opens("fares")
    # This one may control one model of the two.
    expect(page.locator("#rollout-list button")).to_have_text(["Promote", "Pause", "Abort"])
    page.locator("#which").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Pause":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#asking")).to_contain_text("Leaves version 4 of fares at its share")
    assert page.evaluate("document.activeElement.id") == "asking-no"  # what changes nothing comes first
    page.keyboard.press("Escape")
    expect(page.locator("#asking")).to_be_hidden()
    assert page.evaluate("document.activeElement.textContent") == "Pause"
    assert shown.commands == []
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_have_text("Pause: version 4 of fares was told so.")
    assert shown.commands == [("fares", "pause", "token:fares")]
    shown.refuses = f"nobody may, says {HOSTILE}"
    page.get_by_role("button", name="Abort version 4 of fares").click()
    page.locator("#asking-yes").click()
    expect(page.locator("#notice")).to_have_text(f"Abort: {shown.refuses}")


@pytest.mark.long
@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 1200)])
def test_it_is_accessible_and_nothing_is_cut_off(opens: Opens, scheme: str, width: int) -> None:
    page = opens("ops", width=width, color_scheme=scheme, bypass_csp=True)  # which axe would not pass
    expect(page.locator("#versions tr")).to_have_count(5)
    page.locator("#drift-list summary").click()
    expect(page.locator(".feature")).to_have_count(12)
    page.get_by_text("What has happened").first.click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert _violations(page) == []
    page.get_by_role("button", name="Promote version 4").click()
    assert _violations(page) == []
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is (scheme == "light")


def _violations(page: Page) -> list[str]:
    return [
        f"{rule['id']}: {[each['html'][:200] for each in rule['nodes']]}"
        for rule in Axe().run(page).response["violations"]
    ]

"""The operations page of a real server: traffic and a rollout as Chromium shows them, and a rollout that is told to go on."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from penstock_server.access.tokens import line_of
from tests import debian
from tests.integration.test_registry import Traffic

pytestmark = pytest.mark.slow
WAIT_MS = 30_000.0
SETTINGS = """
poll_interval_s = 0.2
[rollouts]
enabled = true
look_s = 0.2
[access]
tokens = "{folder}/tokens"
[access.rules.all]
who = ["anybody"]
may = ["infer", "read"]
[access.rules.ops]
who = ["token:ops"]
may = ["read", "control"]
"""


def test_a_rollout_is_seen_and_told_to_go_on(
    start_shared: Any, shared_registry: Any, flag_model: bytes, penstock: Any, tmp_path: Path, until: Any
) -> None:
    chromium = debian.program("chromium", "chromium")
    shared_registry.publish("flag", flag_model, alias="champion")
    shared_registry.publish("flag", flag_model)
    (tmp_path / "tokens").write_text(f"{line_of('ops', 'a-secret')}\n")
    (tmp_path / "penstock.toml").write_text(SETTINGS.format(folder=tmp_path))
    declared = tmp_path / "rollout.json"
    declared.write_text('{"steps": [10, 30, 100], "gates": {"errors": 1.5}}')
    assert penstock("rollout", "start", "flag", "2", "--file", declared, "--registry", shared_registry.uri)[0] == 0
    server = start_shared("--registry", shared_registry.uri, "--config", str(tmp_path / "penstock.toml")).wait_ready()

    def stage() -> str:
        found = json.loads(server.get("/v1/rollouts"))["rollouts"]
        return found[0]["stage"] if found else ""

    until(lambda: stage() == "10 %", "the first step")
    with Traffic(server.grpc, "flag"), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(chromium), args=["--no-sandbox"], env=debian.environment(chromium)
        )
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(f"http://{server.http}/")
        champion = page.get_by_role("row").filter(has_text="champion")
        expect(page.locator("#versions")).to_contain_text("canary 10 %", timeout=WAIT_MS)
        expect(champion.get_by_role("cell").nth(4)).not_to_have_text("0", timeout=WAIT_MS)
        assert page.get_by_role("button", name="Promote").count() == 0
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Token").fill("a-secret")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Promote version 2 of flag").click()
        page.locator("#asking-yes").click()
        expect(page.locator(".stages [aria-current]")).to_have_text("30 %", timeout=WAIT_MS)
        expect(page.locator("#event-list")).to_contain_text(
            "who token:ops, action advance, result done", timeout=WAIT_MS
        )
        browser.close()
    assert stage() == "30 %"
    assert "action=advance" in server.logged() or '"action": "advance"' in server.logged()

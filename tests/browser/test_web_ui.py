"""Airflow's web UI as a person meets it: a headless Chromium, a real Airflow, and a lab whose databases are up."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from lab import Lab
from lab.standalone import USER, Standalone
from tests.integration.repair import fingerprint
from unlatch.lifecycle import IncidentState
from unlatch.store.sql_store import SqlStore
from unlatch.wiring import SystemClock

pytest_plugins = ["tests.lab_fixtures"]
pytestmark = pytest.mark.timeout(600)

GUEST = "dbvrtg4037"
PATIENCE_MS = 60_000
"""For a page on a busy machine; nothing waits that long when all is well."""

RUN_PATIENCE_MS = 240_000

QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--headless",
    "--no-first-run",
    "--no-sandbox",  # Chromium refuses to run as root with one
]


@dataclass(frozen=True)
class Site:
    """What the tests share: a lab with three healthy databases, and an Airflow that knows it."""

    lab: Lab
    airflow: Standalone

    def sign_in(self, page: Page) -> None:
        """Fill in the login form; the home page is open afterwards."""
        page.goto(self.airflow.url)
        page.get_by_label("Username").fill(USER)
        page.get_by_label("Password").fill(self.airflow.password)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Welcome")).to_be_visible()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; Playwright's own would have to be downloaded."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: install the package chromium (`make setup` does)")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def site(browser: Browser, lab_factory: Callable[[], Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One lab and one Airflow for this file: their start takes most of the time."""
    lab = lab_factory()
    lab.up()
    home = tmp_path_factory.mktemp("airflow")
    airflow = Standalone(home, inventory=lab.inventory_path, connections=lab.connections(), var=home / "unlatch")
    try:
        airflow.start()
        yield Site(lab, airflow)
    finally:
        airflow.stop()


@pytest.fixture(scope="module")
def signed_in(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """Sign in with the form, once."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, locale="en-US", timezone_id="UTC")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    site.sign_in(page)
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(signed_in: BrowserContext, site: Site) -> Iterator[Page]:
    """Open remediate_guest."""
    opened = signed_in.new_page()
    opened.goto(f"{site.airflow.url}/dags/remediate_guest")
    expect(opened.get_by_role("heading", name="remediate_guest")).to_be_visible()
    yield opened
    opened.close()


def _form(page: Page) -> Locator:
    page.get_by_role("button", name="Trigger Dag").click()
    form = page.get_by_role("dialog")
    expect(form.get_by_text("Run Parameters")).to_be_visible()
    return form


def _label(form: Locator, words: str) -> Locator:
    """A field's label, with or without the star of a required one."""
    return form.get_by_text(re.compile(rf"^{re.escape(words)}\s*\*?$")).first


def _instances(form: Locator) -> Locator:
    return form.get_by_role("combobox", name="Select one or multiple values")


def _inodes(lab: Lab) -> dict[str, int]:
    """Inode of each file of voms; sizes and times belong to the server, which is up."""
    return {path: inode for path, (inode, _, _) in fingerprint(lab, "voms").items()}


def test_stranger_is_sent_to_the_login_form(site: Site, browser: Browser) -> None:
    """It should show nothing of Unlatch to someone who has not signed in."""
    context = browser.new_context(locale="en-US")
    try:
        page = context.new_page()
        page.goto(f"{site.airflow.url}/dags/remediate_guest")
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        expect(page.get_by_text("remediate_guest")).to_have_count(0)
    finally:
        context.close()


def test_dag_explains_itself(page: Page) -> None:
    """It should show what each step does, what it never does, and how to stop everything."""
    page.get_by_role("button", name="Dag Docs").click()
    docs = page.get_by_role("dialog")
    expect(docs.get_by_role("heading", name="One incident: a guest crashed, its databases come back")).to_be_visible()
    for step in ("detect_crash", "hold_service", "approve", "recreate_files", "confirm_access", "update_ticket"):
        expect(docs.get_by_role("cell", name=step, exact=True)).to_be_visible()
    expect(docs).to_contain_text("unlatch_stop")


def test_form_suggests_what_the_inventory_knows(page: Page, site: Site) -> None:
    """It should suggest guests and instances, explain its fields, and want a guest and a reason."""
    form = _form(page)
    suggested = page.locator("#list_guest option").evaluate_all("all => all.map(each => each.value)")
    assert suggested == [GUEST]
    for words in ("Guest", "Instances (none: all)", "Dry run", "Reason", "Ticket", "Crashed at", "Incident"):
        expect(_label(form, words)).to_be_visible()
    expect(form).to_contain_text("nothing touched")
    expect(form).to_contain_text("For the audit and the ticket.")

    start = form.get_by_role("button", name="Trigger")
    expect(start).to_be_disabled()
    form.locator("[name=element_guest]").fill("a-guest-that-nobody-knows")
    form.locator("[name=element_reason]").fill("free text is allowed")
    expect(start).to_be_enabled()

    _instances(form).click()
    expect(page.get_by_role("option")).to_have_text(sorted(site.lab.instances))


def test_dry_run_from_the_form_to_its_end(page: Page, site: Site) -> None:
    """It should run a lane for an instance that is well, say so, and touch nothing."""
    before = _inodes(site.lab)
    form = _form(page)
    form.locator("[name=element_guest]").fill(GUEST)
    _instances(form).click()
    page.get_by_role("option", name="voms").click()
    form.locator("[name=element_reason]").fill("is everything in place?")
    _label(form, "Dry run").click()
    expect(form.get_by_role("checkbox", name="Dry run")).to_be_checked()
    form.get_by_role("button", name="Trigger").click()
    expect(form).to_be_hidden()

    page.goto(f"{site.airflow.url}/dags/remediate_guest/runs")
    page.get_by_role("link", name=re.compile("^manual__")).first.click()
    title = page.get_by_role("heading", name=re.compile("^manual__")).locator("..")
    expect(title.get_by_text("Success")).to_be_visible(timeout=RUN_PATIENCE_MS)
    expect(page.get_by_role("link", name="voms", exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="lxr", exact=True)).to_have_count(0)

    (row,) = SqlStore(site.airflow.store_url, clock=SystemClock()).incidents()
    assert row.dry_run
    assert row.reason == "is everything in place?"
    assert row.state is IncidentState.CLOSED
    assert row.ticket is not None
    assert "is up, nothing to do" in Path(row.ticket).read_text()
    assert _inodes(site.lab) == before

"""`make test-browser`: the page in Debian's Chromium, and the API by its own contract, on a stack of their own.

    run.py [--binary PATH] [--only GROUP …] [--definition FILE]     the tests; GROUP is a letter or more of the lines it prints
    run.py --screenshots                                            writes docs/page-light.png and docs/page-dark-phone.png

Deploys pipelines as `make local` does: of the sample's listening, without any data, of hostile names, of the orders of a
shop. Serves each, and looks at every state that a page can have. Pictures of all of them go to target/screenshots.
`--definition` takes another definition of the sample's listening than the built-in one.
"""

import argparse
import re
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, quote, urljoin, urlsplit

from selenium.webdriver.common.keys import Keys

import contract
import pipelines
from chromium import Chromium
from pipelines import LOGS, ROOT, TARGET, Gate, Pipeline, Server, hostile_files, local, sample, sample_files, until

PICTURES = TARGET / "screenshots"
DAY = "2024-06-25"
REFRESH = 1.0
# A look at the ledger is shared for two seconds, so that news may be that old; the rest is for a busy machine.
LOOK = 2.0
MOST_PROBLEMS = 20
ORDERS = ROOT / "localstack/samples/orders.toml"


class Results:
    """What was checked: a line for each test, and the problems of those that failed."""

    def __init__(self):
        self.problems, self.notes, self.lines, self.lock = [], [], [], threading.Lock()
        self.began = time.monotonic()

    def expect(self, holds, problem):
        if not holds:
            self.problems.append(str(problem))
        return bool(holds)

    def run(self, letter, what, test):
        began = time.monotonic()
        problems, notes = [], []
        try:
            self.problems, self.notes = problems, notes
            test()
        except Exception as error:  # a test that cannot go on has failed, and the others go on
            problems.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} "
                            f"at {traceback.extract_tb(error.__traceback__)[-1][:3]}")
            if "no such window" in str(error) or "disconnected" in str(error):
                raise
        self.add(letter, what, problems, notes, time.monotonic() - began)

    def add(self, letter, what, problems, notes, seconds):
        with self.lock:
            self.lines.append(not problems)
            said = f" – {'; '.join(notes)}" if notes else ""
            print(f"{'FAIL' if problems else 'PASS'}  {letter}  {what}{said}   ({seconds:.1f} s)", flush=True)
            for problem in problems[:MOST_PROBLEMS]:
                print(f"         {problem}", flush=True)
            if len(problems) > MOST_PROBLEMS:
                print(f"         … and {len(problems) - MOST_PROBLEMS} more; {problems[-1]}", flush=True)

    def end(self):
        good = sum(self.lines)
        print(f"\n{'PASS' if good == len(self.lines) else 'FAIL'}: {good} of {len(self.lines)} tests, "
              f"in {time.monotonic() - self.began:.0f} s; pictures of every state are in {PICTURES.relative_to(ROOT)}/")
        return 0 if good == len(self.lines) else 1


class Tests:
    def __init__(self, options):
        self.results, self.options = Results(), options
        self.started = []

    def expect(self, holds, problem):
        return self.results.expect(holds, problem)

    def server(self, pipeline, *flags, **settings):
        self.started.append(Server(pipeline, *flags, **settings))
        return self.started[-1]

    def deploy(self):
        wanted = {
            "listens": (sample_files(), self.options.definition), "empty": ((), self.options.definition),
            "hostile": (hostile_files(), self.options.definition), "orders": (sample.orders(), ORDERS),
        }
        if self.options.screenshots:
            del wanted["empty"], wanted["hostile"], wanted["orders"]
        with ThreadPoolExecutor(4) as threads:
            made = {name: threads.submit(Pipeline, name, *how) for name, how in wanted.items()}
        # A failure is raised after all have ended, so that what runs can be stopped.
        self.pipelines = {name: it.result() for name, it in made.items() if not it.exception()}
        for it in made.values():
            it.result()
        # Pages that are looked at stay as they are for so long.
        self.servers = {name: self.server(pipeline, refresh="5m") for name, pipeline in self.pipelines.items()}

    def stop(self):
        for server in self.started:
            server.stop()
        for pipeline in getattr(self, "pipelines", {}).values():
            pipeline.stop()

    def is_wanted(self, letter):
        return not self.options.only or letter in "".join(self.options.only)

    def run(self, letter, what, test):
        if self.is_wanted(letter):
            self.results.run(letter, what, test)

    # (b) Every state of every page.

    def survey(self, name, url, *words, logged=(), without=()):
        """Looks at a state in both colour schemes and on two phones. `logged` are the messages that belong to it."""
        def test():
            browser = self.browser
            browser.look(1280, "light")
            browser.open(url)
            self.look_at(name, words, without)
            self.expect_log(logged)
        self.run("b", f"{name}: axe in both schemes, phones, words, log", test)

    def look_at(self, name, words, without=()):
        browser = self.browser
        browser.js("document.querySelectorAll('details').forEach(it => { it.open = true; })")
        shown = browser.text()
        for word in words:
            self.expect(re.search(word, shown), f"“{word}” is not on the page: {shown[:300]!r}")
        for word in without:
            self.expect(not re.search(word, shown), f"“{word}” is on the page")
        self.expect(browser.js("return document.querySelectorAll('h1').length") == 1, "it has not one h1")
        for scheme in ("light", "dark"):
            browser.look(1280, scheme)
            for problem in browser.violations("all" if scheme == "light" else "colours"):
                self.expect(False, f"axe, {scheme}: {problem}")
            if scheme == "light":
                for problem in browser.sideways():
                    self.expect(False, f"beyond 1280: {problem}")
            browser.picture(PICTURES / f"{name}-{scheme}.png")
        for width in (320, 390):
            browser.look(width, "light")
            for problem in browser.sideways():
                self.expect(False, f"beyond {width}: {problem}")
        for problem in browser.violations("screen"):
            self.expect(False, f"axe, phone: {problem}")
        browser.picture(PICTURES / f"{name}-phone.png")
        browser.look(1280, "light")

    def expect_log(self, belongs=()):
        for message in self.browser.take_logged():
            self.expect(any(re.search(it, message) for it in belongs), f"the console: {message[:300]}")

    def states(self):
        page = self.servers["listens"].url
        first = self.servers["listens"].json(f"/api/v1/top/tracks?days=28&to={DAY}&limit=1")["items"][0]["track_id"]
        self.survey("28-days", f"{page}/", "29 May – 25 Jun 2024", "Exact", "(?i)tracks", "opened on the last day")
        self.survey("7-days", f"{page}/?days=7", "19 – 25 Jun 2024", "▲", "▼")
        self.survey("1-day", f"{page}/?days=1", "Tue 25 Jun 2024", "compared with the day before")
        self.survey("91-days-not-compared", f"{page}/?days=91&against=none", "27 Mar – 25 Jun 2024", without=["compared with"])
        self.survey("filtered", f"{page}/?under=track_genre:jazz", "Only track genre jazz", "Tracks of track genre jazz")
        self.survey("track", f"{page}/item?report=tracks&id={first}", "(?i)track id", "by day", "(?i)highest")
        self.survey("genre", f"{page}/item?report=genres&id=jazz", "jazz", "by day", "Tracks of")
        self.survey("a-track-that-is-nowhere", f"{page}/item?report=tracks&id=nowhere", "nowhere", "Nothing (on|in|at all)")
        self.survey("a-day-without-rows", f"{page}/?days=1&to=2023-12-24", "Nothing on Sun 24 Dec 2023", "The last day with figures is Tue 25 Jun 2024")
        self.survey("pipeline", f"{page}/pipeline", "To look at", "Finished", "Behind it", "music-streams quarantine")
        self.survey("api", f"{page}/api", "GET /api/v1/top/tracks", "curl", "Try it", "limit")
        failed = [r"Failed to load resource: the server responded with a status of"]
        self.survey("a-wrong-parameter", f"{page}/?days=0", "400", "write a whole number from 1 to 400", "To the overview", logged=failed)
        self.survey("a-page-that-is-nowhere", f"{page}/no/such/page", "404", "To the overview", logged=failed)
        self.survey("empty", f"{self.servers['empty'].url}/", "Nothing is counted yet", "incoming/", "No batch is finished yet")
        self.survey("empty-pipeline", f"{self.servers['empty'].url}/pipeline", "No batch is at work", "none was loaded yet")
        self.survey("orders", f"{self.servers['orders'].url}/?days=7", "Orders", "Products", "Revenue")
        self.survey("orders-pipeline", f"{self.servers['orders'].url}/pipeline", "Orders", "Finished")
        personal = self.server(self.pipelines["listens"], "--personal", refresh="5m")
        self.survey("personal", f"{personal.url}/?days=1", "Listeners")
        self.run("b", "listeners are not shown without --personal", lambda: (
            self.expect("isteners" not in self.servers["listens"].get("/?days=1")[2].decode().split("<main")[1].split("look-up")[0]
                        .replace("unique_listeners", ""), "a panel of listeners"),
            self.expect(self.servers["listens"].status("/api/v1/top/listeners") == 404, "the API has them"),
            self.expect(self.servers["listens"].status("/item?report=listeners&id=1") == 400, "the page of one is there")))

    def failures(self):
        gate = Gate()
        server = self.server(self.pipelines["listens"], dynamodb=gate.url, refresh="5m")
        gate.refused = ["genre_level_reports"]
        self.survey("a-failing-panel", f"{server.url}/?days=7", "This could not be read", "not authorized", "Exact", "Tracks")
        gate.is_shut = True
        failed = [r"Failed to load resource: the server responded with a status of 502"]

        def is_502():
            return server.status("/?days=6") == 502
        until(is_502, "502 while the tables are shut", 60)
        self.survey("the-tables-are-gone", f"{server.url}/?days=6", "502", "the tables do not answer", "tries again by itself", logged=failed)
        gate.is_shut, gate.refused = False, ()

        def recovers():
            _, seconds = until(lambda: server.status("/?days=7") == 200, "its return", 30)
            self.expect("This could not be read" not in server.get("/?days=7")[2].decode(), "a panel still fails")
            self.results.notes.append(f"{seconds:.1f} s after the tables")
        self.run("b", "figures come back with the tables", recovers)

    # (c) What people do.

    def location(self):
        split = urlsplit(self.browser.driver.current_url)
        return split.path, {name: values[0] for name, values in parse_qs(split.query).items()}

    def after(self, key, *keys):
        """Types a key on the page, outside of fields, and returns the query that it leads to."""
        self.browser.leave_fields()
        before = self.browser.driver.current_url
        self.browser.type(key, *keys)
        until(lambda: self.browser.driver.current_url != before and self.browser.js("return document.readyState") == "complete",
              f"the page that {key!r} leads to", 10)
        return self.location()[1]

    def keys(self):
        browser, url = self.browser, self.servers["listens"].url
        browser.look()
        browser.open(f"{url}/")
        steps = [
            ("w", {"days": "7"}), ("d", {"days": "1"}), ("q", {"days": "91"}), ("m", {"days": "28"}), ("w", {"days": "7"}),
            (Keys.ARROW_LEFT, {"days": "7", "to": "2024-06-18"}), (Keys.ARROW_LEFT, {"days": "7", "to": "2024-06-11"}),
            (Keys.ARROW_RIGHT, {"days": "7", "to": "2024-06-18"}), (Keys.ARROW_RIGHT, {"days": "7"}),
            ("x", {"days": "7", "against": "none"}), ("x", {"days": "7"}),
        ]
        for key, wanted in steps:
            got = self.after(key)
            self.expect(got == wanted, f"{key!r} leads to {got}, not {wanted}")
        browser.leave_fields()
        browser.type(Keys.ARROW_RIGHT)
        browser.chord(Keys.CONTROL, "d")
        time.sleep(0.3)
        self.expect(self.location()[1] == {"days": "7"}, f"beyond the last day, or by Ctrl+d: {self.location()}")
        for key, field in (("f", "under"), ("/", "id")):
            browser.leave_fields()
            browser.type(key)
            focused = browser.js("return document.activeElement.name")
            self.expect(focused == field, f"{key!r} leads to {focused!r}, not to the field {field!r}")
        browser.type("wdq?")
        self.expect(browser.js("return document.activeElement.value") == "wdq?", "letters in a field are not written")
        self.expect(self.location()[1] == {"days": "7"}, "a letter in a field is taken for a key")
        browser.leave_fields()
        browser.type("?")
        self.expect(browser.js("return document.querySelector('#keys').open"), "? does not show the keys")
        browser.open(f"{url}/")
        browser.type(Keys.TAB)
        self.expect(browser.js("return document.activeElement.className") == "skip", "the first stop of Tab is not the skip link")
        browser.type(Keys.ENTER)
        self.expect(browser.js("return document.activeElement.id") == "main", "the skip link does not lead to the figures")
        self.expect_log()

    def slider(self):
        browser, server = self.browser, self.servers["listens"]
        browser.look()
        browser.open(f"{server.url}/item?report=genres&id=jazz")
        value = lambda name: browser.js("return document.querySelector('#plot').getAttribute(arguments[0])", name)
        self.expect(value("role") == "slider" and value("aria-valuenow") == "28", f"{value('role')} at {value('aria-valuenow')}")
        browser.js("document.querySelector('#plot').focus()")
        points = server.json("/api/v1/series/genres?id=jazz&days=28")["points"]
        browser.type(Keys.HOME)
        first = f"{points[0]['total_listens']:,}"
        self.expect(value("aria-valuenow") == "1" and first in value("aria-valuetext"), f"Home: {value('aria-valuetext')}, not {first}")
        self.expect(browser.text("#readout").startswith(value("aria-valuetext").split(" · ")[0]), f"it says {browser.text('#readout')}")
        browser.type(Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_LEFT)
        self.expect(value("aria-valuenow") == "2", f"right, up, left: {value('aria-valuenow')}")
        browser.type(Keys.PAGE_UP, Keys.END)
        self.expect(value("aria-valuenow") == "28", f"End: {value('aria-valuenow')}")
        self.expect(self.location()[1].get("to") is None, "an arrow within the chart leads to other days")
        rows = browser.js("return [...document.querySelectorAll('#chart-table tbody tr')].map(it => it.cells[1].textContent.trim())")
        self.expect(rows == [f"{point['total_listens']:,}" for point in points], "the table has other figures than the API")
        bars = browser.js("return document.querySelectorAll('#plot rect.bar, #plot rect.open').length")
        self.expect(bars == 28, f"{bars} bars for 28 days")
        self.expect_log()

    def choosing(self):
        """Filter, comparison, back, forward, and the address given to somebody else."""
        browser, server = self.browser, self.servers["listens"]
        browser.look()
        browser.open(f"{server.url}/?days=7")
        everything = browser.text("#top-tracks")
        browser.js("""const form = document.querySelector('#choose'); form.under.value = 'track_genre:folk';
            form.against.value = 'none';""")
        browser.find("#choose button").click()
        until(lambda: "under" in self.location()[1], "the filtered page", 10)
        _, query = self.location()
        self.expect(query.get("under") == "track_genre:folk" and query.get("against") == "none", f"the form leads to {query}")
        filtered = browser.text("#top-tracks")
        shown = browser.js("return [...document.querySelectorAll('#top-tracks .name')].map(it => it.textContent)")
        query = f"from={query.get('from')}&to={query.get('to')}&under=track_genre:folk&limit=10"
        wanted = [row["track_name"] or row["track_id"] for row in server.json(f"/api/v1/top/tracks?{query}")["items"]]
        self.expect(shown == wanted, f"the page has {shown}, the API {wanted}")
        shared = browser.driver.current_url
        browser.driver.back()
        until(lambda: "under" not in self.location()[1], "the way back", 10)
        self.expect(browser.text("#top-tracks") == everything, "back shows something else than before")
        browser.driver.forward()
        until(lambda: "under" in self.location()[1], "the way forward", 10)
        other = Chromium()
        try:
            other.look()
            other.open(shared)
            self.expect(other.text("#top-tracks") == filtered, "the address shows somebody else something else")
            self.expect(other.js("return document.querySelector('#choose').under.value") == "track_genre:folk", "the form forgets the filter")
            self.expect(other.js("return [document.cookie, localStorage.length, sessionStorage.length].join()") == ",0,0", "it stores something")
        finally:
            other.close()
        got = self.after(Keys.ESCAPE)
        self.expect("under" not in got, f"Escape leads to {got}")
        self.expect_log()

    def links(self):
        """Every link of the pages leads somewhere, and has a name."""
        browser, seen = self.browser, {}
        for server, path in ((self.servers["listens"], "/"), (self.servers["listens"], "/?under=track_genre:jazz"),
                             (self.servers["listens"], "/api"), (self.servers["listens"], "/item?report=genres&id=jazz"),
                             (self.servers["orders"], "/"), (self.servers["hostile"], "/"), (self.servers["hostile"], "/pipeline")):
            browser.open(server.url + path)
            for href, text in browser.js("return [...document.links].map(it => [it.href, it.textContent.trim()])"):
                self.expect(text, f"{path}: the link to {href} has no name")
                href = urljoin(server.url, href).split("#")[0]
                self.expect(href.startswith(server.url), f"{path} leads elsewhere: {href}")
                seen.setdefault(href, (server, path))
        with ThreadPoolExecutor(4) as threads:
            statuses = threads.map(lambda it: it[1][0].status(it[0].removeprefix(it[1][0].url)), seen.items())
            for (href, (_, path)), status in zip(seen.items(), statuses):
                self.expect(status == 200, f"{path}: {href} is answered by {status}")
        self.results.notes.append(f"{len(seen)} links")
        self.expect_log()

    # (d), (e) The page while it is open.

    def live(self):
        browser, pipeline = self.browser, self.pipelines["listens"]
        self.lively = server = self.server(pipeline, refresh=f"{REFRESH:.0f}s")
        browser.look()
        browser.open(f"{server.url}/item?report=genres&id=jazz&days=7")
        browser.js("document.querySelector('#chart-table').open = true; document.querySelectorAll('#top-tracks .name a')[2].focus()")
        focused = browser.js("return document.activeElement.href")
        (top,) = server.json(f"/api/v1/top/tracks?days=7&to={DAY}&under=track_genre:jazz&limit=1")["items"]
        before, place = browser.text("#tiles .value"), browser.js("window.scrollTo(0, 200); return scrollY")
        count = int(before.replace(",", ""))
        self.send(top["track_id"], 40)
        until(lambda: server.json("/api/v1/series/genres?id=jazz&days=7")["totals"]["total_listens"] == count + 40, "the batch", 60)
        _, seconds = until(lambda: browser.text("#tiles .value") != before, "the new figure on the page", 15)
        self.expect(browser.text("#tiles .value") == f"{count + 40:,}", f"it shows {browser.text('#tiles .value')}, not {count + 40:,}")
        self.expect(seconds <= REFRESH + LOOK, f"it took {seconds:.1f} s, with a refresh of {REFRESH:.0f} s")
        self.expect(browser.js("return document.activeElement.href") == focused, "focus has moved")
        self.expect(browser.js("return document.querySelector('#chart-table').open"), "the table is folded")
        self.expect(browser.js("return scrollY") == place, "the page has scrolled")
        self.results.notes.append(f"{seconds:.1f} s after the API had it")
        # A part that has not changed stays the same element.
        browser.js("window.mark = document.querySelector('#chart')")
        time.sleep(2.5 * REFRESH)
        self.expect(browser.js("return window.mark.isConnected"), "without news the chart was replaced")
        self.expect_log()

    def send(self, track, listens):
        rows = [[1 + number % 400, track, f"{DAY} {number % 24:02}:30:00"] for number in range(listens)]
        self.pipelines["listens"].put({f"incoming/later-{time.monotonic_ns()}.csv": sample.table(pipelines.HEADER, rows)})

    def overtaken(self):
        """Focus stays on an item whose place in its list changes."""
        browser, server = self.browser, self.lively
        browser.open(f"{server.url}/?days=1")
        top = server.json("/api/v1/top/tracks?days=1&limit=4")["items"]
        browser.js("document.querySelectorAll('#top-tracks .name a')[2].focus()")
        focused = browser.js("return document.activeElement.href")
        self.send(top[3]["track_id"], top[0]["total_listens"] - top[3]["total_listens"] + 50)
        first = lambda: browser.js("return document.querySelector('#top-tracks .name a').href")
        until(lambda: top[3]["track_id"] in first(), "the new first item", 60)
        self.expect(browser.js("return document.activeElement.href") == focused, "focus went to the item that took its place")
        self.expect_log()

    def gone(self):
        browser, server = self.browser, self.lively
        browser.open(f"{server.url}/?days=7")
        figures = browser.text("#top-tracks")
        self.expect(browser.text("#gone") == "", f"before: {browser.text('#gone')}")
        time.sleep(1.2 * REFRESH)
        server.kill()
        _, seconds = until(lambda: browser.text("#gone"), "the words", 20)
        self.expect(seconds <= 2 * REFRESH + 0.5, f"it took {seconds:.1f} s, with a refresh of {REFRESH:.0f} s")
        words = browser.text("#gone")
        self.expect(re.search(r"No answer since \d\d:\d\d:\d\d; these are the figures of ", words), words)
        self.expect(browser.js("return document.documentElement.classList.contains('stale')"), "no class")
        self.expect(browser.text("#top-tracks") == figures, "the last figures are gone")
        amber = browser.js("return getComputedStyle(document.querySelector('#gone'), '::before').backgroundColor")
        self.expect(amber == "rgb(179, 106, 0)", f"its sign is {amber}")
        self.look_at("the-server-is-gone", ["No answer since"])
        server.start()
        _, back = until(lambda: browser.text("#gone") == "", "its return", 30)
        self.results.notes.append(f"{seconds:.1f} s after its end; {back:.1f} s after its return")
        self.expect_log([r"net::ERR_CONNECTION_REFUSED", r"net::ERR_(CONNECTION_RESET|EMPTY_RESPONSE)"])

    # (f) Without scripts.

    def scriptless(self):
        browser, server = self.browser, self.servers["listens"]
        browser.look()
        with browser.without_scripts():
            browser.open(f"{server.url}/?days=7")
            self.expect(not browser.js("return document.documentElement.classList.contains('live')"), "a script has run")
            for part in ("#fresh", "#periods", "#choose", "#top-tracks", "#top-genres"):
                self.expect(browser.js("return document.querySelector(arguments[0])?.offsetHeight > 0", part), f"{part} is not shown")
            self.expect(not browser.find("#keys").is_displayed(), "keys are promised that do nothing")
            browser.picture(PICTURES / "without-scripts.png")
            browser.js("document.querySelector('#choose').under.value = 'track_genre:folk'")
            browser.find("#choose button").click()
            until(lambda: "under" in self.location()[1], "the filtered page", 10)
            self.expect("Only track genre folk" in browser.text("main"), "the form does not filter")
            browser.find("#periods a[data-key=d]").click()
            until(lambda: self.location()[1].get("days") == "1", "a day", 10)
            self.expect("folk" in self.location()[1].get("under", ""), "the filter is lost")
            browser.open(f"{server.url}/item?report=genres&id=jazz")
            browser.find("#chart-table summary").click()
            self.expect(browser.find("#chart-table tbody tr").is_displayed(), "the table does not unfold")
        self.expect_log()

    # (i) Hostile names.

    def hostile(self):
        server, browser = self.servers["hostile"], self.browser
        self.survey("hostile", f"{server.url}/?days=7", "<script>window.hacked=1</script>", r"x{20}")
        self.survey("hostile-pipeline", f"{server.url}/pipeline", "Finished")
        under = "%3Cscript%3Ewindow.hacked%3D1%3C%2Fscript%3E"
        self.survey("hostile-filter", f"{server.url}/?days=7&under=track_genre:{under}", "Only track genre <script>")
        items = server.json("/api/v1/top/tracks?days=10&limit=30")["items"]
        longest = next(row for row in items if row["track_name"] and row["track_name"].startswith("xxx"))
        self.survey("hostile-item", f"{server.url}/item?report=tracks&days=10&id={quote(longest['track_id'], safe='')}", "x{20}")

        def each():
            for row in items:
                browser.open(f"{server.url}/item?report=tracks&days=10&id={quote(row['track_id'], safe='')}")
                self.expect(browser.js("return window.hacked") is None, f"the name of {row['track_id']} has run")
                self.expect(browser.js("return document.scripts.length") == 1, f"{row['track_id']}: more scripts than one")
                self.expect(f"{row['total_listens']:,}" in browser.text("#tiles"), f"{row['track_id']}: another figure")
                for problem in browser.sideways():
                    self.expect(False, f"{row['track_id']}: {problem}")
            for path in ("/", "/pipeline", "/api", "/?days=1"):
                browser.open(server.url + path)
                self.expect(browser.js("return window.hacked") is None, f"something on {path} has run")
                self.expect(browser.js("return document.scripts.length") == 1, f"{path}: more scripts than one")
            table = server.get("/api/v1/top/tracks?days=10&limit=30&format=csv")[2].decode()
            self.expect("'=cmd" in table and "\n=cmd" not in table and ",=cmd" not in table, "CSV has a formula")
            self.expect_log()
            self.results.notes.append(f"{len(items)} items")
        self.run("i", "hostile names neither run nor break the layout", each)

    # (a), (h) Of all pages that were opened.

    def elsewhere(self):
        asked = self.browser.hosts()
        own = {f"127.0.0.1:{server.port}" for server in self.started}
        self.expect(asked <= own, f"pages have asked {sorted(asked - own)}")
        self.results.notes.append(f"{len(self.browser.asked)} requests")
        for server in (self.servers[name] for name in ("listens", "hostile")):
            for path in ("/", "/pipeline", "/api", "/item?report=genres&id=jazz"):
                _, headers, body = server.get(path)
                self.expect("default-src 'none'" in headers["Content-Security-Policy"], f"{path} has no policy")
                text = body.decode()
                found = {url for url in re.findall(r"https?://[^\s\"'<>&]+", text) if not url.startswith(server.url)}
                self.expect(not found, f"{path} has addresses of elsewhere: {found}")
                self.expect(not re.search(r"<style|\sstyle=|\son[a-z]+=\"", text), f"{path} has a style or a handler within")

    def contracts(self):
        """In the background, beside the browser."""
        def of(name):
            began, server = time.monotonic(), self.server(self.pipelines[name])
            try:
                problems = contract.document_problems(server) + contract.media_type_problems(server)
                found, cases = contract.answer_problems(server, LOGS / f"schemathesis-{name}.log", self.options.seconds)
                problems += found + ([f"all of it is in target/browser/schemathesis-{name}.log"] if found else [])
            except Exception as error:
                problems, cases = [f"{type(error).__name__}: {error}"], ""
            self.results.add("k", f"{name}: the document, and the API by it", problems, [f"{cases} cases"] if cases else [], time.monotonic() - began)
        for name in ("listens", "orders"):
            of(name)

    def all(self):
        self.deploy()
        print(f"deployed, counted and served in {time.monotonic() - self.results.began:.0f} s", flush=True)
        background = threading.Thread(target=self.contracts)
        if self.is_wanted("k"):
            background.start()
        if set("abcdefghi") & set("".join(self.options.only or ["a"])):
            self.browser = Chromium()
            try:
                if self.is_wanted("b"):
                    self.states()
                    self.failures()
                self.run("c", "keys", self.keys)
                self.run("c", "the chart is a slider, a sentence and a table", self.slider)
                self.run("c", "filter, comparison, back, forward, a shared address", self.choosing)
                self.run("c", "every link leads somewhere", self.links)
                if self.is_wanted("i"):
                    self.hostile()
                self.run("f", "without scripts the page is whole, and its form works", self.scriptless)
                if self.is_wanted("d") or self.is_wanted("e"):
                    self.results.run("d", "a file counted while the page is open appears; focus, place and tables stay", self.live)
                    self.results.run("d", "focus stays on an item that is overtaken", self.overtaken)
                    self.results.run("e", "a server that is gone is said within two refreshes", self.gone)
                self.run("h", "nothing of elsewhere is asked for", self.elsewhere)
            finally:
                self.browser.close()
        if background.ident:
            background.join()

    def screenshots(self):
        from PIL import Image
        self.deploy()
        self.browser = browser = Chromium()
        try:
            for name, width, scheme, most in (("page-light", 1280, "light", 1500), ("page-dark-phone", 390, "dark", 1500)):
                browser.look(width, scheme)
                browser.open(f"{self.servers['listens'].url}/")
                file = ROOT / f"docs/{name}.png"
                browser.picture(file, most)
                with Image.open(file) as picture:
                    size = picture.size
                    # Rare colours too, as those of signs.
                    palette = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
                    palette.save(file, optimize=True)
                print(f"  docs/{name}.png: {size[0]} × {size[1]}, {file.stat().st_size / 1024:.0f} KiB")
                if file.stat().st_size > 200 * 1024:
                    sys.exit(f"docs/{name}.png has more than 200 KiB")
        finally:
            browser.close()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--binary", type=Path, default=local.BINARY)
    arguments.add_argument("--definition", type=Path)
    arguments.add_argument("--only", nargs="*")
    arguments.add_argument("--seconds", type=int, default=contract.SECONDS)
    arguments.add_argument("--screenshots", action="store_true")
    options = arguments.parse_args()
    local.BINARY, local.say = options.binary.resolve(), lambda *_: None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tests = Tests(options)
    try:
        if options.screenshots:
            return tests.screenshots()
        tests.all()
        return tests.results.end()
    finally:
        tests.stop()


if __name__ == "__main__":
    sys.exit(main())

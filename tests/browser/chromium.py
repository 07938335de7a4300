"""Debian's Chromium without a screen, driven by its own driver: pages in both colour schemes and of any width, what they
log, whom they ask, what axe-core says about them, and how they look."""

import base64
import contextlib
import importlib.util
import json
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

# Package axe-playwright-python: only its axe.min.js is of interest here.
AXE = Path(importlib.util.find_spec("axe_playwright_python").submodule_search_locations[0]) / "axe.min.js"
# Everything that axe-core can judge by itself, with the size of targets, which it leaves out unless asked. Of a page that
# was judged already, a colour scheme changes what is about colours, and a screen all that is not.
RUN_AXE = """
const [what, done] = arguments;
const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
const colours = ['color-contrast', 'link-in-text-block'], leaves = Object.fromEntries(colours.map(it => [it, { enabled: false }]));
const options = {
  all: { runOnly: { type: 'tag', values: tags }, rules: { 'target-size': { enabled: true } } },
  colours: { runOnly: { type: 'rule', values: colours } },
  screen: { runOnly: { type: 'tag', values: tags }, rules: { 'target-size': { enabled: true }, ...leaves } },
}[what];
axe.run(document, { ...options, resultTypes: ['violations'] }).then(
  found => done(found.violations.map(it => `${it.id} (${it.impact}): ` +
    it.nodes.slice(0, 3).map(node => node.html.slice(0, 160) + ' ' + node.failureSummary.slice(0, 240)).join(' | '))),
  error => done([String(error)]));
"""
# Whatever reaches beyond the screen, but for what scrolls by itself.
SIDEWAYS = """
const wide = document.documentElement.clientWidth, own = '.scroll, pre, svg, .hidden, .skip, .hidden-link';
const reaches = it => it.getBoundingClientRect().right > wide + 1, most = document.scrollingElement.scrollWidth;
let beyond = [...document.querySelectorAll('body *')].filter(it => !it.closest(own) && reaches(it));
// A drawing is as wide as its box, unless what is in it widens the page.
if (most > wide && !beyond.length) beyond = [...document.querySelectorAll('body *')].filter(it => !it.closest('.scroll, pre') && reaches(it));
return [...(most > wide ? [`${most} px on a screen of ${wide}`] : []), ...beyond.slice(0, 3).map(it => it.outerHTML.slice(0, 120))];
"""


class Chromium:
    """A browser with one window."""

    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in ("headless=new", "disable-gpu", "hide-scrollbars", "force-color-profile=srgb", "window-size=1280,900"):
            options.add_argument(f"--{flag}")
        if os.getuid() == 0:
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(40)
        self.driver.set_script_timeout(40)
        self.asked, self.logged = [], []
        self.width, self.scheme = None, None

    def command(self, name, **parameters):
        return self.driver.execute_cdp_cmd(name, parameters)

    def js(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def look(self, width=1280, scheme="light", height=None):
        """Sets the screen and the colour scheme."""
        is_phone = width < 600
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height or (844 if is_phone else 900),
                     deviceScaleFactor=1, mobile=is_phone)
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def open(self, url):
        self.driver.get(url)

    def find(self, query):
        return self.driver.find_element(By.CSS_SELECTOR, query)

    def text(self, query="body"):
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", query)

    def type(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, modifier, key):
        ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def leave_fields(self):
        self.js("document.activeElement?.blur()")

    @contextlib.contextmanager
    def without_scripts(self):
        self.command("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield
        finally:
            self.command("Emulation.setScriptExecutionDisabled", value=False)

    def violations(self, what="all"):
        """What axe-core finds. A strict content security policy does not hold for the driver."""
        if not self.js("return 'axe' in window"):
            self.js(AXE.read_text())
        return self.driver.execute_async_script(RUN_AXE, what)

    def sideways(self):
        return self.js(SIDEWAYS)

    def collect(self):
        """Takes what was logged, and whom the pages have asked, since the last time."""
        self.logged += [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])

    def take_logged(self):
        self.collect()
        logged, self.logged = self.logged, []
        return logged

    def hosts(self):
        """The hosts and ports of everything that was asked for, but what has no host."""
        self.collect()
        return {urlsplit(url).netloc for url in self.asked if urlsplit(url).scheme not in ("data", "about", "blob")}

    def picture(self, file, most_height=None):
        """Writes a picture of the whole page, or of its top."""
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        height = min(size["height"], most_height or 12_000)
        # With the room that is kept for a scroll bar.
        clip = {"x": 0, "y": 0, "width": self.js("return innerWidth"), "height": height, "scale": 1}
        data = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(data))

    def close(self):
        self.driver.quit()


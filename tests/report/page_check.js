// Runs in each page: collects errors, waits for figures, uses the page, and
// writes what it found into the document. See browser_test.py.
"use strict";

const errors = [];
addEventListener("error", (e) => errors.push(e.message || e.target.src), true);
addEventListener("unhandledrejection", (e) => errors.push(`${e.reason}`));
addEventListener("securitypolicyviolation", (e) => errors.push(e.blockedURI));
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function look() {
  const all = (selector) => [...document.querySelectorAll(selector)];
  for (let i = 0; i < 100; i++) {
    if (all(".plot").every((e) => e.querySelector(".main-svg"))) break;
    await wait(100);
  }
  await wait(500);
  const found = {
    errors, width: innerWidth, wide: document.documentElement.scrollWidth,
    plots: all(".plot").length, drawn: all(".plot .main-svg").length,
    title: document.querySelector("h1").textContent,
    count: document.getElementById("record-count")?.textContent,
    records: all("#records tbody tr").length,
    text: document.getElementById("main").innerText,
  };
  const table = document.querySelector("table.sortable");
  if (table) {
    const heads = all("table.sortable thead th");
    const i = heads.slice(0, table.tHead.rows[0].cells.length)
      .findIndex((e) => e.dataset.kind === "number");
    const head = table.tHead.rows[0].cells[Math.max(i, 0)];
    for (const sort of ["ascending", "descending"]) {
      head.firstChild.click();
      found[sort] = [head.getAttribute("aria-sort"),
        [...table.tBodies[0].rows].map((r) => r.cells[Math.max(i, 0)].dataset.sort)];
    }
  }
  const claim = document.querySelector('[data-filters] [name="claim"]');
  if (claim) {
    claim.value = "3";
    claim.dispatchEvent(new Event("input", {bubbles: true}));
    found.filtered = all("#verdicts tbody tr:not([hidden]), #studies tbody tr:not([hidden])").length;
    claim.value = "";
    claim.dispatchEvent(new Event("input", {bubbles: true}));
  }
  found.axe = [];
  for (const theme of window.axe ? ["light", "dark"] : []) {
    bitnetTheme.set(theme);
    for (const e of all("details")) e.open = true;
    await wait(300);
    const seen = await axe.run({ preload: false });
    found.axe.push(...seen.violations.map((v) => [theme, v.impact, v.id, v.nodes[0].html]));
    found.passes = seen.passes.length;
  }
  const place = document.createElement("pre");
  place.id = "found";
  place.textContent = JSON.stringify(found);
  document.body.append(place);
}
addEventListener("load", look);

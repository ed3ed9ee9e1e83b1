// What all pages share: data from script files, sorting, filters, the theme.
"use strict";

const bitnetReport = (() => {
  const data = new Map();
  const scripts = new Map();

  // Called by the files in data/.
  function add(name, value) {
    data.set(name, value);
  }

  function script(source) {
    if (!scripts.has(source)) {
      scripts.set(source, new Promise((resolve, reject) => {
        const element = document.createElement("script");
        element.src = source;
        element.onload = resolve;
        element.onerror = () => reject(new Error(`${source} is missing`));
        document.head.append(element);
      }));
    }
    return scripts.get(source);
  }

  function studies() {
    return data.get("studies") || [];
  }

  // Only studies of the site are loaded, whatever an address asks for.
  async function load(study, part) {
    const name = `${study.slug}/${part}`;
    if (!data.has(name)) await script(`${study.data}.${part}.js`);
    return data.get(name);
  }

  function fields() {
    return new URLSearchParams(location.hash.slice(1));
  }

  // h("a", {href: "..."}, "text", child): text is never parsed as HTML.
  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) {
        element.setAttribute(key, value === true ? "" : value);
      }
    }
    element.append(...children.filter((c) => c !== null && c !== undefined));
    return element;
  }

  function number(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value)) {
      return String(value).replace(/\B(?=(\d{3})+$)/g, " ").replace("-", "−");
    }
    const size = Math.abs(value);
    const text = size >= 1e5 || size < 1e-4 ? value.toExponential(3)
      : String(Number(value.toPrecision(4)));
    return text.replace(/-/g, "−");
  }

  function keyOf(row, column, isNumber) {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    if (!isNumber) return text.toLowerCase();
    const value = parseFloat(text.replace(/\s/g, "").replace("−", "-"));
    return text === "" || Number.isNaN(value) ? null : value;
  }

  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sort(table, column, direction) {
    const isNumber = table.tHead.rows[0].cells[column].dataset.kind === "number";
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [keyOf(row, column, isNumber), row]);
    const sign = direction === "descending" ? -1 : 1;
    rows.sort(([a], [b]) => (a === null || b === null ? compare(a, b) : sign * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
    for (const [i, head] of Array.from(table.tHead.rows[0].cells).entries()) {
      head.setAttribute("aria-sort", i === column ? direction : "none");
    }
  }

  // Headings become buttons; their text and units stay inside.
  function makeSortable(table) {
    for (const [i, head] of Array.from(table.tHead.rows[0].cells).entries()) {
      const button = h("button", { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const isUp = head.getAttribute("aria-sort") === "ascending";
        sort(table, i, isUp ? "descending" : "ascending");
      });
    }
  }

  function matches(row, wanted) {
    for (const [key, value] of wanted) {
      if (key === "words") {
        const text = row.textContent.toLowerCase();
        if (!value.toLowerCase().split(/\s+/).every((word) => text.includes(word))) return false;
      } else if (row.dataset[key] !== undefined) {
        if (!JSON.parse(row.dataset[key]).includes(value)) return false;
      }
    }
    return true;
  }

  function filterBy(form) {
    const wanted = Array.from(new FormData(form)).filter(([, value]) => value.trim());
    const counts = [];
    for (const id of form.dataset.filters.split(" ")) {
      const place = document.getElementById(id);
      if (!place) continue;
      const rows = Array.from(place.querySelectorAll("tbody tr"));
      for (const row of rows) row.hidden = !matches(row, wanted);
      for (const group of place.querySelectorAll(".scroll, [data-group]")) {
        group.hidden = !group.querySelector("tbody tr:not([hidden])");
      }
      const shown = rows.filter((row) => !row.hidden).length;
      counts.push(`${shown} of ${rows.length} ${id === "boards" ? "cells" : id}`);
    }
    form.querySelector(".count").textContent = wanted.length ? `Shown: ${counts.join(", ")}` : "";
  }

  function start() {
    document.querySelectorAll("table.sortable").forEach(makeSortable);
    for (const form of document.querySelectorAll("form.filters")) {
      form.addEventListener("submit", (event) => event.preventDefault());
      if (!form.dataset.filters) continue;
      form.addEventListener("input", () => filterBy(form));
      form.addEventListener("reset", () => setTimeout(() => filterBy(form)));
    }
    // On a phone the filters would hide what the page is about.
    for (const box of document.querySelectorAll(".filter-box")) box.open = innerWidth > 720;
    const button = document.querySelector("[data-theme-button]");
    const show = () => {
      const theme = bitnetTheme.get() || "system";
      button.textContent = `◐ ${theme}`;
      button.setAttribute("aria-label", `Theme: ${theme}`);
    };
    button.hidden = false;
    show();
    button.addEventListener("click", () => {
      const themes = ["", "light", "dark"];
      bitnetTheme.set(themes[(themes.indexOf(bitnetTheme.get()) + 1) % 3]);
      show();
    });
  }

  document.addEventListener("DOMContentLoaded", start);
  return { add, script, studies, load, fields, h, number, compare, makeSortable };
})();

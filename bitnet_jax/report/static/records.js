// The list of records: filters, cells that a link names, sorting, pages.
"use strict";

(() => {
  const { h, number, studies, load, fields, compare } = bitnetReport;
  const ROWS = 100;
  const state = { rows: [], shown: [], page: 0, sort: "", isDown: false, cell: new Map() };
  const form = () => document.getElementById("record-filters");

  function expand(study, index) {
    const place = Object.fromEntries(index.columns.map((name, i) => [name, i]));
    return index.rows.map((row) => {
      const get = (name) => row[place[name]];
      const cell = new Map();
      index.cells.forEach((key, i) => {
        if (get("cell")[i] !== null) cell.set(key, get("cell")[i]);
      });
      const metrics = new Map(index.metrics.map((name, i) => [name, get("metrics")[i]]));
      return { study, index, cell, metrics, name: get("name"), seed: get("seed"),
        family: get("family"), recipe: get("recipe"), data: get("data"),
        params: get("params"), diverged: get("diverged"), scale: get("scale") };
    });
  }

  async function read(wanted) {
    const found = [];
    const asked = studies().filter((study) => !wanted || study.slug === wanted);
    for (const study of asked) found.push(...expand(study, await load(study, "index")));
    state.rows = found;
  }

  function isWanted(row, wanted, words) {
    if (wanted.family && row.family !== wanted.family) return false;
    if (wanted.recipe && row.recipe !== wanted.recipe) return false;
    if (wanted.claim && !row.study.claims.includes(wanted.claim)) return false;
    for (const [key, value] of state.cell) if (row.cell.get(key) !== value) return false;
    if (!words.length) return true;
    const text = `${row.study.slug} ${row.name} ${row.family} ${row.recipe} ${row.data}`.toLowerCase();
    return words.every((word) => text.includes(word));
  }

  // With one study the columns are its cells and metrics.
  function columns() {
    const slugs = new Set(state.shown.map((row) => row.study.slug));
    const run = { key: "run", label: "Run", of: (row) => row.name };
    const status = { key: "state", label: "State", of: (row) => (row.diverged === null ? "finished" : `diverged at ${row.diverged}`) };
    const seed = { key: "seed", label: "Seed", isNumber: true, of: (row) => row.seed };
    const params = { key: "params", label: "Parameters", isNumber: true, of: (row) => row.params };
    if (slugs.size !== 1) {
      const main = (row) => row.index.main[0];
      return [run, { key: "study", label: "Study", of: (row) => row.study.slug },
        { key: "family", label: "Family", of: (row) => row.family },
        { key: "recipe", label: "Recipe", of: (row) => row.recipe }, seed, params, status,
        { key: "metric", label: "Metric", of: (row) => main(row) || "" },
        { key: "value", label: "Value", isNumber: true, of: (row) => row.metrics.get(main(row)) }];
    }
    const { index } = state.shown[0];
    const cells = index.cells.map((key) => ({ key: `cell.${key}`, label: key, of: (row) => row.cell.get(key) ?? "" }));
    const metrics = index.metrics.map((name) => ({ key: name, label: name, isNumber: true, of: (row) => row.metrics.get(name) }));
    return [run, ...cells, seed, ...metrics, params, status];
  }

  function link(row) {
    const search = new URLSearchParams({ study: row.study.slug, run: row.name });
    return `run.html#${search}`;
  }

  function show() {
    const found = state.shown.length ? columns() : [];
    const chosen = found.find((column) => column.key === state.sort);
    if (chosen) {
      // Values of cells are text, such as "1e-05", also where they are numbers.
      const key = (row) => {
        const value = chosen.of(row) ?? "";
        const asNumber = Number(value);
        if (value === "") return null;
        return Number.isNaN(asNumber) ? value : asNumber;
      };
      const sign = state.isDown ? -1 : 1;
      state.shown.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        return x === null || y === null ? compare(x, y) : sign * compare(x, y);
      });
    }
    const table = document.getElementById("records");
    table.tHead.replaceChildren(h("tr", {}, ...found.map((column) => {
      const direction = column.key !== state.sort ? "none" : state.isDown ? "descending" : "ascending";
      const button = h("button", { type: "button" }, column.label);
      button.addEventListener("click", () => {
        state.isDown = state.sort === column.key && !state.isDown;
        state.sort = column.key;
        state.page = 0;
        show();
        for (const head of table.tHead.rows[0].cells) {
          if (head.textContent === column.label) head.firstChild.focus();
        }
      });
      return h("th", { scope: "col", "aria-sort": direction, class: column.isNumber && "right" }, button);
    })));
    const first = state.page * ROWS;
    table.tBodies[0].replaceChildren(...state.shown.slice(first, first + ROWS).map((row) => h("tr", {},
      ...found.map((column, i) => (i === 0
        ? h("th", { scope: "row" }, h("a", { href: link(row) }, row.name))
        : h("td", { class: column.isNumber && "right" }, column.isNumber ? number(column.of(row)) : column.of(row)))))));
    const pages = Math.max(1, Math.ceil(state.shown.length / ROWS));
    document.getElementById("record-count").textContent =
      `${number(state.shown.length)} of ${number(state.rows.length)} records`;
    document.getElementById("page").textContent = `Page ${state.page + 1} of ${pages}`;
    for (const button of document.querySelectorAll(".pager button")) {
      const to = state.page + Number(button.dataset.step);
      button.disabled = to < 0 || to >= pages;
    }
    document.querySelector(".pager").hidden = pages === 1;
  }

  function chips() {
    document.getElementById("cells").replaceChildren(...Array.from(state.cell, ([key, value]) => {
      const button = h("button", { type: "button", "aria-label": `Remove the filter ${key} = ${value}` }, `${key} = ${value} ×`);
      button.addEventListener("click", () => {
        state.cell.delete(key);
        write();
      });
      return button;
    }));
  }

  function apply() {
    const wanted = Object.fromEntries(new FormData(form()));
    const words = (wanted.words || "").toLowerCase().split(/\s+/).filter(Boolean);
    state.shown = state.rows.filter((row) => isWanted(row, wanted, words));
    state.page = 0;
    chips();
    show();
  }

  // The address names what is shown, so that it can be sent to others.
  function write() {
    const found = new URLSearchParams();
    for (const [key, value] of new FormData(form())) if (value) found.set(key, value);
    for (const [key, value] of state.cell) found.set(`cell.${key}`, value);
    history.replaceState(null, "", `#${found}`);
    refresh();
  }

  async function refresh() {
    const found = fields();
    state.cell = new Map();
    for (const control of form().elements) {
      if (control.name) control.value = found.get(control.name) || "";
    }
    for (const [key, value] of found) {
      if (key.startsWith("cell.")) state.cell.set(key.slice(5), value);
    }
    try {
      await read(found.get("study"));
      apply();
    } catch (error) {
      document.getElementById("record-count").textContent = `The records cannot be read: ${error.message}`;
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    let timer = 0;
    form().addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(write, 120);
    });
    form().addEventListener("reset", () => {
      history.replaceState(null, "", "#");
      setTimeout(refresh);
    });
    for (const button of document.querySelectorAll(".pager button")) {
      button.addEventListener("click", () => {
        state.page += Number(button.dataset.step);
        show();
        document.getElementById("records").scrollIntoView({ block: "start" });
      });
    }
    addEventListener("hashchange", refresh);
    refresh();
  });
})();

// The page of a run: what its record says, with curves and code statistics.
"use strict";

const bitnetRun = (() => {
  const { h, number, studies, load, fields } = bitnetReport;

  function flat(value, prefix, found) {
    for (const [key, item] of Object.entries(value)) {
      const name = prefix ? `${prefix}.${key}` : key;
      if (item && typeof item === "object" && !Array.isArray(item)) flat(item, name, found);
      else found.push([name, item]);
    }
    return found;
  }

  function table(caption, heads, rows, label) {
    const isNumber = heads.map((_, i) => i > 0 && rows.every((row) => row[i] === null || typeof row[i] === "number"));
    const made = h("table", { class: "sortable" },
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, ...heads.map((text, i) => h("th", { scope: "col", class: isNumber[i] && "right", "data-kind": isNumber[i] && "number" }, text)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((value, i) => {
        const text = typeof value === "string" ? value : typeof value === "number" ? number(value) : value === null ? "–" : JSON.stringify(value);
        return i === 0 ? h("th", { scope: "row" }, text)
          : h("td", { class: isNumber[i] && "right", "data-sort": isNumber[i] ? value ?? "" : null }, text);
      })))));
    bitnetReport.makeSortable(made);
    return h("div", { class: "scroll", role: "region", "aria-label": label || caption, tabindex: "0" }, made);
  }

  function pairs(entries) {
    return h("dl", { class: "pairs" }, ...entries.flatMap(([name, value]) => (
      value === null || value === undefined || value === "" ? [] : [h("dt", {}, name), h("dd", {}, value)])));
  }

  function curves(record) {
    const found = record.curves || {};
    const groups = new Map();
    for (const name of Object.keys(found)) {
      if (name === "step") continue;
      const metric = name.slice(name.indexOf("/") + 1);
      groups.set(metric, [...(groups.get(metric) || []), name]);
    }
    return Array.from(groups, ([metric, names]) => ({
      name: metric, title: `${metric} over steps`, kind: "lines",
      x: { label: "Step" }, y: { label: metric },
      series: names.map((name) => ({ name, x: found.step, y: found[name] })),
    }));
  }

  function codes(record) {
    const layers = Object.entries(record.layers || {});
    const paths = layers.map(([path]) => path).reverse();
    const parts = [["−1", "negative"], ["0", "zeros"], ["+1", "positive"]];
    return {
      kind: "codes", x: { label: "Fraction of codes", more: { range: [0, 1] } },
      y: { label: "", more: { type: "category", showgrid: false, ticks: "" } },
      series: parts.map(([name, key]) => ({ name, y: paths, x: paths.map((path) => record.layers[path][key]) })),
    };
  }

  // Adds a place for a figure; it is drawn once all places are there, since
  // they share the width of the page.
  function figure(place, title, specification) {
    const plot = h("div", { class: "plot", role: "group", "aria-label": title });
    place.append(h("figure", {}, h("figcaption", {}, title), plot));
    return () => bitnetFigures.draw(plot, specification);
  }

  function facts(record, { recipe, state: live }) {
    const versions = Object.entries(record.versions || {}).filter(([, v]) => v);
    const state = record.diverged === null || record.diverged === undefined
      ? live || "finished" : `diverged at step ${number(record.diverged)}`;
    return pairs([
      ["State", h("span", { class: "state" }, state)], ["Recipe", recipe],
      ["Seed", number(record.seed)], ["Scale", record.scale],
      ["Steps", number(record.step)], ["Epochs", record.epochs === null || record.epochs === undefined ? null : number(record.epochs)],
      ["Parameters", number(record.num_params)],
      ["Wall time", record.wall_time_s ? `${number(record.wall_time_s)} s` : null],
      ["Date", record.date], ["Device", record.device], ["Run id", record.run_id],
      ["Commit", record.commit], ["Plan", record.plan],
      ["Versions", versions.map(([name, version]) => `${name} ${version}`).join(", ")],
    ]);
  }

  function sameCell(index, study, position) {
    const cell = index.columns.indexOf("cell");
    const name = index.columns.indexOf("name");
    const wanted = JSON.stringify(index.rows[position][cell]);
    const seed = index.columns.indexOf("seed");
    const rows = index.rows.filter((row, i) => i !== position && JSON.stringify(row[cell]) === wanted);
    if (!rows.length || wanted === "[]") return null;
    const links = rows.slice(0, 60).flatMap((row) => {
      const search = new URLSearchParams({ study: study.slug, run: row[name] });
      return [h("a", { href: `run.html#${search}` }, `seed ${row[seed]}`), " "];
    });
    return h("p", {}, "The same cell: ", ...links);
  }

  // Also called by the page of live runs.
  async function render(place, record, before, after) {
    const metrics = Object.entries(record.metrics || {});
    const best = (record.best && record.best.metrics) || {};
    const rows = metrics.map(([name, value]) => (Object.keys(best).length ? [name, value, best[name] ?? null] : [name, value]));
    const heads = Object.keys(best).length ? ["Metric", "Last", `Best checkpoint, step ${number(record.best.step)}`] : ["Metric", "Last"];
    const left = h("div", {}, h("h2", {}, "Run"), facts(record, before));
    const right = h("div", {}, h("h2", {}, "Metrics"), rows.length ? table("Metrics of the run", heads, rows) : h("p", {}, "The run has no metrics."));
    const figures = h("div", { class: "columns" });
    place.replaceChildren(h("div", { class: "columns" }, left, right), ...(before.parts || []));
    const lines = curves(record);
    if (lines.length) {
      place.append(h("h2", {}, "Curves"), figures);
    }
    const layers = Object.entries(record.layers || {});
    const of_codes = h("div", {});
    if (layers.length) {
      place.append(h("h2", {}, "Codes"), of_codes);
      place.append(table("Codes of each layer, as fractions, and their scale", ["Layer", "−1", "0", "+1", "Scale"],
        layers.map(([path, code]) => [path, code.negative, code.zeros, code.positive, code.scale ?? null])));
    }
    place.append(...(after || []));
    const drawings = lines.map((line) => figure(figures, line.title, line));
    if (layers.length) drawings.push(figure(of_codes, "Fractions of codes in each layer", codes(record)));
    for (const draw of drawings) await draw();
  }

  function config(record) {
    const entries = flat(record.config || {}, "", []);
    if (!entries.length) return [h("h2", {}, "Config"), h("p", {}, "The record has no config.")];
    return [h("h2", {}, "Config"),
      h("p", { class: "small" }, record.schema ? "Keys that differ from the defaults of task and model." : "All keys."),
      table("Keys of the config", ["Key", "Value"], entries.map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]), "Config")];
  }

  async function open() {
    const wanted = fields();
    const place = document.getElementById("run");
    const study = studies().find((item) => item.slug === wanted.get("study"));
    const fail = (text) => place.replaceChildren(h("p", {}, text));
    if (!study) return fail("The address names no study of this site.");
    const index = await load(study, "index");
    const name = index.columns.indexOf("name");
    const position = index.rows.findIndex((row) => row[name] === wanted.get("run"));
    if (position < 0) return fail(`The study ${study.slug} has no run of this name.`);
    const chunk = await load(study, Math.floor(position / study.chunk));
    const found = chunk[position % study.chunk];
    const title = index.rows[position][name];
    document.title = `${title} · 1.58 bits`;
    // Long names break after their commas.
    const parts = title.split(/(?<=,)/).flatMap((part) => [part, h("wbr")]);
    document.getElementById("run-title").replaceChildren(...parts);
    document.getElementById("crumbs").replaceChildren(
      h("a", { href: "index.html" }, "Verdicts"), " / ", h("a", { href: study.page }, study.slug), " / ",
      h("a", { href: `records.html#${new URLSearchParams({ study: study.slug })}` }, "records"));
    const raw = JSON.stringify(found.record, null, 1);
    const others = sameCell(index, study, position);
    return render(place, found.record, { recipe: index.rows[position][index.columns.indexOf("recipe")], parts: others ? [others] : [] }, [
      ...config(found.record),
      h("h2", {}, "Record"),
      h("p", {}, "Line ", String(found.line), " of ", h("code", {}, found.file), "."),
      h("details", {}, h("summary", {}, "The record as JSON"), h("pre", { tabindex: "0", role: "region", "aria-label": "The record as JSON" }, raw)),
    ]);
  }

  async function start() {
    try {
      await open();
    } catch (error) {
      document.getElementById("run").replaceChildren(h("p", {}, `The record cannot be read: ${error.message}`));
    }
  }

  if (document.getElementById("run-title")) {
    document.addEventListener("DOMContentLoaded", start);
    addEventListener("hashchange", start);
  }
  return { render, config };
})();

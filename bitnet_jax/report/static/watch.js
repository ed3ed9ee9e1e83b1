// Live runs: asks the server for the list and the chosen run every few seconds.
"use strict";

(() => {
  const { h, number } = bitnetReport;
  const SECONDS = 3;
  let chosen = null;
  let shown = "";

  async function ask(path) {
    const answer = await fetch(path);
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    return JSON.parse(text);
  }

  function row(run) {
    const button = h("button", { type: "button", "aria-pressed": String(run.name === chosen) }, run.name);
    button.addEventListener("click", () => {
      chosen = run.name;
      shown = "";
      refresh();
    });
    const steps = run.total_steps ? `${number(run.step)} of ${number(run.total_steps)}` : number(run.step);
    return h("tr", {},
      h("th", { scope: "row" }, button), h("td", {}, h("span", { class: "state" }, run.state), run.damage ? ` ${run.damage}` : ""),
      h("td", { class: "right" }, steps), h("td", {}, run.config || run.model || ""), h("td", {}, run.recipe || ""),
      h("td", { class: "right" }, number(run.seed)), h("td", {}, run.metric || ""),
      h("td", { class: "right" }, number(run.best)), h("td", {}, run.date.slice(0, 19).replace("T", " ")));
  }

  // What did not change stays, so that focus and zoom do.
  async function refresh() {
    const status = document.getElementById("watch-status");
    try {
      const runs = await ask("runs.json");
      const body = document.querySelector("#live tbody");
      const text = JSON.stringify([runs, chosen]);
      if (body.dataset.text !== text) {
        const focused = document.activeElement && document.activeElement.closest("#live") ? document.activeElement.textContent : null;
        body.dataset.text = text;
        body.replaceChildren(...runs.map(row));
        for (const button of body.querySelectorAll("button")) if (button.textContent === focused) button.focus();
      }
      const live = runs.filter((run) => run.state === "running").length;
      status.textContent = `${runs.length} runs, ${live} of them running. Read at ${new Date().toLocaleTimeString("en-GB")}.`;
      if (chosen !== null) await showRun();
    } catch (error) {
      status.textContent = `The runs cannot be read: ${error.message}`;
    }
  }

  async function showRun() {
    const name = chosen;
    const record = await ask(`run.json?${new URLSearchParams({ name })}`);
    const text = JSON.stringify(record);
    if (name !== chosen || text === shown) return;
    shown = text;
    const title = document.getElementById("live-title");
    title.hidden = false;
    title.textContent = `${name}: ${record.state}`;
    const quant = (record.config && record.config.quant) || {};
    await bitnetRun.render(document.getElementById("live-run"), record, { recipe: quant.recipe, state: record.state }, bitnetRun.config(record));
  }

  document.addEventListener("DOMContentLoaded", async () => {
    for (;;) {
      await refresh();
      await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
    }
  });
})();

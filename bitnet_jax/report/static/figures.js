// Draws figures with Plotly, which is loaded after the page is there.
"use strict";

const bitnetFigures = (() => {
  const { script, h, number } = bitnetReport;
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const PRINTED = 660; // pixels, the width of a page of paper
  const drawn = new Map();

  // Computed colors, since Plotly does not know CSS variables.
  function colors() {
    const probe = h("span", { hidden: true });
    document.body.append(probe);
    const read = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const found = { text: read("text"), soft: read("soft"), line: read("line"), card: read("card") };
    found.series = [1, 2, 3, 4, 5, 6].map((i) => read(`series-${i}`));
    found.holds = read("holds");
    probe.remove();
    return found;
  }

  function faint(color) {
    return color.replace("rgb(", "rgba(").replace(")", ", 0.16)");
  }

  function axis(of, color) {
    return {
      title: { text: of.label || "", standoff: 8 },
      type: of.log ? "log" : undefined,
      gridcolor: color.line,
      linecolor: color.soft,
      zerolinecolor: color.soft,
      ticks: "outside",
      tickcolor: color.soft,
      automargin: true,
      tickformat: of.log ? "~g" : undefined,
      dtick: of.log ? 1 : undefined,
      minor: of.log ? { ticks: "outside", ticklen: 3, tickcolor: color.line } : undefined,
      ...of.more,
    };
  }

  function errors(series) {
    if (!series.low || !series.high) return undefined;
    const gap = (a, b) => (a === null || b === null || a === undefined ? 0 : Math.abs(a - b));
    return {
      type: "data",
      symmetric: false,
      array: series.y.map((y, i) => gap(series.high[i], y)),
      arrayminus: series.y.map((y, i) => gap(y, series.low[i])),
      thickness: 1.4,
      width: 3,
    };
  }

  function band(series, color) {
    const keep = series.x.map((_, i) => i).filter((i) => series.low[i] !== null && series.high[i] !== null);
    const back = keep.slice().reverse();
    return {
      x: keep.map((i) => series.x[i]).concat(back.map((i) => series.x[i])),
      y: keep.map((i) => series.high[i]).concat(back.map((i) => series.low[i])),
      fill: "toself",
      fillcolor: faint(color),
      line: { width: 0 },
      mode: "lines",
      hoverinfo: "skip",
      showlegend: false,
      type: "scatter",
    };
  }

  // Of the name of a cell, "a=b, c=d", the values "b, d".
  function short(value) {
    return typeof value === "string" ? value.replace(/\b\w+=/g, "") : value;
  }

  function points(figure, color) {
    const traces = [];
    figure.series.forEach((series, i) => {
      const shade = color.series[i % 6];
      const trace = { name: series.name, x: series.x, y: series.y };
      if (series.low && series.high) {
        trace.customdata = series.x.map((_, j) => `[${number(series.low[j])}, ${number(series.high[j])}]`);
        trace.hovertemplate = "%{y:.4g} %{customdata}";
      }
      if (figure.kind === "bars") {
        traces.push({ ...trace, x: series.x.map(short), type: "bar", marker: { color: shade }, error_y: errors(series) });
        return;
      }
      if (figure.kind === "lines" && series.low && series.high) traces.push(band(series, shade));
      traces.push({
        ...trace,
        type: "scatter",
        mode: figure.kind === "lines" ? "lines+markers" : "markers",
        line: { color: shade, width: 2, dash: DASHES[Math.floor(i / 6) % 6] },
        marker: { color: shade, size: 7, symbol: SYMBOLS[i % 6] },
        error_y: figure.kind === "points" ? errors(series) : undefined,
      });
    });
    return traces;
  }

  function heat(figure, color) {
    const series = figure.series[0];
    return [{
      type: "heatmap",
      x: series.x.map(String),
      y: series.y.map(String),
      z: series.z,
      colorscale: "Cividis",
      xgap: 1,
      ygap: 1,
      colorbar: { outlinewidth: 0, tickcolor: color.soft, thickness: 14, title: { text: series.name || "" } },
      hovertemplate: `${figure.x.label}: %{x}<br>${figure.y.label}: %{y}<br>%{z}<extra></extra>`,
    }];
  }

  // The effect in each cell of a verdict, with its interval.
  function forest(verdict) {
    const cells = verdict.cells.filter((cell) => cell.effect !== null).reverse();
    return {
      kind: "forest",
      x: { label: verdict.unit ? `Effect, ${verdict.unit}` : "Effect", more: { tickangle: 0, nticks: innerWidth < 600 ? 3 : 5 } },
      y: { label: "", more: { type: "category", showgrid: false, ticks: "", tickvals: cells.map((cell) => cell.name) } },
      cells,
    };
  }

  function intervals(figure, color) {
    const value = (cell) => cell.effect;
    const end = (cell, i) => (cell.interval ? cell.interval[i] : null) ?? cell.effect;
    return [{
      type: "scatter",
      mode: "markers",
      x: figure.cells.map(value),
      y: figure.cells.map((cell) => cell.name),
      marker: { color: color.series[0], size: 8 },
      error_x: {
        type: "data",
        symmetric: false,
        array: figure.cells.map((cell) => end(cell, 1) - cell.effect),
        arrayminus: figure.cells.map((cell) => cell.effect - end(cell, 0)),
        color: color.series[0],
        thickness: 1.6,
      },
      hovertemplate: "%{y}: %{x}<extra></extra>",
    }];
  }

  // Fractions of codes in each layer, one bar a layer.
  function stacked(figure, color) {
    const shades = [color.series[1], color.soft, color.series[0]];
    return figure.series.map((series, i) => ({
      type: "bar",
      orientation: "h",
      name: series.name,
      x: series.x,
      y: series.y,
      marker: { color: shades[i], line: { color: color.card, width: 2 } },
      hovertemplate: `%{y}<br>${series.name}: %{x:.3f}<extra></extra>`,
    }));
  }

  // Plotly reads some HTML in its texts; names are not meant as such.
  function escaped(value) {
    if (typeof value === "string") return value.replace(/&/g, "&amp;").replace(/</g, "&lt;");
    if (Array.isArray(value)) return value.map(escaped);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, escaped(item)]));
  }

  const KINDS = { heat, forest: intervals, codes: stacked };

  function specification(found, width, place) {
    const figure = escaped(found);
    const color = colors();
    const isNarrow = width < 560;
    if (figure.kind === "forest") {
      const name = (cell) => (isNarrow ? cell.name.replace(/\w+=/g, "").replace(/,/g, ", ") : cell.name);
      figure.y.more.ticktext = figure.cells.map(name);
    }
    const hasLegend = Boolean(figure.series && figure.series.length > 1 && figure.kind !== "heat");
    const heights = {
      forest: (figure.cells || []).length * 26 + 100,
      codes: figure.series && figure.series[0] ? figure.series[0].y.length * 24 + 130 : 200,
    };
    const data = (KINDS[figure.kind] || points)(figure, color);
    const labels = { ...(figure.y || {}) };
    const of_y = figure.kind === "heat"
      ? { label: labels.label, more: { type: "category" } } : labels;
    const of_x = figure.kind === "heat"
      ? { label: figure.x.label, more: { type: "category" } } : figure.x || {};
    const layout = {
      width,
      height: heights[figure.kind] || (isNarrow ? 340 : 420),
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color.text },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: isNarrow ? 44 : 60, r: 12, t: 34, b: hasLegend ? 84 : 52 },
      xaxis: axis(of_x, color),
      yaxis: axis(of_y, color),
      barmode: figure.kind === "codes" ? "stack" : "group",
      hovermode: figure.kind === "lines" && figure.series.length < 9 ? "x unified" : "closest",
      hoverlabel: { bgcolor: color.card, bordercolor: color.line, font: { color: color.text } },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, traceorder: "normal", font: { size: 12.5 } },
      showlegend: hasLegend,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color.soft, activecolor: color.text },
      dragmode: "zoom",
    };
    place.style.minHeight = `${layout.height}px`;
    return { data, layout };
  }

  const CONFIG = {
    displaylogo: false,
    responsive: false,
    doubleClick: "reset",
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  // The text of the page is shown before the library is read, which takes longer.
  const ready = new Promise((resolve) => {
    if (document.readyState === "complete") resolve();
    else addEventListener("load", () => setTimeout(resolve));
  });

  async function draw(place, figure) {
    await ready;
    try {
      await script("assets/plotly.min.js");
    } catch (error) {
      place.replaceChildren(h("p", { class: "small" }, `No figure: ${error.message}`));
      return;
    }
    const { data, layout } = specification(figure, place.clientWidth, place);
    place.querySelectorAll("noscript").forEach((element) => element.remove());
    await Plotly.react(place, data, layout, CONFIG);
    drawn.set(place, figure);
  }

  function again(width) {
    for (const [place, figure] of drawn) {
      const { data, layout } = specification(figure, width || place.clientWidth, place);
      Plotly.react(place, data, layout, CONFIG);
    }
  }

  // One after another, so that the page stays quick; all of them, so that a
  // print has them.
  async function drawAll() {
    for (const place of document.querySelectorAll(".plot[data-study]")) {
      const entry = { slug: place.dataset.study, data: `data/${encodeURIComponent(place.dataset.study)}` };
      try {
        const found = await bitnetReport.load(entry, "figures");
        const figure = place.dataset.figure ? found.figures[place.dataset.figure]
          : forest(found.verdicts[Number(place.dataset.verdict)]);
        await draw(place, figure);
      } catch (error) {
        place.replaceChildren(h("p", { class: "small" }, `No figure: ${error.message}`));
      }
      await new Promise((resolve) => setTimeout(resolve));
    }
  }

  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("bitnet-theme", () => again());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => again());
  // Paper is light. The media of the page change only after this event.
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    again(PRINTED);
  });
  addEventListener("afterprint", () => {
    bitnetTheme.apply();
    again();
  });
  let timer = 0;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => again(), 150);
  });
  return { draw };
})();

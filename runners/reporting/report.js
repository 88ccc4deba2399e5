"use strict";
// Draws the charts of a report from the numbers in the page.

(() => {
  const colour = recipePage.colour;

  /** Plotly reads tags in texts; names from outside have none. */
  function plain(text) {
    return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  function layout(extra) {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--text") },
      margin: { l: 56, r: 14, t: 10, b: 34 },
      hoverlabel: { bgcolor: colour("--bg"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      showlegend: false,
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      separators: ".,",
    };
    return { base: { ...base, ...extra }, axis };
  }

  const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };

  function draw(id, traces, made) {
    const place = document.getElementById(id);
    if (place) Plotly.react(place, traces, made, CONFIG);
  }

  const PHASE = { plan: "--c8", provision: "--c5", prepare: "--c4", launch: "--c6", drive: "--c1", keep: "--c7", collect: "--c3", release: "--c2" };
  const SYMBOLS = { requests: "circle", metrics: "diamond", log: "square", "log of one request": "square-open" };
  const OF_ONE = "log of one request"; // how fast one request was by itself; on an axis for all it would leave no room for them

  let range = null;

  /** From when to when something happened on the lines, with a margin; null if that is most of the run. */
  function working(chart) {
    const drive = chart.bands.find((band) => band.name === "drive");
    const total = chart.bands.reduce((sum, band) => sum + band.ms, 0);
    if (!drive || drive.ms > 0.6 * total) return null;
    const margin = Math.max(drive.ms * 0.06, 1500); // the machine is looked at once a second
    return [chart.origin + Math.max(0, drive.from - margin), chart.origin + Math.min(total, drive.from + drive.ms + margin)];
  }

  /** The buttons above the chart: the time of the work alone, or all of it. */
  function offerRanges(chart) {
    const drive = working(chart);
    const place = document.getElementById("ranges");
    if (!drive || !place) return;
    place.hidden = false;
    range = drive;
    for (const button of place.querySelectorAll("button")) {
      const show = () => {
        range = button.dataset.range === "drive" ? drive : null;
        for (const other of place.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      };
      button.setAttribute("aria-pressed", String(button.dataset.range === "drive"));
      button.addEventListener("click", () => { show(); timeChart(chart); });
    }
  }

  function timeChart(chart) {
    const phone = innerWidth < 640;
    const count = chart.panels.length;
    const each = phone ? 130 : 120;
    const { base, axis } = layout();
    const gap = 34 / (each * count);
    const height = (1 - gap * (count - 1)) / count;
    const made = { ...base, height: each * count + 70, margin: { l: 52, r: 12, t: 30, b: 34 }, hovermode: "x unified", shapes: [], annotations: [] };
    made.xaxis = { ...axis, type: "date", anchor: count === 1 ? "y" : "y" + count, hoverformat: "%H:%M:%S.%L", showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "dot", spikecolor: colour("--muted") };
    const ends = chart.panels.flatMap((panel) => panel.lines.map((line) => line.x[line.x.length - 1]));
    // A machine whose clock was set meanwhile has samples hours away; they are in the data, and not in the way.
    const over = Math.max(...chart.bands.map((band) => band.from + band.ms));
    const whole = [chart.origin, chart.origin + (chart.bands.length ? Math.min(Math.max(over, ...ends), over + 10000) : Math.max(...ends))];
    const [left, right] = range || whole;
    made.xaxis.range = [left, right];
    const traces = [];
    const axisOf = {};
    chart.panels.forEach((panel, i) => {
      const number = i === 0 ? "" : String(i + 1);
      const top = 1 - i * (height + gap);
      made["yaxis" + number] = { ...axis, domain: [Math.max(0, top - height), top], rangemode: "tozero", nticks: 4, fixedrange: true, anchor: "x" };
      const marked = chart.peaks.filter((peak) => peak.panel === panel.key && peak.source !== OF_ONE).map((peak) => peak.y);
      const most = Math.max(...marked, ...panel.lines.flatMap((line) => line.y.filter((y) => y !== null)));
      made["yaxis" + number].range = panel.top ? [0, panel.top * 1.04] : [0, (most || 1) * 1.18];
      axisOf[panel.key] = { name: "y" + number, end: made["yaxis" + number].range[1] * 0.93 };
      if (most >= 1000) made["yaxis" + number].tickformat = ",";
      const legend = panel.lines.map((line) => `<span style="color:${colour("--" + line.colour)}">▬</span> ${plain(line.name)}`).join("  ");
      made.annotations.push({ xref: "paper", yref: "paper", x: 0, y: top, xanchor: "left", yanchor: "bottom", showarrow: false, align: "left", text: `<b>${plain(panel.title)}</b>${panel.unit ? " " + plain(panel.unit) : ""}   ${phone && panel.lines.length > 2 ? "" : legend}`, font: { size: 12 } });
      for (const line of panel.lines) {
        traces.push({
          type: "scatter", mode: line.x.length < 3 ? "lines+markers" : "lines", name: plain(line.name), yaxis: "y" + number,
          x: line.x.map((ms) => chart.origin + ms), y: line.y,
          line: { color: colour("--" + line.colour), width: 1.5, shape: line.step ? "hv" : "linear" },
          hovertemplate: "%{y:,.4~g} " + plain(panel.unit),
        });
      }
    });
    for (const band of chart.bands) {
      const from = chart.origin + band.from;
      made.shapes.push({ type: "rect", xref: "x", yref: "paper", x0: from, x1: from + band.ms, y0: 0, y1: 1, layer: "below", line: { width: 0 }, fillcolor: colour(PHASE[band.name] || "--c7"), opacity: 0.09 });
    }
    for (const band of chart.bands) {
      const from = Math.max(left, chart.origin + band.from);
      const to = Math.min(right, chart.origin + band.from + band.ms);
      if (to - from < (right - left) * (phone ? 0.16 : 0.06)) continue;
      made.annotations.push({ xref: "x", yref: "paper", x: (from + to) / 2, y: 1, yshift: 15, yanchor: "bottom", showarrow: false, text: plain(band.name), font: { size: 11, color: colour("--muted") } });
    }
    for (const hole of chart.gaps) {
      const from = chart.origin + hole.from;
      made.shapes.push({ type: "rect", xref: "x", yref: "paper", x0: from, x1: from + hole.ms, y0: 0, y1: 1, layer: "below", line: { width: 1, dash: "dot", color: colour("--warn") }, fillcolor: colour("--warn"), opacity: 0.18 });
    }
    for (const peak of chart.peaks) {
      const place = axisOf[peak.panel];
      if (!place) continue;
      const outside = peak.y > place.end;
      traces.push({
        type: "scatter", mode: "markers", name: `peak, ${plain(peak.source)}`, yaxis: place.name, x: [chart.origin + peak.x], y: [outside ? place.end : peak.y],
        marker: { symbol: SYMBOLS[peak.source] || "circle", size: 8, color: colour("--text"), line: { width: 1, color: colour("--bg") } },
        customdata: [peak.y], hovertemplate: "%{customdata:,.0f} tok/s",
      });
      if (outside) {
        const late = chart.origin + peak.x > left + 0.7 * (right - left);
        made.annotations.push({ xref: "x", yref: place.name, x: chart.origin + peak.x, y: place.end, text: `↑ ${Math.round(peak.y).toLocaleString("en-US")}, one request`, showarrow: false, xanchor: late ? "right" : "left", xshift: late ? -7 : 7, font: { size: 11, color: colour("--muted") }, bgcolor: colour("--bg"), opacity: 0.9 });
      }
      if (peak.source === "requests") {
        made.annotations.push({ xref: "x", yref: place.name, x: chart.origin + peak.x, y: peak.y, text: `peak ${Math.round(peak.y).toLocaleString("en-US")}`, showarrow: false, xanchor: "left", xshift: 5, yshift: 9, font: { size: 11 }, bgcolor: colour("--bg"), opacity: 0.9 });
      }
    }
    draw("time-chart", traces, made);
  }

  function latencyChart(chart) {
    const { base, axis } = layout({ height: 220, margin: { l: 44, r: 10, t: 26, b: 38 } });
    const big = chart.x[chart.x.length - 1] >= 1;
    const factor = big ? 1 : 1000;
    const unit = big ? "s" : "ms";
    const made = {
      ...base,
      xaxis: { ...axis, rangemode: "tozero", title: { text: `${chart.title}, ${unit}`, standoff: 6 }, nticks: 6 },
      yaxis: { ...axis, range: [0, 1.04], tickformat: ".0%", nticks: 5, fixedrange: true },
      shapes: [], annotations: [],
    };
    for (const [name, value] of Object.entries(chart.marks)) {
      const share = Number(name.slice(1)) / 100;
      made.shapes.push({ type: "line", xref: "x", yref: "y", x0: value * factor, x1: value * factor, y0: 0, y1: share, line: { color: colour("--c2"), width: 1, dash: "dot" } });
      made.annotations.push({ xref: "x", yref: "y", x: value * factor, y: share, text: name, showarrow: false, xanchor: share > 0.95 ? "right" : "left", yanchor: share > 0.95 ? "bottom" : "middle", xshift: share > 0.95 ? 0 : 5, font: { size: 11, color: colour("--c2") } });
    }
    const trace = { type: "scatter", mode: "lines", name: chart.title, x: chart.x.map((v) => v * factor), y: chart.y, line: { color: colour("--c1"), width: 1.8, shape: "hv" }, hovertemplate: `%{y:.1%} took at most %{x:.4~g} ${unit}<extra></extra>` };
    draw("latency-" + chart.key, [trace], made);
  }

  function loadChart(points) {
    const { base, axis } = layout({ height: 320, margin: { l: 60, r: 16, t: 16, b: 46 } });
    const made = {
      ...base, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, margin: { ...base.margin, t: 36 },
      xaxis: { ...axis, rangemode: "tozero", title: { text: "Output throughput, tok/s" } },
      yaxis: { ...axis, rangemode: "tozero", title: { text: "Latency, ms" } },
    };
    const lines = [["E2E p50", "e2e_p50", "--c1", "solid"], ["E2E p99", "e2e_p99", "--c1", "dot"], ["TTFT p50", "ttft_p50", "--c2", "solid"], ["TTFT p99", "ttft_p99", "--c2", "dot"]];
    const traces = lines.map(([name, key, tone, dash], i) => ({
      type: "scatter", mode: i === 0 ? "lines+markers+text" : "lines+markers", name,
      x: points.map((p) => p.output), y: points.map((p) => (p[key] === null ? null : p[key] * 1000)),
      text: points.map((p) => plain(p.name)), textposition: "top left", textfont: { size: 11 }, cliponaxis: false,
      line: { color: colour(tone), dash, width: 1.5 }, marker: { size: 6, color: colour(tone) },
      hovertemplate: `%{text}: %{y:,.4~g} ms at %{x:,.0f} tok/s<extra>${name}</extra>`,
    }));
    draw("load-chart", traces, made);
  }

  const BARS = { compareThroughput: "bars-throughput", compareCost: "bars-cost" };

  function barChart(id, chart) {
    const { base, axis } = layout({ height: 60 + 26 * chart.names.length + 10 * chart.series.length * chart.names.length, margin: { l: 10, r: 76, t: 8, b: 12 }, barmode: "group" });
    const made = {
      ...base, showlegend: chart.series.length > 1, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" }, bargap: 0.3,
      xaxis: { ...axis, rangemode: "tozero", showticklabels: false, showgrid: false, zeroline: true },
      yaxis: { ...axis, autorange: "reversed", type: "category", gridcolor: "rgba(0,0,0,0)" },
    };
    if (chart.series.length > 1) made.margin = { ...made.margin, t: 34 };
    const traces = chart.series.map((s) => ({
      type: "bar", orientation: "h", name: plain(s.name), y: chart.names.map(plain), x: s.values, text: s.labels, textposition: "outside", cliponaxis: false,
      marker: { color: colour("--" + s.colour) }, hovertemplate: `%{y}: %{text}<extra>${plain(s.name)}</extra>`,
    }));
    draw(id, traces, made);
  }

  const PLACES = ["bottom center", "top center", "middle left", "middle right"];

  /** Where each point has its letter: below it, where no line is, unless the letter of one beside it is there. */
  function labelPlaces(points) {
    const [width, height] = [Math.max(...points.map((p) => p.x)), Math.max(...points.map((p) => p.y))];
    const places = [];
    points.forEach((p, i) => {
      const near = places.filter((_, j) => Math.abs(points[j].x - p.x) < 0.03 * width && Math.abs(points[j].y - p.y) < 0.1 * height);
      places[i] = PLACES.find((place) => !near.includes(place)) || PLACES[0];
    });
    return places;
  }

  function scatterChart(chart) {
    const { base, axis } = layout({ height: 340, margin: { l: 64, r: 20, t: 20, b: 48 } });
    const made = {
      ...base,
      xaxis: { ...axis, rangemode: "tozero", title: { text: chart.x } },
      yaxis: { ...axis, rangemode: "tozero", title: { text: chart.y } },
    };
    const front = chart.points.filter((p) => p.front).sort((a, b) => a.x - b.x);
    const traces = [{
      type: "scatter", mode: "lines", name: "Pareto front", x: front.map((p) => p.x), y: front.map((p) => p.y), hoverinfo: "skip",
      line: { color: colour("--c3"), width: 1.5, dash: "dot", shape: "hv" },
    }, {
      type: "scatter", mode: "markers+text", name: "runs", x: chart.points.map((p) => p.x), y: chart.points.map((p) => p.y),
      text: chart.points.map((p) => plain(p.letter)), textposition: labelPlaces(chart.points), textfont: { size: 11 }, cliponaxis: false,
      marker: { size: 10, color: chart.points.map((p) => colour(p.front ? "--c3" : "--c8")) },
      customdata: chart.points.map((p) => plain(p.name)), hovertemplate: "%{customdata}: %{x:,.4~g}, %{y:.4~g}<extra></extra>",
    }];
    draw("pareto-chart", traces, made);
  }

  function drawAll(charts) {
    if (charts.time) timeChart(charts.time);
    for (const chart of charts.latency || []) latencyChart(chart);
    if (charts.load) loadChart(charts.load);
    for (const [key, id] of Object.entries(BARS)) if (charts[key]) barChart(id, charts[key]);
    if (charts.pareto) scatterChart(charts.pareto);
  }

  /** An address may have been typed, or cut off. */
  function named(hash) {
    try {
      return decodeURIComponent(hash);
    } catch {
      return hash;
    }
  }

  /** What a link points at is opened, and so is what holds it. */
  function reveal() {
    const target = location.hash.length > 1 && document.getElementById(named(location.hash.slice(1)));
    if (!target) return;
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    const own = target.querySelector(":scope > details");
    if (own) own.open = true;
    target.scrollIntoView({ block: "start" });
  }

  document.addEventListener("DOMContentLoaded", async () => {
    addEventListener("hashchange", reveal);
    reveal();
    const charts = JSON.parse(document.getElementById("charts").textContent);
    if (!document.getElementById("plotly")) return;
    try {
      await recipePage.loadPlotly();
      if (charts.time) offerRanges(charts.time);
      drawAll(charts);
      recipePage.onColours(() => drawAll(charts));
      let wide = innerWidth >= 640;
      addEventListener("resize", () => {
        if (wide !== innerWidth >= 640) { wide = innerWidth >= 640; drawAll(charts); }
      });
      document.documentElement.dataset.charts = "drawn";
    } catch (error) {
      document.documentElement.dataset.charts = "failed";
      throw error;
    }
  });
})();

"use strict";
// Shows the document that the server sends each second. Whatever a run says is shown as text, never as markup.

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SVG_TAGS = new Set(["svg", "rect", "polyline", "polygon"]);
  const LOST_AFTER_MS = 4000;
  const CURVE_S = 60;  // a curve spans at least so many seconds

  // ---- elements ------------------------------------------------------------------------------------------------

  /** An element with its attributes and children; texts become text nodes, and what is null or "" is left out. */
  function el(tag, attributes, ...children) {
    const made = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat(9)) {
      if (child !== null && child !== undefined && child !== "" && child !== false) made.append(child);
    }
    return made;
  }

  function keyOf(node) {
    return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
  }

  /** Makes one element like another with as little change as possible, so that focus, selection and place stay. */
  function morph(old, made) {
    for (const { name } of [...old.attributes]) if (!made.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of made.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const keyed = new Map();
    for (const child of old.children) if (keyOf(child)) keyed.set(keyOf(child), child);
    let place = old.firstChild;
    for (const wanted of [...made.childNodes]) {
      const key = keyOf(wanted);
      let found = key ? keyed.get(key) : place;
      if (!key && found && keyOf(found)) found = null;
      if (!found || found.nodeType !== wanted.nodeType || found.nodeName !== wanted.nodeName) {
        old.insertBefore(wanted, place);
        continue;
      }
      if (found === place) place = place.nextSibling;
      else old.insertBefore(found, place);
      if (found.nodeType === Node.TEXT_NODE) {
        if (found.data !== wanted.data) found.data = wanted.data;
      } else {
        morph(found, wanted);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  // ---- figures as people read them -----------------------------------------------------------------------------

  const whole = (value) => Math.round(value).toLocaleString("en-US");
  const two = (value) => String(value).padStart(2, "0");

  function clockTime(seconds) {
    if (seconds < 9.95) return `0:0${seconds.toFixed(1)}`;
    return wholeSeconds(seconds);
  }

  function wholeSeconds(seconds) {
    const all = Math.round(seconds);
    const hours = Math.floor(all / 3600), minutes = Math.floor(all / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(all % 60)}` : `${minutes}:${two(all % 60)}`;
  }

  function dollars(usd) {
    if (usd === null || usd === undefined) return "";
    if (usd >= 0.995) return `$${usd.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
    if (usd === 0 || usd >= 0.01) return `$${usd.toFixed(2)}`;
    const digits = Math.min(20, 1 - Math.floor(Math.log10(usd)));
    return `$${usd.toFixed(digits).replace(/0+$/, "")}`;
  }

  function about(seconds) {
    if (seconds < 7.5) return "a few seconds";
    if (seconds < 90) return `about ${5 * Math.round(seconds / 5)} s`;
    const minutes = Math.round(seconds / 60);
    if (minutes < 90) return `about ${minutes} min`;
    const tens = 10 * Math.round(minutes / 10), rest = tens % 60;
    return `about ${whole(Math.floor(tens / 60))} h${rest ? ` ${rest} min` : ""}`;
  }

  function ago(seconds) {
    return seconds < 90 ? `${Math.round(seconds)} s ago` : `${whole(seconds / 60)} min ago`;
  }

  function plural(count, one) {
    return `${whole(count)} ${one}${count === 1 ? "" : "s"}`;
  }

  const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);
  const rate = (value) => (value === null || value === undefined ? "–" : `${whole(value)} tok/s`);
  const present = (parts, between) => parts.filter(Boolean).join(between);
  const clock = (instant) => `${instant.slice(11, 16)} UTC`;

  // ---- parts of the page ---------------------------------------------------------------------------------------

  function figure(name, value, note) {
    if (!value) return null;
    return el("div", { "data-key": name }, el("dt", {}, name), el("dd", { class: "value" }, value), note ? el("dd", { class: "note" }, note) : null);
  }

  function bar(share, label) {
    const width = `${(100 * Math.min(1, Math.max(0, share || 0))).toFixed(1)}%`;
    return el("svg", { class: "bar", role: "img", "aria-label": label }, el("rect", { width, height: "100%" }));
  }

  function totals(state) {
    return el("dl", { class: "figures", "data-key": "totals" },
      figure("going on", plural(state.runs.length, "run"), state.machines.length ? `${plural(state.machines.length, "machine")} that nobody minds` : ""),
      figure("being spent", `${dollars(state.usd_per_h)}/h`, ""),
      figure("spent today", dollars(state.usd_today), "runs that began since 0:00 UTC"),
      figure("as of", `${state.at.slice(11, 19)} UTC`, ""));
  }

  function stateOf(run) {
    if (run.client === "gone") return "its client is gone";
    if (run.client === "silent") return `no sign of its client for ${wholeSeconds(run.seen_s)}`;
    if (run.stopping) return run.stopping.now ? "letting go now" : "stopping, collecting, letting go";
    return "";
  }

  function identity(run) {
    const machine = run.machine || {}, engine = run.engine || {};
    const hardware = machine.accelerator ? `${machine.accelerator} ×${machine.count}` : "";
    const tags = run.tags.map((tag) => `#${tag}`).join(" ");
    return present([run.model, present([engine.name, engine.version], " "),
      present([hardware, machine.provider, machine.region], ", "), tags], " · ");
  }

  function phaseRow(name, took, usd, note, mark, now) {
    return el("tr", { "data-key": now ? "now" : null, class: now ? "now" : null },
      el("td", {}, `${mark} ${name}`), el("td", { class: "num" }, took), el("td", { class: "num" }, dollars(usd)), el("td", {}, note));
  }

  function phases(run) {
    const rows = run.phases.map((phase) =>
      phaseRow(phase.name, clockTime(phase.seconds), phase.usd, phase.note, phase.ok ? "✓" : "✗", false));
    if (run.phase) {
      const before = run.phases.reduce((sum, phase) => sum + (phase.usd || 0), 0);
      const usd = run.usd === null ? null : Math.max(0, run.usd - before);
      rows.push(phaseRow(run.phase.name, wholeSeconds(run.phase.seconds), usd, run.phase.doing, "▸", true));
    }
    return el("table", { class: "phases", "data-key": "phases" },
      el("caption", { class: "visually-hidden" }, "Phases"),
      el("thead", { class: "visually-hidden" }, el("tr", {}, ["phase", "time", "cost", "what"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows));
  }

  function drive(run) {
    const driven = run.driven;
    if (!driven || !run.phase || run.phase.name !== "drive") return null;
    const level = driven.unit === "point" ? "" : `level ${driven.level}`;
    const words = present([`${whole(driven.done)} of ${whole(driven.expected)} requests`, level,
      `${whole(driven.documents_done)} of ${plural(driven.documents, driven.unit)} done`], " · ");
    const engine = present([
      driven.running === null ? "" : `${whole(driven.running)} running`,
      driven.waiting === null ? "" : `${whole(driven.waiting)} waiting`,
      driven.kv_usage === null ? "" : `KV ${percent(driven.kv_usage)}`], " · ");
    return el("div", { "data-key": "drive" },
      el("p", { class: "advance" }, words),
      bar(driven.expected ? driven.done / driven.expected : 0, words),
      el("div", { class: "curves" }, curve(run, "prompt"), curve(run, "output")),
      engine ? el("p", { class: "muted" }, engine) : null);
  }

  function curve(run, kind) {
    const values = (run.rates && run.rates[`${kind}_tokens_per_s`]) || [];
    const latest = values.slice(-5);
    const now = values.length > 1 ? latest.reduce((a, b) => a + b, 0) / latest.length : run.driven[`${kind}_tokens_per_s`];
    const peak = values.length ? Math.max(...values) : 0;
    const span = Math.max(CURVE_S, values.length - 1);
    const points = values.map((value, i) =>
      `${(100 * (span - (values.length - 1 - i)) / span).toFixed(2)},${(39 - 38 * (peak ? value / peak : 0)).toFixed(2)}`);
    const first = points.length ? points[0].split(",")[0] : "100";
    const words = `${kind} ${rate(now)}, peak ${rate(peak)} in the last ${plural(values.length, "second")}`;
    return el("figure", { class: `curve ${kind}` },
      el("figcaption", {}, el("span", {}, `${kind} `, el("strong", {}, rate(now))), el("span", {}, peak ? `peak ${whole(peak)}` : "")),
      el("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": words },
        points.length > 1 ? el("polygon", { points: `${first},40 ${points.join(" ")} 100,40` }) : null,
        points.length > 1 ? el("polyline", { points: points.join(" ") }) : null),
      el("div", { class: "span muted" }, el("span", {}, `${wholeSeconds(span)} ago`), el("span", {}, "now")));
  }

  function memory(used, total) {
    if (used === null || used === undefined) return "";
    const gib = (mib) => (mib / 1024).toFixed(1);
    return total ? `${gib(used)} of ${gib(total)} GiB` : `${gib(used)} GiB`;
  }

  function gpus(run) {
    if (!run.gpus.length) return null;
    const rows = run.gpus.map((gpu) => {
      const head = el("th", { scope: "row" }, present([`${gpu.index}`, gpu.name], " "));
      if (gpu.lost !== null) return el("tr", {}, head, el("td", { class: "bad", colspan: "5" }, `lost: ${gpu.lost}`));
      return el("tr", {}, head,
        el("td", { class: "num" }, percent(gpu.utilization), bar(gpu.utilization, `GPU ${gpu.index}: ${percent(gpu.utilization)} used`)),
        el("td", { class: "num" }, memory(gpu.memory_used_mib, gpu.memory_total_mib)),
        el("td", { class: "num" }, gpu.power_w === null ? "" : `${whole(gpu.power_w)} W`),
        el("td", { class: "num" }, gpu.temperature_c === null ? "" : `${whole(gpu.temperature_c)} °C`),
        el("td", { class: "warn" }, (gpu.throttle || []).join(", ")));
    });
    return el("div", { class: "table-wrap gpus", "data-key": "gpus", tabindex: "0", role: "group", "aria-label": "GPUs" }, el("table", {},
      el("thead", {}, el("tr", {}, ["GPU", "used", "memory", "power", "temperature", "throttled"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows)));
  }

  function host(run) {
    const at = run.host;
    if (!at) return null;
    const ram = memory(at.ram_used_mib, at.ram_total_mib);
    const words = present([at.hostname, at.cpu === null ? "" : `CPU ${percent(at.cpu)} of ${plural(at.cpus || 0, "core")}`,
      ram && `RAM ${ram}`, at.load_1m === null ? "" : `load ${at.load_1m.toFixed(1)}`], " · ");
    return el("p", { class: "muted", "data-key": "host" }, words);
  }

  function wayOut(lease) {
    const end = ["to end it: ", el("code", {}, `recipe down ${lease.run_id}`)];
    if (lease.provider === "local") return el("p", {}, end);
    return el("p", {}, "to go on there: ", el("code", {}, `recipe attach ${lease.run_id}`), "; ", end);
  }

  function gone(run) {
    if (run.client !== "gone" || !run.lease) return null;
    const price = run.lease.usd_per_h;
    const heard = run.seen_s === null ? "" : `; last heard of ${wholeSeconds(run.seen_s)} ago`;
    const bills = price ? `its machine may be billing ${dollars(price)}/h` : "what it started may still run";
    return el("div", { class: "notice bad", "data-key": "gone" }, el("p", {}, `Its client is gone${heard}; ${bills}.`), wayOut(run.lease));
  }

  function card(run) {
    const limit = run.max_cost_usd ? `of at most ${dollars(run.max_cost_usd)}` : "";
    const price = run.usd_per_h === null ? "" : `${dollars(run.usd_per_h)}/h`;
    const left = run.left_s === null || stateOf(run) ? "" : about(run.left_s);
    const inAll = run.usd_at_end ? `about ${dollars(run.usd_at_end)} in all` : "";
    return el("article", { class: run.client === "gone" ? "run gone" : "run", "data-key": run.run_id, "aria-label": run.run_id },
      el("h2", {}, run.run_id),
      el("p", { class: "identity muted" }, identity(run)),
      el("dl", { class: "figures" },
        figure("phase", run.phase ? run.phase.name : "", stateOf(run)),
        figure("spent", dollars(run.usd), present([limit, price], ", ")),
        figure("took so far", wholeSeconds(run.seconds), ""),
        figure("left", left, inAll),
        figure("lets itself go", run.deadline ? clock(run.deadline) : "", "at the latest")),
      gone(run),
      run.warnings.map((message) => el("p", { class: "notice warn" }, message)),
      phases(run), drive(run), gpus(run), host(run));
  }

  function machine(row) {
    const price = row.usd_per_h ? ` ${dollars(row.usd_per_h)}/h` : "";
    const spent = row.usd ? `, ${dollars(row.usd)} so far` : "";
    return el("div", { class: "notice bad", "data-key": `machine ${row.name}` },
      el("p", {}, `${row.name} at ${row.provider} may be billing${price}${spent}; nobody minds it.`), wayOut(row));
  }

  function endedRow(run) {
    const good = run.status === "completed" && !run.exit_code;
    const billing = run.exit_code === 9 ? ", may still be billing" : "";
    const where = run.status !== "completed" && run.phase ? ` in ${run.phase}` : "";
    const report = run.report ? el("a", { href: `runs/${encodeURIComponent(run.run_id)}/report.html`, target: "_blank", rel: "noopener noreferrer" }, "report") : "";
    return el("tr", { "data-key": run.run_id },
      el("td", {}, run.run_id),
      el("td", { class: good ? "good" : "bad" }, `${good ? "✓" : "✗"} ${run.status}${where}${billing}`),
      el("td", { class: "num" }, run.seconds === null ? "" : clockTime(run.seconds)),
      el("td", { class: "num" }, dollars(run.usd)),
      el("td", { class: "num" }, run.output_tokens_per_s ? whole(run.output_tokens_per_s) : ""),
      el("td", { class: "num" }, ago(run.ago_s)),
      el("td", {}, report));
  }

  function ended(state) {
    if (!state.ended.length) return null;
    const names = ["run", "how", "time", "cost", "output tok/s", "when", "report"];
    return el("section", { "data-key": "ended", "aria-labelledby": "ended" },
      el("h2", { id: "ended" }, "Ended lately"),
      el("div", { class: "table-wrap", tabindex: "0", role: "group", "aria-labelledby": "ended" }, el("table", { class: "ended" },
        el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, state.ended.map(endedRow)))));
  }

  function nothing(state) {
    if (state.runs.length || state.machines.length) return null;
    return el("p", { "data-key": "nothing" }, "Nothing is going on. Try ", el("code", {}, "recipe up local-smoke"));
  }

  // ---- what is shown -------------------------------------------------------------------------------------------

  const place = document.getElementById("overview");
  const connection = document.getElementById("connection");
  const status = document.getElementById("status");
  let heardAt = performance.now(), latest = "";

  function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
    if (node === connection) node.hidden = !text;
  }

  function show(state) {
    if (state.error) {
      say(connection, state.error);
      place.classList.add("stale");
      return;
    }
    say(connection, "");
    const made = el("div", { id: "overview" }, totals(state), nothing(state), state.machines.map(machine), state.runs.map(card), ended(state));
    morph(place, made);
    const now = state.runs.map((run) => `${run.recipe}: ${run.phase ? run.phase.name : "begun"}`);
    say(status, present([`${plural(state.runs.length, "run")} going on`, ...now], ", "));
    document.title = state.runs.length ? `${plural(state.runs.length, "run")} · recipe watch` : "recipe watch";
  }

  function take(text) {
    heardAt = performance.now();
    if (text === latest) return;
    latest = text;
    show(JSON.parse(text));
  }

  // ---- the connection: one for all tabs, because browsers allow few to one server ------------------------------

  const others = "BroadcastChannel" in window ? new BroadcastChannel("recipe-watch") : null;
  if (others) others.onmessage = (event) => take(event.data);

  function listen() {
    const source = new EventSource("events");
    source.onmessage = (event) => {
      take(event.data);
      if (others) others.postMessage(event.data);
    };
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      source.close();
      setTimeout(listen, 1000);
    };
  }

  if (others && navigator.locks) {
    navigator.locks.request("recipe-watch", () => { listen(); return new Promise(() => {}); });
  } else {
    listen();
  }

  async function ask() {
    try {
      const answer = await fetch("state.json", { cache: "no-store", signal: AbortSignal.timeout(LOST_AFTER_MS) });
      if (answer.ok) take(await answer.text());
    } catch { /* told below */ }
  }

  setInterval(async () => {
    if (performance.now() - heardAt < LOST_AFTER_MS) return;
    await ask();
    const silent = performance.now() - heardAt;
    if (silent < LOST_AFTER_MS) return;
    place.classList.add("stale");
    say(connection, `The connection is lost: recipe watch has ended, or this machine sleeps. What is shown is ${wholeSeconds(silent / 1000)} old.`);
  }, 1000);

  ask();
})();

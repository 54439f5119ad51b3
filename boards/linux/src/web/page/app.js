// Draws what /api/state says, once a second; plots come from /api/history. No library, no asset from elsewhere.
"use strict";

const $ = (id) => document.getElementById(id);
let state = null, selected = null, range = "minute", lastGood = 0, wait = 1000, timer = 0;

// ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────

function span(ns) {
  if (ns === null || ns === undefined) return "–";
  for (const [unit, scale] of [["ns", 1], ["µs", 1e3], ["ms", 1e6]]) if (ns < scale * 1000) return short(ns / scale) + " " + unit;
  const s = ns / 1e9;
  if (s < 120) return short(s) + " s";
  if (s < 7200) return short(s / 60) + " min";
  if (s < 172800) return short(s / 3600) + " h";
  return short(s / 86400) + " days";
}
const short = (x) => (Math.abs(x) >= 100 ? x.toFixed(0) : Math.abs(x) >= 10 ? x.toFixed(1) : x.toFixed(2)).replace(/\.0+$/, "");
const count = (n) => Number(n).toLocaleString("en").replace(/,/g, " ");
function bytes(n) {
  if (n === null || n === undefined) return "–";
  for (const [unit, scale] of [["B", 1], ["KiB", 1024], ["MiB", 1048576]]) if (n < scale * 1024) return short(n / scale) + " " + unit;
  return short(n / 1073741824) + " GiB";
}
function value(x, channel) {
  if (x === null || x === undefined) return "–";
  const digits = Math.max(0, Math.min(6, -channel.exponent));
  return x.toFixed(digits) + (channel.unit ? " " + channel.unit : "");
}

// ── page ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function element(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, v] of Object.entries(attributes || {})) if (v !== null && v !== undefined) e.setAttribute(name, v);
  e.append(...children);
  return e;
}
function figures(into, pairs) {
  into.replaceChildren(...pairs.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))));
}

function draw() {
  const s = state;
  const words = { ok: "OK", warn: "WARN", fault: "FAULT" };
  $("health").className = s.health;
  $("health").replaceChildren(element("b", {}, words[s.health]), " ",
    element("span", {}, s.alarms.length ? s.alarms.map((a) => a.text).slice(0, 3).join(" · ") : "nothing to do"));
  document.title = (s.health === "ok" ? "" : words[s.health] + " – ") + "groundplane";
  figures($("figures"), [
    ["Samples/s", short(s.rate)], ["Samples", count(s.samples)], ["Acknowledged", count(s.acknowledged)],
    ["Ack p50 / p99", span(s.ack.p50) + " / " + span(s.ack.p99)],
    ["Disk left", s.log.seconds_left === null ? "retention first" : span(s.log.seconds_left * 1e9)],
    ["Packets in / bad", count(s.link.rx) + " / " + count(s.link.rx_bad)],
    ["Heap", bytes(s.heap_bytes)], ["Up", span(s.uptime_ns)], ["Version", s.version],
  ]);
  figures($("log"), [
    ["State", s.log.text], ["Written by", s.log.backend], ["Records durable", count(s.log.durable)],
    ["Commit p50 / p99", span(s.log.commit.p50) + " / " + span(s.log.commit.p99)],
    ["Size / budget", bytes(s.log.bytes) + " / " + bytes(s.log.retention_bytes)], ["Disk free", bytes(s.log.free_bytes)],
    ["Damage", s.log.damage.length ? s.log.damage.join("; ") : "none"], ["Log", s.log.id.slice(0, 8)],
  ]);
  $("files").replaceChildren(...s.log.segments.map((f) =>
    element("li", {}, element("a", { href: "/log/" + f.name, download: f.name }, f.name), " " + bytes(f.bytes))));
  $("empty").hidden = s.nodes.length > 0;
  drawNodes(s.nodes);
  if (selected === null && s.nodes.length) selected = s.nodes[0].id;
  const node = s.nodes.find((n) => n.id === selected);
  $("detail").hidden = !node;
  if (node) drawDetail(node);
}

function drawNodes(nodes) {
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.node : null;
  const rows = nodes.map((n) => {
    const seen = n.last_seen_ns === null ? "never" : n.silent ? "silent " + span(n.last_seen_ns) : span(n.last_seen_ns) + " ago";
    const clock = n.clock_offset_ns === null ? "–" : (n.clock_offset_ns < 0 ? "−" : "+") + span(Math.abs(n.clock_offset_ns)) + " ± " + span(n.clock_error_ns);
    const cells = [
      ["Node", n.name + " #" + n.id], ["Last seen", seen], ["Samples/s", short(n.rate)], ["Durable", count(n.durable)],
      ["Lost", count(n.lost)], ["Misses", count(n.deadline_misses)], ["RTT", span(n.rtt_ns)],
      ["Held", count(n.held) + " / " + count(n.pool)], ["Clock", clock], ["Firmware", n.firmware],
    ];
    const row = element("tr", { tabindex: 0, "data-node": n.id, class: n.silent ? "silent" : null, "aria-selected": n.id === selected });
    cells.forEach(([label, text], i) => {
      const cell = element("td", { "data-label": label, class: i >= 2 && i <= 8 ? "n" : null });
      cell.append(i === 1 && n.silent ? element("span", { class: "tag" }, text) : i === 0 ? text : element("span", { class: "value" }, text));
      row.append(cell);
    });
    const choose = () => { selected = n.id; draw(); plots(); };
    row.addEventListener("click", choose);
    row.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(); } });
    return row;
  });
  $("nodes").tBodies[0].replaceChildren(...rows);
  if (focused) { const again = document.querySelector(`tr[data-node="${focused}"]`); if (again) again.focus(); }
}

function drawDetail(node) {
  $("detail-title").textContent = "Channels of " + node.name + " #" + node.id;
  const wanted = node.groups.flatMap((g) => g.channels.map((c, i) => `p-${node.id}-${g.id}-${i}`));
  const have = [...$("plots").children].map((e) => e.id);
  if (wanted.join() !== have.join()) {
    $("plots").replaceChildren(...wanted.map((id) => element("div", { class: "plot", id },
      element("p", {}, element("b", {}), element("span", { class: "value" })), element("div", { class: "graph" }))));
    plots();
  }
  for (const g of node.groups) g.channels.forEach((c, i) => {
    const plot = $(`p-${node.id}-${g.id}-${i}`);
    if (!plot) return;
    plot.classList.toggle("silent", node.silent);
    plot.querySelector("b").textContent = c.name;
    plot.querySelector(".value").textContent = value(c.last, c);
  });
  const l = node.irq_latency;
  $("latency").replaceChildren(bars([["p50", l.p50], ["p99", l.p99], ["max", l.max]]));
}

// ── plots ────────────────────────────────────────────────────────────────────────────────────────────────────────

const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes, text) {
  const e = document.createElementNS(SVG, tag);
  for (const [name, v] of Object.entries(attributes)) e.setAttribute(name, v);
  if (text !== undefined) e.textContent = text;
  return e;
}

// Bars on a logarithmic scale from 100 ns to 100 ms.
function bars(pairs) {
  const root = svg("svg", { viewBox: "0 0 600 " + (pairs.length * 18 + 14), role: "img", "aria-label": "Interrupt latency: " + pairs.map(([n, v]) => n + " " + span(v)).join(", ") });
  const x = (ns) => 40 + 460 * Math.max(0, Math.min(1, (Math.log10(Math.max(ns, 100)) - 2) / 6));
  pairs.forEach(([name, v], i) => {
    root.append(svg("text", { x: 0, y: i * 18 + 11 }, name), svg("rect", { class: "bar", x: 40, y: i * 18 + 2, width: Math.max(1, x(v) - 40), height: 11 }),
      svg("text", { x: x(v) + 6, y: i * 18 + 11 }, v ? span(v) : "–"));
  });
  for (let e = 2; e <= 8; e += 2) root.append(svg("text", { x: x(10 ** e), y: pairs.length * 18 + 10 }, span(10 ** e)));
  return root;
}

function graph(points, channel) {
  const W = 320, H = 96, known = points.filter((p) => p);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": channel.name + ", " + known.length + " of " + points.length + " intervals have data" });
  if (!known.length) { root.append(svg("text", { x: 8, y: H / 2 }, "no data in this range")); return root; }
  let low = Math.min(...known.map((p) => p.min)), high = Math.max(...known.map((p) => p.max));
  if (high - low < 1e-12) { const pad = Math.abs(high) * 0.05 || 1; low -= pad; high += pad; }
  const x = (i) => 4 + (W - 8) * (points.length > 1 ? i / (points.length - 1) : 0), y = (v) => 6 + (H - 22) * (1 - (v - low) / (high - low));
  root.append(svg("line", { class: "axis", x1: 0, x2: W, y1: H - 14, y2: H - 14 }));
  let run = [];
  const flush = () => {
    if (run.length) {
      const top = run.map(([i, p]) => `${x(i)},${y(p.max)}`), bottom = run.map(([i, p]) => `${x(i)},${y(p.min)}`).reverse();
      root.append(svg("polygon", { class: "band", points: [...top, ...bottom].join(" ") }));
      root.append(svg("polyline", { class: "mean", points: run.map(([i, p]) => `${x(i)},${y(p.mean)}`).join(" "), "stroke-linecap": "round" }));
    }
    run = [];
  };
  points.forEach((p, i) => { if (p) run.push([i, p]); else flush(); });
  flush();
  points.forEach((p, i) => { if (p && p.late) root.append(svg("rect", { class: "late", x: x(i) - 1.5, y: H - 13, width: 3, height: 3 })); });
  root.append(svg("text", { x: 0, y: H - 2 }, value(low, channel)), svg("text", { x: W, y: H - 2, "text-anchor": "end" }, value(high, channel)));
  return root;
}

async function plots() {
  const node = state && state.nodes.find((n) => n.id === selected);
  if (!node || document.hidden) return;
  for (const g of node.groups) {
    let history;
    try {
      const answer = await fetch(`/api/history?node=${node.id}&group=${g.id}&range=${range}`);
      if (!answer.ok) continue;
      history = await answer.json();
    } catch { return; }
    g.channels.forEach((c, i) => {
      const plot = $(`p-${node.id}-${g.id}-${i}`);
      if (plot && history.channels[i]) plot.querySelector(".graph").replaceChildren(graph(history.channels[i].points, c));
    });
  }
}

// ── loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function banner(text) {
  $("banner").hidden = !text;
  $("banner").textContent = text || "";
  document.body.classList.toggle("stale", Boolean(text));
}

async function turn() {
  clearTimeout(timer);
  if (document.hidden) return; // a hidden tab asks for nothing; it starts again when it is shown
  try {
    const answer = await fetch("/api/state", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    state = await answer.json();
    lastGood = Date.now();
    wait = 1000;
    banner(null);
    draw();
    plots();
  } catch {
    const age = lastGood ? span((Date.now() - lastGood) * 1e6) + " old" : "not loaded";
    banner("The gateway does not answer. What you see is " + age + ". Trying again every " + span(wait * 1e6) + ".");
    wait = Math.min(wait * 2, 15000);
  }
  timer = setTimeout(turn, wait);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
for (const button of document.querySelectorAll("[data-range]")) button.addEventListener("click", () => {
  range = button.dataset.range;
  for (const other of document.querySelectorAll("[data-range]")) other.setAttribute("aria-pressed", other === button);
  plots();
});
turn();

"use strict";
// The page of a grid: a table that sorts, plots, a wall of pictures, and one picture beside another.

const $ = (id) => document.getElementById(id);
const PAGE = 120; // pictures that the wall shows at a time
const PARTS = 8; // bar charts of the breakdown, at most
const ROOM = { left: 62, right: 24, top: 28, bottom: 44 };
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const n = Number(value);
  if (!Number.isFinite(n)) return n > 0 ? "∞" : "–";
  if (n !== 0 && Math.abs(n) < 1e-4) return n.toExponential(1);
  return Math.abs(n) >= 1000 ? n.toFixed(0) : String(Number(n.toPrecision(3)));
}

const cells = data.cells.map(([m, c, s, done, seconds, peak, file, values], index) => ({
  index, m, c, s, done: Boolean(done), seconds, peak, file, values,
}));
const metricAt = new Map(data.metrics.map((metric, index) => [metric.name, index]));
const mean = (method, name) => (method.values[name] ? Number(method.values[name].mean) : null);

// Head

function head() {
  document.title = data.name;
  $("name").textContent = data.name;
  $("sentence").textContent = data.sentence;
  const done = cells.filter((cell) => cell.done).length;
  const failed = cells.length - done;
  $("facts").textContent =
    `${data.methods.length} methods, ${data.contents.length} contents, ${data.styles.length} styles, ` +
    `${data.size} px, seed ${data.seed}: ${done} pictures${failed ? `, ${failed} failed` : ""}. ${data.machine}.`;
  $("theme").onclick = () => {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  };
}

// Table of means

const COLUMNS = [
  { name: "method", text: (method) => method.name, key: (method) => method.name },
  ...data.metrics.map((metric) => ({
    name: metric.name, better: metric.better, title: metric.sentence,
    key: (method) => mean(method, metric.name), text: (method) => number(mean(method, metric.name)),
    note: (method) => bounds(method.values[metric.name]),
  })),
  { name: "seconds", better: "lower", title: "Median time of a picture in a known style", key: (m) => m.seconds, text: (m) => number(m.seconds) },
  { name: "first", better: "lower", title: "Median time of the first picture in a style, which loads and looks", key: (m) => m.first, text: (m) => number(m.first) },
  { name: "MiB", better: "lower", title: "Peak memory of the process, Python and networks of metrics included", key: (m) => m.peak, text: (m) => number(m.peak) },
  { name: "pictures", better: "higher", key: (m) => m.done, text: (m) => `${m.done}${m.failed ? `, ${m.failed} failed` : ""}`, plain: true },
];
let sorted = { column: 0, up: true, asked: false };

function bounds(value) {
  if (!value) return "";
  if (value.low === null) return value.note ? `N ${value.count}` : "";
  return `${number(value.low)} to ${number(value.high)}`;
}

// The best of some methods in a column; a baseline may win, and is marked apart.
function best(column, methods) {
  const known = methods.map(column.key).filter((value) => value !== null && !Number.isNaN(value));
  if (!column.better || column.plain || !known.length) return null;
  return column.better === "higher" ? Math.max(...known) : Math.min(...known);
}

function sortedMethods() {
  if (!sorted.asked) return data.methods;
  const { key } = COLUMNS[sorted.column];
  const empty = (value) => value === null || value === undefined || Number.isNaN(value);
  return [...data.methods].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (empty(x) || empty(y)) return empty(x) - empty(y);
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return sorted.up ? order : -order;
  });
}

function heading(column, index) {
  const arrow = column.better && !column.plain ? (column.better === "higher" ? " ▲" : " ▼") : "";
  const button = element("button", { type: "button", title: column.title || "" }, column.name + arrow);
  button.onclick = () => {
    const up = sorted.asked && sorted.column === index ? !sorted.up : column.better !== "higher";
    sorted = { column: index, up, asked: true };
    table();
    $("means").querySelectorAll("th button")[index].focus();
  };
  const state = sorted.asked && sorted.column === index ? (sorted.up ? "ascending" : "descending") : "none";
  return element("th", { scope: "col", "aria-sort": state }, button);
}

function table() {
  const real = data.methods.filter((method) => !method.baseline);
  const bests = COLUMNS.map((column) => best(column, data.methods));
  const ours = COLUMNS.map((column) => best(column, real));
  const rows = sortedMethods().map((method) => {
    const row = element("tr", { className: method.baseline ? "baseline" : "" });
    COLUMNS.forEach((column, index) => {
      const cell = element("td", {}, column.text(method));
      const value = column.key(method);
      const marks = [...(bests[index] !== null && value === bests[index] ? ["best"] : []),
        ...(ours[index] !== null && value === ours[index] && !method.baseline ? ["first"] : [])];
      cell.className = marks.join(" ");
      const note = column.note ? column.note(method) : "";
      if (note) cell.append(element("small", { title: method.values[column.name].note || "" }, note));
      row.append(cell);
    });
    return row;
  });
  $("means").replaceChildren(
    element("thead", {}, element("tr", {}, ...COLUMNS.map(heading))), element("tbody", {}, ...rows));
}

function restsOn() {
  $("gaps").append(...data.gaps.map((gap) => element("li", {}, gap)));
  const rows = data.metrics.map((metric) => {
    const features = Object.entries(metric.features).map(([name, hash]) => `${name} (sha256 ${hash.slice(0, 12)}…)`);
    const facts = [metric.name, metric.sentence, metric.about, metric.better, metric.resize, features.join(", ") || "none"];
    return element("tr", {}, ...facts.map((fact) => element("td", {}, fact)));
  });
  const names = ["metric", "what it measures", "about", "better", "resize", "features"];
  $("metrics").append(
    element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows));
}

// Plots

function ticks(low, high, count = 5) {
  const step = 10 ** Math.floor(Math.log10((high - low) / count || 1));
  const nice = [1, 2, 5, 10].map((n) => n * step).find((n) => (high - low) / n <= count) || step;
  const found = [];
  for (let at = Math.ceil(low / nice) * nice; at <= high + nice * 1e-9; at += nice) found.push(at);
  return found;
}

function powers(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const times of [1, 2, 5]) {
      const at = times * 10 ** power;
      if (at >= low && at <= high) found.push(at);
    }
  }
  return found;
}

function pareto(metric) {
  const [wide, high] = [640, 420];
  const points = data.methods
    .map((method) => ({ method, x: method.seconds, y: mean(method, metric.name) }))
    .filter((point) => point.x > 0 && point.y !== null && Number.isFinite(point.y));
  const svg = $("pareto");
  svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  svg.replaceChildren();
  if (!points.length) return;
  const [x0, x1] = [Math.min(...points.map((p) => p.x)) / 1.5, Math.max(...points.map((p) => p.x)) * 1.5];
  const ys = points.map((p) => p.y);
  const gap = (Math.max(...ys) - Math.min(...ys)) * 0.1 || 1;
  const [y0, y1] = [Math.min(...ys) - gap, Math.max(...ys) + gap];
  const x = (value) => ROOM.left + (Math.log(value / x0) / Math.log(x1 / x0)) * (wide - ROOM.left - ROOM.right);
  const y = (value) => high - ROOM.bottom - ((value - y0) / (y1 - y0)) * (high - ROOM.top - ROOM.bottom);
  for (const at of powers(x0, x1)) {
    svg.append(drawn("line", { class: "grid", x1: x(at), x2: x(at), y1: ROOM.top, y2: high - ROOM.bottom }),
      drawn("text", { class: "tick", x: x(at), y: high - 26, "text-anchor": "middle" }, number(at)));
  }
  for (const at of ticks(y0, y1)) {
    svg.append(drawn("line", { class: "grid", x1: ROOM.left, x2: wide - ROOM.right, y1: y(at), y2: y(at) }),
      drawn("text", { class: "tick", x: ROOM.left - 6, y: y(at) + 4, "text-anchor": "end" }, number(at)));
  }
  const front = frontier(points, metric.better === "higher");
  svg.append(drawn("polyline", { class: "front", points: front.map((p) => `${x(p.x)},${y(p.y)}`).join(" ") }),
    drawn("text", { x: wide - ROOM.right, y: high - 8, "text-anchor": "end" }, "seconds a picture"),
    drawn("text", { x: 8, y: 16 }, `${metric.name}, ${metric.better} is better`));
  labels(svg, points.map((p) => ({ ...p, left: x(p.x), top: y(p.y) })), wide);
}

// Where a name may stand beside its point: right, left, above, below, and further off.
const BESIDE = [[9, 4, "start"], [-9, 4, "end"], [0, -10, "middle"], [0, 18, "middle"],
  ...[-12, 20, -26, 34, -40, 48].flatMap((down) => [[9, down, "start"], [-9, down, "end"]])];

// The room of a name at a place: left, right, top, bottom.
function roomOf(name, left, top, anchor) {
  const long = name.length * 6.8;
  const start = anchor === "start" ? left : anchor === "end" ? left - long : left - long / 2;
  return [start, start + long, top - 11, top + 3];
}

function labels(svg, points, wide) {
  const taken = points.map((point) => [point.left - 6, point.left + 6, point.top - 6, point.top + 6]);
  const free = (room) => room[0] > ROOM.left && room[1] < wide && room[2] > 0
    && !taken.some((other) => room[0] < other[1] && room[1] > other[0] && room[2] < other[3] && room[3] > other[2]);
  for (const point of [...points].sort((a, b) => a.top - b.top)) {
    const { name } = point.method;
    const at = ([x, y, anchor]) => roomOf(name, point.left + x, point.top + y, anchor);
    const place = BESIDE.find((one) => free(at(one))) || BESIDE[0];
    const [x, y, anchor] = place;
    taken.push(at(place));
    const far = Math.abs(y) > 20;
    svg.append(drawn("g", {},
      drawn("title", {}, `${name}: ${number(point.y)}, ${number(point.x)} s`),
      ...(far ? [drawn("line", { class: "grid", x1: point.left, y1: point.top, x2: point.left + x, y2: point.top + y - 4 })] : []),
      drawn("circle", { class: `mark${point.method.baseline ? " baseline" : ""}`, cx: point.left, cy: point.top, r: 5 }),
      drawn("text", { x: point.left + x, y: point.top + y, "text-anchor": anchor }, name)));
  }
}

function frontier(points, up) {
  let edge = up ? -Infinity : Infinity;
  return [...points].sort((a, b) => a.x - b.x).filter((point) => {
    const better = up ? point.y > edge : point.y < edge;
    if (better) edge = point.y;
    return better;
  });
}

function bars(metric) {
  const entries = data.methods.filter((method) => Number.isFinite(mean(method, metric.name)) && mean(method, metric.name) !== null)
    .map((method) => ({ method, value: method.values[metric.name] }));
  chart($("bars"), entries, span(entries), metric);
}

// From the shortest to the longest of some bars, with zero.
function span(entries) {
  const ends = entries.flatMap(({ value: v }) => [Number(v.mean), v.low ?? Number(v.mean), v.high ?? Number(v.mean), 0]);
  return [Math.min(...ends), Math.max(...ends) * 1.08 || 1];
}

function chart(svg, entries, [low, top], metric) {
  const longest = Math.max(8, ...entries.map(({ method }) => method.name.length));
  const [wide, left, step] = [640, Math.min(220, 14 + longest * 7), 26];
  const high = ROOM.top + entries.length * step + ROOM.bottom;
  svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  svg.replaceChildren();
  const x = (value) => left + ((value - low) / (top - low)) * (wide - left - 70);
  for (const at of ticks(low, top)) {
    svg.append(drawn("line", { class: "grid", x1: x(at), x2: x(at), y1: ROOM.top, y2: high - ROOM.bottom }),
      drawn("text", { class: "tick", x: x(at), y: high - 26, "text-anchor": "middle" }, number(at)));
  }
  entries.forEach(({ method, value }, index) => svg.append(...bar(method, value, x, ROOM.top + index * step, left)));
  svg.append(drawn("text", { x: wide - 12, y: high - 8, "text-anchor": "end" }, `${metric.name}, ${metric.better} is better`));
}

function bar(method, value, x, top, left) {
  const [start, end] = [Math.min(x(0), x(Number(value.mean))), Math.max(x(0), x(Number(value.mean)))];
  const parts = [
    drawn("text", { x: left - 8, y: top + 16, "text-anchor": "end" }, method.name),
    drawn("rect", { class: `mark${method.baseline ? " baseline" : ""}`, x: start, y: top + 4, width: Math.max(end - start, 1), height: 16, rx: 2 }),
    drawn("text", { x: Math.max(end, value.high === null ? 0 : x(value.high)) + 6, y: top + 16 }, number(value.mean)),
  ];
  if (value.low !== null) parts.push(drawn("line", { class: "whisker", x1: x(value.low), x2: x(value.high), y1: top + 12, y2: top + 12 }));
  return parts;
}

// Breakdown

function breakdown(metric) {
  const by = $("by").value;
  const at = metricAt.get(metric.name);
  const names = by === "c" ? data.contents.map((one) => one.name) : by === "s" ? data.styles.map((one) => one.name)
    : [...new Set(data.styles.map((one) => one.group || "no group"))];
  const place = (cell) => (by === "c" ? cell.c : by === "s" ? cell.s : names.indexOf(data.styles[cell.s].group || "no group"));
  const sums = new Map();
  for (const cell of cells) {
    const value = cell.done && at !== undefined ? cell.values[at] : null;
    if (value === null || value === undefined) continue;
    const key = `${place(cell)} ${cell.m}`;
    const [sum, count] = sums.get(key) || [0, 0];
    sums.set(key, [sum + Number(value), count + 1]);
  }
  const rows = names.map((name, index) => {
    const found = data.methods.map((_, m) => sums.get(`${index} ${m}`)).map((pair) => (pair ? pair[0] / pair[1] : null));
    const good = found.filter((value) => value !== null);
    const top = good.length ? (metric.better === "higher" ? Math.max(...good) : Math.min(...good)) : null;
    return element("tr", {}, element("td", {}, name),
      ...found.map((value) => element("td", { className: value !== null && value === top ? "best" : "" }, number(value))));
  });
  charts(metric, names, names.map((_, index) => data.methods.map((_, m) => sums.get(`${index} ${m}`))));
  const top = ["", ...data.methods.map((method) => method.name)].map((name) => element("th", { scope: "col" }, name));
  $("parts").replaceChildren(element("thead", {}, element("tr", {}, ...top)), element("tbody", {}, ...rows));
}

// Bars for each style, group or content, all on one scale; more than a few would say less than the table.
function charts(metric, names, sums) {
  const value = ([sum, count]) => ({ mean: sum / count, low: null, high: null });
  const several = sums.map((row) => row.map((pair, m) => pair && { method: data.methods[m], value: value(pair) })
    .filter((entry) => entry && Number.isFinite(entry.value.mean)));
  const drawable = names.length > 1 && names.length <= PARTS && several.flat().length;
  $("part-bars").replaceChildren(...(drawable ? names : []).map((name, index) => {
    const svg = drawn("svg", { role: "img", "aria-label": `Means of ${name}` });
    chart(svg, several[index], span(several.flat()), metric);
    return element("figure", {}, element("figcaption", {}, name), svg);
  }));
}

function plots() {
  const metric = data.metrics[Number($("metric").value)];
  if (!metric) return;
  pareto(metric);
  bars(metric);
  breakdown(metric);
}

// Wall

let shown = PAGE;
let wall = [];

function options(select, names, all) {
  select.replaceChildren(...(all ? [element("option", { value: "" }, all)] : []),
    ...names.map((name, index) => element("option", { value: String(index) }, name)));
}

function filtered() {
  const [content, style] = [$("content").value, $("style").value];
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = new Set([...$("methods").querySelectorAll("input:checked")].map((box) => Number(box.value)));
  const found = cells.filter((cell) => {
    if (!chosen.has(cell.m) || (content && cell.c !== Number(content)) || (style && cell.s !== Number(style))) return false;
    const text = `${data.methods[cell.m].name} ${data.contents[cell.c].name} ${data.styles[cell.s].name}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return ordered(found);
}

function ordered(found) {
  const order = $("order").value;
  if (order === "pairs") return found.sort((a, b) => a.s - b.s || a.c - b.c || a.m - b.m);
  if (order === "methods") return found.sort((a, b) => a.m - b.m || a.s - b.s || a.c - b.c);
  const at = Number(order);
  const sign = data.metrics[at].better === "higher" ? -1 : 1;
  const value = (cell) => (cell.values[at] === null || cell.values[at] === undefined ? Infinity : sign * Number(cell.values[at]));
  return found.sort((a, b) => value(a) - value(b));
}

// `named` says what it was made of; beside its photo and style that is known.
function thumbnail(cell, place, named) {
  const order = Number($("order").value);
  const extra = Number.isNaN(order) ? "" : ` · ${data.metrics[order].name} ${number(cell.values[order])}`;
  const title = `${data.contents[cell.c].name} × ${data.styles[cell.s].name}`;
  const picture = cell.done
    ? element("img", { loading: "lazy", decoding: "async", src: cell.file, alt: `${data.methods[cell.m].name}: ${title}` })
    : element("span", { className: "failed" }, `failed: ${cell.file}`);
  const made = element("button", { type: "button" }, picture,
    element("span", { className: "label" }, element("b", {}, data.methods[cell.m].name + extra), ...(named ? [title] : [])));
  made.onclick = () => open(place);
  return made;
}

// The photo and the style at the start of a row of the pictures that were made of them.
function sources(cell) {
  const pair = [[data.contents[cell.c], "photo"], [data.styles[cell.s], "style"]];
  return pair.map(([one, kind]) => element("figure", {},
    one.file ? element("img", { loading: "lazy", src: one.file, alt: kind }) : element("span", { className: "failed" }, one.text),
    element("figcaption", { className: "label" }, element("b", {}, kind), one.name)));
}

function rows(some) {
  const found = [];
  some.forEach((cell, place) => {
    const last = found[found.length - 1];
    if (!last || last.c !== cell.c || last.s !== cell.s) {
      found.push({ c: cell.c, s: cell.s, row: element("div", { className: "row" }, ...sources(cell)) });
    }
    found[found.length - 1].row.append(thumbnail(cell, place, false));
  });
  return found.map((one) => one.row);
}

function refill() {
  wall = filtered();
  $("shown").textContent = `${wall.length} of ${cells.length} cells`;
  const some = wall.slice(0, shown);
  const byPair = $("order").value === "pairs";
  $("cells").className = byPair ? "" : "grid";
  $("cells").replaceChildren(...(byPair ? rows(some) : some.map((cell, place) => thumbnail(cell, place, true))));
  $("more").hidden = wall.length <= shown;
}

// One picture beside another

let at = 0;

function open(place) {
  at = place;
  const cell = wall[at];
  const [method, content, style] = [data.methods[cell.m], data.contents[cell.c], data.styles[cell.s]];
  $("cell-title").textContent = `${method.name}: ${content.name} × ${style.name} (${at + 1} of ${wall.length})`;
  $("under").src = cell.done ? cell.file : content.file;
  $("under").alt = method.name;
  const others = [["the photo", content.file], ...(style.file ? [["the style", style.file]] : []),
    ...cells.filter((one) => one.done && one.c === cell.c && one.s === cell.s && one.m !== cell.m)
      .map((one) => [data.methods[one.m].name, one.file])];
  const before = $("other").selectedOptions[0]?.textContent;
  $("other").replaceChildren(...others.map(([name, file]) => element("option", { value: file, selected: name === before }, name)));
  compare();
  numbers(cell);
  recipe(cell);
  if (!$("cell").open) $("cell").showModal();
}

function compare() {
  $("over").src = $("other").value;
  $("over").alt = $("other").selectedOptions[0].textContent;
}

function numbers(cell) {
  const known = (value) => value !== null && value !== undefined;
  const rows = data.metrics.filter((_, index) => known(cell.values[index]))
    .map((metric) => [metric.name, number(cell.values[metricAt.get(metric.name)])]);
  rows.push(["seconds", number(cell.seconds)], ["MiB", number(cell.peak)]);
  if (!cell.done) rows.unshift(["failed", cell.file]);
  $("numbers").replaceChildren(
    element("tr", {}, ...rows.map(([name]) => element("th", { scope: "col" }, name))),
    element("tr", {}, ...rows.map(([, value]) => element("td", {}, value))));
}

// Recipes are in files of their own, one a method, and read by a script tag: pages from disk cannot fetch.
window.recipes = {};

function recipe(cell) {
  const show = () => {
    $("recipe").querySelector("pre").textContent = JSON.stringify(window.recipes[cell.m]?.[cell.index] ?? null, null, 2);
  };
  $("recipe").ontoggle = () => {
    if (!$("recipe").open) return;
    if (window.recipes[cell.m]) show();
    else document.head.append(element("script", { src: `recipes/${cell.m}.js`, onload: show }));
  };
  if ($("recipe").open) $("recipe").ontoggle();
}

function step(by) {
  open((at + by + wall.length) % wall.length);
}

function dialog() {
  $("before").onclick = () => step(-1);
  $("after").onclick = () => step(1);
  $("close").onclick = () => $("cell").close();
  $("other").onchange = compare;
  $("slider").oninput = () => $("stage").style.setProperty("--split", `${$("slider").value}%`);
  $("zoom").onclick = () => $("zoom").setAttribute("aria-pressed", String($("stage").classList.toggle("zoomed")));
  $("cell").addEventListener("keydown", (event) => {
    if (["SELECT", "INPUT"].includes(event.target.tagName)) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  const slide = (event) => {
    if (event.buttons !== 1) return;
    const box = $("under").getBoundingClientRect();
    $("slider").value = String(Math.round(100 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))));
    $("slider").oninput();
  };
  $("stage").addEventListener("pointerdown", slide);
  $("stage").addEventListener("pointermove", slide);
  // A browser would carry the picture itself away, and send no more moves.
  $("stage").addEventListener("dragstart", (event) => event.preventDefault());
}

function controls() {
  options($("metric"), data.metrics.map((metric) => metric.name));
  $("metric").value = String(Math.max(0, data.metrics.findIndex((metric) => metric.about === "style")));
  options($("content"), data.contents.map((one) => one.name), "all");
  options($("style"), data.styles.map((one) => one.name), "all");
  const orders = [["pairs", "by pair"], ["methods", "by method"],
    ...data.metrics.map((metric, index) => [String(index), `best ${metric.name} first`])];
  $("order").replaceChildren(...orders.map(([value, text]) => element("option", { value }, text)));
  data.methods.forEach((method, index) => $("methods").append(
    element("label", {}, element("input", { type: "checkbox", checked: true, value: String(index) }), ` ${method.name}`)));
  const again = () => { shown = PAGE; refill(); };
  for (const id of ["content", "style", "order"]) $(id).onchange = again;
  $("search").oninput = again;
  $("methods").onchange = again;
  $("filters").onsubmit = (event) => event.preventDefault();
  $("side").oninput = () => $("cells").style.setProperty("--side", `${$("side").value}px`);
  $("more").onclick = () => { shown += PAGE; refill(); };
  for (const id of ["metric", "by"]) $(id).onchange = plots;
}

head();
controls();
dialog();
table();
restsOn();
plots();
refill();

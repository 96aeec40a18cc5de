"use strict";
const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("settings").textContent);
const pictures = {}; // by input: { bitmap, name }
const chosen = { first: 0, second: -1, share: 50, seed: 1 };
let worker;
let photo; // what was painted: { pixels, width, height }
let painted; // its picture, of the same size
let ready = false;
let busy = false;

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

// The network

async function unpacked(id) {
  const text = atob($(id).textContent.trim());
  $(id).remove(); // its text is no longer needed
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function start() {
  const source = new TextDecoder().decode(await unpacked("worker"));
  const glue = new TextDecoder().decode(await unpacked("glue"));
  const [wasm, network] = [await unpacked("wasm"), await unpacked("network")];
  worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  worker.onmessage = ({ data }) => answered(data);
  worker.onerror = (event) => say(`This browser cannot run the network: ${event.message}`, true);
  worker.postMessage({ kind: "load", wasm, glue, network }, [wasm, network]);
}

function answered(message) {
  if (message.kind === "ready") {
    ready = true;
    refresh();
  } else if (message.kind === "picture") {
    busy = false;
    keep(message);
    refresh();
    say(`Painted ${message.width} × ${message.height} in ${message.seconds.toFixed(1)} s.`);
  } else {
    busy = false;
    refresh();
    const room = /alloc|memory/i.test(message.text) ? " Try a smaller long side." : "";
    say(`That did not work: ${message.text}.${room}`, true);
  }
}

// Pictures

function scaled(bitmap, side) {
  const ratio = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((one) => Math.max(1, Math.round(one * ratio)));
  const canvas = new OffscreenCanvas(width, height);
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(bitmap, 0, 0, width, height);
  return brush.getImageData(0, 0, width, height);
}

function planes({ data, width, height }) {
  const count = width * height;
  const values = new Float32Array(3 * count);
  for (let at = 0; at < count; at++) {
    for (let channel = 0; channel < 3; channel++) values[channel * count + at] = data[4 * at + channel] / 255;
  }
  return values;
}

function random(count) {
  let state = chosen.seed >>> 0; // mulberry32
  return Float32Array.from({ length: count }, () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
  });
}

function shares(count) {
  const values = new Float32Array(count);
  const second = chosen.second < 0 ? 0 : chosen.share / 100;
  values[chosen.first] += 1 - second;
  if (second) values[chosen.second] += second;
  return values;
}

function feed(input, pixels) {
  const { name, kind, channels } = input;
  if (kind === "shares") return { name, data: shares(channels), shape: [1, channels] };
  const { width, height } = pixels;
  const data = kind === "noise" ? random(channels * width * height) : planes(pixels);
  return { name, data, shape: [1, channels, height, width] };
}

async function open(name, file) {
  try {
    pictures[name] = { bitmap: await createImageBitmap(file), name: file.name || "picture" };
  } catch {
    say(`${file.name || "That file"} is not a picture that this browser can read.`, true);
    return;
  }
  const { bitmap } = pictures[name];
  const thumb = $(`${name}-thumb`);
  const side = Math.min(bitmap.width, bitmap.height);
  const brush = thumb.getContext("2d");
  brush.clearRect(0, 0, thumb.width, thumb.height);
  const [left, top] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
  brush.drawImage(bitmap, left, top, side, side, 0, 0, thumb.width, thumb.height);
  thumb.classList.add("filled");
  $(`${name}-name`).textContent = pictures[name].name;
  if (name === "content") show(bitmap);
  refresh();
}

function show(bitmap) {
  painted = undefined;
  photo = scaled(bitmap, 1024);
  for (const id of ["before", "after"]) draw(id, photo, photo.data);
  $("empty").hidden = true;
  $("frame").hidden = false;
  $("done").hidden = $("divider").hidden = $("edge").hidden = true;
  $("before").style.clipPath = "none";
}

function draw(id, { width, height }, data) {
  const canvas = $(id);
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
}

function paint() {
  const side = Number($("size").value);
  const feeds = [];
  photo = scaled(pictures.content.bitmap, side);
  for (const input of settings.inputs) {
    const pixels = input.kind === "picture" && input.name !== "content" ? scaled(pictures[input.name].bitmap, side) : photo;
    if (input.kind === "picture" && Math.min(pixels.width, pixels.height) < settings.smallest) {
      const what = input.name === "content" ? "photo" : input.name;
      say(`The ${what} is ${pixels.width} × ${pixels.height} here; ${settings.smallest} pixels is the least.`, true);
      return;
    }
    feeds.push(feed(input, pixels));
  }
  busy = true;
  refresh();
  say(`Painting ${photo.width} × ${photo.height} …`);
  worker.postMessage({ kind: "run", feeds }, feeds.map((one) => one.data.buffer));
}

function keep({ data, width, height }) {
  const count = width * height;
  painted = new Uint8ClampedArray(4 * count);
  for (let at = 0; at < count; at++) {
    for (let channel = 0; channel < 3; channel++) painted[4 * at + channel] = 255 * data[channel * count + at];
    painted[4 * at + 3] = photo.data[4 * at + 3];
  }
  draw("before", photo, photo.data);
  mix();
  $("done").hidden = $("divider").hidden = $("edge").hidden = false;
  divide();
}

function mix() {
  const share = $("strength").value / 100;
  $("strength-value").textContent = `${$("strength").value} %`;
  const mixed = new Uint8ClampedArray(painted.length);
  for (let at = 0; at < mixed.length; at++) mixed[at] = photo.data[at] + share * (painted[at] - photo.data[at]);
  draw("after", photo, mixed);
}

function divide() {
  const place = `${$("divider").value}%`;
  $("before").style.clipPath = `inset(0 calc(100% - ${place}) 0 0)`;
  $("edge").style.left = place;
}

function save() {
  $("after").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${pictures.content.name.replace(/\.[^.]*$/, "")}-${settings.method}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

// The panel

const missing = () => settings.inputs.filter((one) => one.kind === "picture" && !pictures[one.name]);

function refresh() {
  const lacking = missing();
  $("paint").disabled = !ready || busy || lacking.length > 0;
  document.body.classList.toggle("busy", busy);
  if (!ready || busy) return;
  const wanted = lacking.map((one) => (one.name === "content" ? "a photo" : `a ${one.name} picture`));
  say(wanted.length ? `Choose ${wanted.join(" and ")}.` : "Ready.");
}

function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

function picker(name) {
  const file = element("input", { id: `${name}-file`, type: "file", accept: "image/*", ariaLabel: "Style picture" });
  const thumb = element("canvas", { id: `${name}-thumb`, width: 48, height: 48 });
  const text = element("span", { id: `${name}-name`, textContent: `Choose a ${name} picture` });
  const label = element("label", { className: "button", htmlFor: file.id }, thumb, text);
  listen(file, name);
  accept(label, name);
  return element("div", { className: "pick" }, file, label);
}

function selector(id, text, labels, first) {
  const select = element("select", { id });
  labels.forEach((label, at) => select.append(element("option", { value: at + first, textContent: label })));
  return [element("label", { className: "row", htmlFor: id }, text, select), select];
}

function mixer({ labels }) {
  const [one, first] = selector("first", "Style", labels, 0);
  const [two, second] = selector("second", "Mixed with", ["nothing", ...labels], -1);
  const slider = element("input", { id: "share", type: "range", min: 0, max: 100, value: 50, ariaLabel: "Share of the second style" });
  const shareRow = element("label", { className: "row", htmlFor: "share", hidden: true }, "Its share", slider);
  first.onchange = () => (chosen.first = Number(first.value));
  second.onchange = () => {
    chosen.second = Number(second.value);
    shareRow.hidden = chosen.second < 0;
  };
  slider.oninput = () => (chosen.share = Number(slider.value));
  return element("div", {}, one, labels.length > 1 ? two : "", shareRow);
}

function dice() {
  const again = element("button", { type: "button", id: "again", textContent: "Other random numbers" });
  again.onclick = () => {
    chosen.seed += 1;
    if (!$("paint").disabled) paint();
  };
  return again;
}

function listen(file, name) {
  file.onchange = () => file.files[0] && open(name, file.files[0]);
}

function accept(place, name) {
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    place.classList.add("over");
  });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) open(name, file);
  });
}

for (const input of settings.inputs) {
  if (input.kind === "picture" && input.name !== "content") $("inputs").append(picker(input.name));
  if (input.kind === "shares") $("inputs").append(mixer(input));
  if (input.kind === "noise") $("inputs").append(dice());
}
for (const [name, text] of Object.entries(settings.facts)) {
  $("facts").append(element("dt", { textContent: name }), element("dd", { textContent: text }));
}
listen($("content-file"), "content");
accept($("stage"), "content");
accept(document.querySelector("#panel .pick label"), "content");
$("paint").onclick = paint;
$("strength").oninput = mix;
$("divider").oninput = divide;
$("save").onclick = save;
start().catch((error) => say(`The network could not be loaded: ${error.message || error}`, true));

// The brush: which part of the photo is painted, and which parts have paintings of their own.
//
// A layer for each meaning lies over the photo; no two cover the same place. The key of a layer is the id of its
// painting (of several, with spaces between), ONLY for what alone is painted, and ERASE is no layer.

import { $, make } from "./dom.js";

const ONLY = "only", ERASE = "erase", LONGEST = 1024;
const COLORS = ["#e2481f", "#2b7de0", "#12a36a", "#b24bd6", "#e0a106", "#0fa3b1", "#e05299"];
const canvas = $("mask"), layers = new Map(), colors = new Map();
let names = new Map(), base = [], strokes = [], active = ONLY, last = null, changed = () => {};

export const state = { open: false, used: 0 }; // whether it is in hand; how many parts are brushed

export function onChange(called) {
  changed = called;
}

// Begin with nothing brushed, for a photo of a size.
export function reset(width, height) {
  const factor = Math.min(1, LONGEST / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * factor));
  canvas.height = Math.max(1, Math.round(height * factor));
  base = [];
  strokes = [];
  redraw();
  state.used = 0;
}

export function forget() {
  reset(1, 1);
  close();
}

// Take it in hand; paintings are { id, name, image }.
export function open(paintings) {
  state.open = true;
  names = new Map(paintings.map((each) => [each.id, each.name]));
  if (active !== ONLY && active !== ERASE && !names.has(active)) active = ONLY;
  const pen = (key, label, ...inside) => {
    const button = make("button", { type: "button", title: label, onclick: () => { active = key; press(); changed(); } }, ...inside);
    button.dataset.pen = key;
    button.setAttribute("aria-label", label);
    if (key !== ERASE) button.style.setProperty("--pen", color(key));
    return button;
  };
  const only = pen(ONLY, "Paint only what is brushed", "only here"), erase = pen(ERASE, "Erase what is brushed", "eraser");
  const own = paintings.map((each) => pen(each.id, `Paint what is brushed like ${each.name}`, make("img", { src: each.image, alt: "" })));
  $("pens").replaceChildren(only, ...own, erase);
  press();
}

export function close() {
  state.open = false;
  last = null;
  state.used = [...layers.values()].filter((pen) => isUsed(pen)).length;
}

// What the active pen means, in words.
export function meaning() {
  if (active === ERASE) return "erases what is brushed";
  return active === ONLY ? "only this is painted; the rest stays a photo" : `this is painted like ${names.get(active)}`;
}

// Add what a picture shows in white to the part with some paintings; without any, to what alone is painted.
export function lay(styles, image) {
  base.push([styles.length ? styles.join(" ") : ONLY, tinted(image)]);
  redraw();
}

// What is brushed, as an order has it.
export function parts() {
  const used = [...layers].filter(([, pen]) => isUsed(pen)), own = used.filter(([key]) => key !== ONLY);
  return {
    mask: used.length > own.length ? png(used.map(([, pen]) => pen.canvas)) : null,
    regions: own.map(([key, pen]) => ({ mask: png([pen.canvas]), styles: key.split(" ") })),
  };
}

// --- layers

function color(key) {
  if (!colors.has(key)) colors.set(key, key === ONLY ? COLORS[0] : COLORS[1 + (colors.size - colors.has(ONLY)) % (COLORS.length - 1)]);
  return colors.get(key);
}

function isUsed(pen) {
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 3; at < data.length; at += 4) if (data[at] > 127) return true;
  return false;
}

function blank() {
  return make("canvas", { width: canvas.width, height: canvas.height }).getContext("2d", { willReadFrequently: true });
}

// Draw on the layer of a key, and take the same away from the others.
function onto(key, drawn) {
  if (key !== ERASE && !layers.has(key)) layers.set(key, blank());
  for (const [each, pen] of layers) {
    pen.globalCompositeOperation = each === key ? "source-over" : "destination-out";
    drawn(pen, color(each));
  }
}

function line(pen, ink, stroke, from) {
  pen.strokeStyle = ink;
  pen.lineWidth = stroke.width;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...stroke.points[from]);
  for (const [x, y] of stroke.points.slice(from)) pen.lineTo(x + 0.01, y); // a line of no length would not be drawn
  pen.stroke();
}

function redraw() {
  layers.clear();
  for (const [key, tint] of base) onto(key, (pen, ink) => pen.drawImage(tint(ink), 0, 0, canvas.width, canvas.height));
  for (const stroke of strokes) {
    if (stroke.key === null) layers.clear();
    else if (stroke.tint) onto(stroke.key, (pen, ink) => pen.drawImage(stroke.tint(ink), 0, 0, canvas.width, canvas.height));
    else onto(stroke.key, (pen, ink) => line(pen, ink, stroke, 0));
  }
  view();
}

function view() {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (const layer of layers.values()) pen.drawImage(layer.canvas, 0, 0);
}

// A picture as ink of any colour: as much as it is white.
function tinted(image) {
  const pen = make("canvas", { width: image.naturalWidth, height: image.naturalHeight }).getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, image.naturalWidth, image.naturalHeight), { data } = pixels;
  for (let at = 0; at < data.length; at += 4) data[at + 3] = data[at + 3] / 255 * (0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]);
  pen.putImageData(pixels, 0, 0);
  return (ink) => {
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = ink;
    pen.fillRect(0, 0, image.naturalWidth, image.naturalHeight);
    return pen.canvas;
  };
}

// White where any of the layers is, black elsewhere.
function png(drawn) {
  const pen = blank();
  for (const each of drawn) pen.drawImage(each, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.globalCompositeOperation = "destination-over";
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  return pen.canvas.toDataURL("image/png");
}

// --- the tools

function press() {
  for (const button of $("pens").children) button.setAttribute("aria-pressed", button.dataset.pen === active);
}

const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
};

function draw(event) {
  last.points.push(...(event.getCoalescedEvents?.() ?? [event]).map(at));
  const from = last.drawn;
  last.drawn = last.points.length - 1;
  onto(last.key, (pen, ink) => line(pen, ink, last, from));
  view();
}

canvas.onpointerdown = (event) => {
  if (!state.open || event.button) return;
  canvas.setPointerCapture(event.pointerId);
  last = { key: active, width: $("width").value / 100 * canvas.width, points: [at(event)], drawn: 0 };
  strokes.push(last);
  draw(event);
};
canvas.onpointermove = (event) => { if (last) draw(event); };
canvas.onpointerup = canvas.onpointercancel = () => { last = null; };
$("undo").onclick = () => { if (strokes.pop()) redraw(); };
$("clear").onclick = () => { strokes.push({ key: null }); redraw(); };
$("mask-file").onchange = async () => {
  const [file] = $("mask-file").files, image = new Image();
  if (!file) return;
  image.src = URL.createObjectURL(file);
  await image.decode().then(() => { strokes.push({ key: active, tint: tinted(image) }); redraw(); }, () => {});
  URL.revokeObjectURL(image.src);
  $("mask-file").value = "";
};
window.addEventListener("keydown", (event) => {
  if (state.open && event.key === "z" && (event.ctrlKey || event.metaKey) && !event.target.matches("input[type=text], input[type=number]")) { event.preventDefault(); $("undo").click(); }
});

// The live page: what is chosen (order), what the server knows (world), and what is looked at (shown).

import * as brush from "./brush.js";
import { $, make } from "./dom.js";

const MAIN = ["content_weight", "size", "style_scale", "preserve_color", "style_weights"];
const ENDED = ["done", "stopped", "failed"];
const FORMATS = { png: ["png", 8], png16: ["png", 16], jpg: ["jpg", 8], webp: ["webp", 8], tiff16: ["tiff", 16], avif: ["avif", 8] };
const world = { fields: [], presets: [], pictures: new Map(), runs: new Map(), choices: {} };
const order = { content: null, styles: [], weights: {}, preset: "default", settings: {}, format: "png" };
let shown = null; // the id of the run that is looked at
let follow = true; // whether to look at what is painted next
window.latencies = []; // seconds from a preview to the screen

// --- asking the server

async function ask(path, options = {}) {
  const answer = await fetch(path, options).catch(() => { throw new Error("the server does not answer; is it still running?"); });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.status === 204 ? null : answer.json();
}

function problem(error) {
  $("problem").textContent = error ? error.message || String(error) : "";
}

const duration = (s) => s < 60 ? `${Math.max(1, Math.round(s))} s` : s < 3600 ? `${Math.floor(s / 60)} min ${Math.round(s % 60)} s` : `${Math.floor(s / 3600)} h ${Math.round(s % 3600 / 60)} min`;
const keep = () => sessionStorage.setItem("order", JSON.stringify(order));
const thumbnail = (id) => `/api/pictures/${id}/thumbnail`;

// --- photos and paintings

function know(source) {
  world.pictures.set(source.id, source);
  return source;
}

function isChosen(what, id) {
  return what === "photo" ? order.content === id : order.styles.includes(id);
}

function choose(what, id, { only = false } = {}) {
  if (what === "photo") {
    if (order.content !== id) brush.forget();
    order.content = id;
    if (ENDED.includes(world.runs.get(shown)?.state)) leave();
  } else if (only) {
    order.styles = [id];
  } else {
    order.styles = order.styles.includes(id) ? order.styles.filter((each) => each !== id) : [...order.styles, id].slice(-6);
  }
  problem("");
  drawChoices();
  keep();
}

function drawChoices() {
  for (const what of ["photo", "painting"]) {
    const box = $(what), strip = box.querySelector(".strip"), at = document.activeElement?.dataset?.id;
    const listed = [...world.pictures.values()].filter((each) => each.kind === what || each.kind === "upload" || isChosen(what, each.id));
    const rank = (each) => each.kind === "upload" ? 0 : each.kind === what ? 2 : 1;
    listed.sort((a, b) => rank(a) - rank(b));
    strip.replaceChildren(...listed.map((each) => {
      const seen = each.kind === "folder" || each.kind === "clip" ? make("i", { textContent: each.kind }) : make("img", { src: thumbnail(each.id), alt: "", loading: "lazy" });
      const button = make("button", { type: "button", title: each.name, onclick: () => choose(what, each.id) }, seen);
      button.dataset.id = each.id;
      button.setAttribute("aria-label", each.name);
      button.setAttribute("aria-pressed", isChosen(what, each.id));
      return make("li", {}, button);
    }));
    if (at) strip.querySelector(`[data-id="${CSS.escape(at)}"]`)?.focus();
    const id = what === "photo" ? order.content : order.styles.at(-1), source = world.pictures.get(id), image = box.querySelector(".drop img");
    const many = source && (source.kind === "folder" || source.kind === "clip");
    image.hidden = !source || many;
    if (source && !many && !image.src.endsWith(thumbnail(id))) image.src = thumbnail(id);
    image.alt = source ? source.name : "";
    box.querySelector(".drop span").hidden = !!source && !many;
    if (many) box.querySelector(".drop b").textContent = `${source.kind} ${source.name}`;
    else box.querySelector(".drop b").textContent = what === "photo" ? "Drop a photo" : "Drop a painting";
  }
  const blended = order.styles.length > 1 ? order.styles : [];
  $("blend").replaceChildren(...blended.map((id) => {
    const source = world.pictures.get(id);
    const slider = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: order.weights[id] ?? 1, oninput: () => { order.weights[id] = +slider.value; keep(); } });
    slider.setAttribute("aria-label", `Weight of ${source?.name}`);
    return make("label", {}, make("img", { src: thumbnail(id), alt: "" }), slider);
  }));
  const content = world.pictures.get(order.content);
  $("mask-open").disabled = !content || content.kind === "folder" || content.kind === "clip";
  if (brush.state.open) brush.open(pens());
  drawBrushed();
  if (!shown) showContent();
}

async function upload(what, files) {
  const drop = $(what).querySelector(".drop");
  problem("");
  drop.classList.add("busy");
  try {
    for (const file of [...files].slice(0, what === "photo" ? 1 : 6)) {
      const source = know(await ask(`/api/pictures?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file }));
      if (source.recipe && what === "photo") offerRecipe(source);
      choose(what, source.id, { only: what === "painting" && files.length === 1 && order.styles.length < 2 });
    }
  } catch (error) {
    problem(error);
  } finally {
    drop.classList.remove("busy");
  }
}

function offerRecipe({ name, recipe }) {
  const use = make("button", { type: "button", textContent: "Use its settings", onclick: () => {
    const known = new Set(world.fields.map((field) => field.name));
    takeSettings(Object.fromEntries(Object.entries(recipe.settings).filter(([key]) => known.has(key))), "default");
    brush.forget();
    if (recipe.content) order.content = recipe.content;
    const styles = recipe.styles.filter(Boolean);
    if (styles.length) order.styles = styles;
    if (recipe.content) takeParts(recipe.mask, recipe.regions.filter((each) => each.mask && each.styles.every(Boolean)));
    $("notes").replaceChildren();
    drawChoices();
    drawKnobs();
    keep();
  } });
  $("notes").replaceChildren(make("li", {}, `${name} was painted by stylize and says how. `, use));
}

for (const what of ["photo", "painting"]) {
  const drop = $(what).querySelector(".drop"), input = drop.querySelector("input");
  input.onchange = async () => { await upload(what, input.files); input.value = ""; };
  drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => { event.preventDefault(); drop.classList.remove("over"); upload(what, event.dataTransfer.files); };
}
$("easel").ondragover = (event) => event.preventDefault();
$("easel").ondrop = (event) => { event.preventDefault(); upload("photo", event.dataTransfer.files); };
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => event.preventDefault()); // a miss must not leave the page
window.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  if (files.length) upload(order.content ? "painting" : "photo", files);
});

// --- the folder

async function browse(what, place) {
  try {
    const { entries } = await ask(`/api/folder?place=${encodeURIComponent(place)}`);
    $("place").textContent = place || "the folder that is offered";
    const up = place ? [make("li", {}, make("button", { type: "button", onclick: () => browse(what, place.split("/").slice(0, -1).join("/")) }, make("i", { textContent: "↑" }), make("span", { textContent: "up" })))] : [];
    $("entries").replaceChildren(...up, ...entries.filter((each) => what === "photo" || each.kind === "picture" || each.kind === "folder").map((source) => {
      know(source);
      const take = () => { choose(what, source.id); $("folder").close(); };
      const enter = () => browse(what, source.place);
      const opens = source.kind === "folder" && source.place !== (place || ".");
      const seen = source.kind === "picture" ? make("img", { src: thumbnail(source.id), alt: "", loading: "lazy" }) : make("i", { textContent: source.kind === "clip" ? "clip" : opens ? "folder" : "all of it" });
      const button = make("button", { type: "button", onclick: opens ? enter : take }, seen, make("span", { textContent: source.name }));
      const whole = opens && what === "photo" ? [make("div", { className: "row" }, make("button", { type: "button", textContent: "paint all", onclick: take }))] : [];
      return make("li", {}, button, ...whole);
    }));
    if (!$("folder").open) $("folder").showModal();
  } catch (error) {
    problem(error);
  }
}
for (const button of document.querySelectorAll(".browse")) button.onclick = () => browse(button.closest("fieldset").id, "");

// --- knobs

const field = (name) => world.fields.find((each) => each.name === name);
const presetValues = () => world.presets.find((each) => each.name === order.preset)?.values ?? {};
const value = (name) => order.settings[name] ?? presetValues()[name] ?? field(name).default;

function set(name, given) {
  const usual = presetValues()[name] ?? field(name).default;
  if (given === null || JSON.stringify(given) === JSON.stringify(usual)) delete order.settings[name];
  else order.settings[name] = given;
  keep();
}

function takeSettings(settings, preset) {
  order.preset = preset;
  order.settings = {};
  for (const [name, given] of Object.entries(settings)) if (field(name) && name !== "style_weights") set(name, given);
}

const rounded = (number, digits) => Number(number.toPrecision(digits));
const sizes = (position) => Math.round(2 ** position / 32) * 32;

function drawKnobs() {
  $("presets").replaceChildren(...world.presets.map(({ name, summary }) => {
    const button = make("button", { type: "button", textContent: name, title: summary, onclick: () => { order.preset = name; order.settings = {}; drawKnobs(); keep(); } });
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", order.preset === name);
    button.tabIndex = order.preset === name ? 0 : -1;
    return button;
  }));
  $("weight").value = Math.log10(Math.max(0.001, value("content_weight")));
  $("weight-value").textContent = value("content_weight");
  $("size").value = Math.log2(value("size"));
  $("size-value").textContent = `${value("size")} px`;
  $("scale").value = Math.log2(value("style_scale"));
  $("scale-value").textContent = `${rounded(value("style_scale"), 2)} ×`;
  const names = { none: "of the painting", luminance: "of the photo (brightness painted)", match: "of the photo (painting recoloured)" };
  const modes = world.choices.preserve_color ?? field("preserve_color").suggestions;
  $("color").replaceChildren(...modes.map((mode) => make("option", { value: mode, textContent: names[mode] ?? mode, selected: value("preserve_color") === mode })));
  $("format").value = order.format;
  drawFields();
}

$("presets").onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const at = world.presets.findIndex((each) => each.name === order.preset), next = (at + step + world.presets.length) % world.presets.length;
  $("presets").children[next].click();
  $("presets").children[next].focus();
};
$("weight").oninput = () => { set("content_weight", rounded(10 ** $("weight").value, 2)); $("weight-value").textContent = value("content_weight"); };
$("size").oninput = () => { set("size", sizes($("size").value)); $("size-value").textContent = `${value("size")} px`; };
$("scale").oninput = () => { set("style_scale", rounded(2 ** $("scale").value, 2)); $("scale-value").textContent = `${value("style_scale")} ×`; };
$("color").onchange = () => set("preserve_color", $("color").value);
$("format").onchange = () => { order.format = $("format").value; keep(); };

function drawFields() {
  $("fields").replaceChildren(...world.fields.filter((each) => !MAIN.includes(each.name)).map((each) => {
    const now = value(each.name), label = each.name.replaceAll("_", " ");
    const choices = each.choices.length ? each.choices : each.name === "init" ? each.suggestions : world.choices[each.name];
    let input;
    const changed = (given) => { set(each.name, given); box.classList.toggle("changed", each.name in order.settings); };
    if (each.type === "boolean") input = make("input", { type: "checkbox", checked: now, onchange: () => changed(input.checked) });
    else if (choices?.length) input = make("select", { onchange: () => changed(input.value) }, ...choices.map((one) => make("option", { value: one, textContent: one, selected: one === now })));
    else if (each.type === "integer" || each.type === "number") input = make("input", { type: "number", value: now ?? "", min: each.minimum ?? "", max: each.maximum ?? "", step: each.type === "integer" ? 1 : "any", onchange: () => changed(input.value === "" ? null : +input.value) });
    else if (each.type === "array") input = make("input", { type: "text", value: now.join(", "), onchange: () => changed(input.value.split(",").filter((one) => one.trim()).map(Number)) });
    else if (each.type === "object") input = make("input", { type: "text", value: Object.entries(now).map(([key, one]) => `${key}=${one}`).join(", "), onchange: () => changed(Object.fromEntries(input.value.split(",").filter((one) => one.trim()).map((one) => { const [key, weight] = one.split("="); return [key.trim(), weight === undefined ? 1 : +weight]; }))) });
    else input = make("input", { type: "text", value: now, onchange: () => changed(input.value.trim()) });
    const unit = each.unit ? ` (${each.unit})` : "", name = make("span", { textContent: label + unit }), help = make("small", { textContent: each.help });
    const box = make("label", { className: each.type === "boolean" ? "flag" : "" }, ...(each.type === "boolean" ? [input, name] : [name, input]), help);
    box.classList.toggle("changed", each.name in order.settings);
    return box;
  }));
}

// --- the brush

function showContent() {
  const source = world.pictures.get(order.content);
  if (source?.kind === "clip") { film(`/api/pictures/${source.id}/view`, source.name); $("title").textContent = source.name; $("say").textContent = ""; return; }
  if (!source || source.kind === "folder") { hint(); return; }
  const image = new Image();
  image.onload = () => {
    if (shown || order.content !== source.id) return;
    draw(image.src, null, image.naturalWidth / image.naturalHeight);
    if (brush.state.open) return;
    $("title").textContent = source.name;
    $("say").textContent = "";
  };
  image.src = `/api/pictures/${source.id}/view`;
}

const pens = () => [...world.pictures.values()].filter((each) => each.kind === "painting" || each.kind === "upload" && each.id !== order.content || order.styles.includes(each.id)).map((each) => ({ id: each.id, name: each.name, image: thumbnail(each.id) }));

// The photo as the page shows it; null where the browser cannot.
function photo(id) {
  const image = new Image();
  image.src = `/api/pictures/${id}/view`;
  return image.decode().then(() => image, () => null);
}

async function openBrush() {
  const id = order.content, image = await photo(id);
  if (!image || order.content !== id) return;
  shown = null;
  follow = true;
  if (!brush.state.used) brush.reset(image.naturalWidth, image.naturalHeight);
  brush.open(pens());
  draw(image.src, null, image.naturalWidth / image.naturalHeight);
  drawShown();
  drawRuns();
  drawBrushed();
}

function endBrush() {
  const inside = $("brush").contains(document.activeElement);
  brush.close();
  drawBrushed();
  if (inside) $("mask-open").focus(); // and not nowhere
  if (!shown) showContent();
}

function drawBrushed() {
  const { open, used } = brush.state;
  $("mask-open").textContent = open ? "Done" : used === 0 ? "Brush parts…" : used === 1 ? "A part is brushed" : `${used} parts are brushed`;
  $("mask-open").setAttribute("aria-pressed", used > 0);
  $("mask").hidden = !!shown || !(open || used);
  $("brush").hidden = !open;
  if (open) { $("title").textContent = "Brush over a part"; $("say").textContent = brush.meaning(); }
}

// Brush again what an order has brushed: the ids of its mask, and of the masks and paintings of its regions.
async function takeParts(mask, regions) {
  if (!mask && !regions.length) return;
  const id = order.content, image = await photo(id);
  const masks = await Promise.all([mask, ...regions.map((each) => each.mask)].map((each) => each && photo(each)));
  if (!image || order.content !== id) return;
  brush.reset(image.naturalWidth, image.naturalHeight);
  masks.forEach((each, at) => { if (each) brush.lay(at ? regions[at - 1].styles : [], each); });
  endBrush();
}

$("mask-open").onclick = () => brush.state.open ? endBrush() : openBrush();
$("brushed").onclick = endBrush;
brush.onChange(drawBrushed);

// --- the picture

function cut(percent) {
  $("frame").style.setProperty("--cut", `${percent}%`);
}

function hint(text = "") {
  film();
  $("frame").hidden = true;
  $("hint").hidden = false;
  if (text) $("hint").textContent = text;
}

// Show a clip; one that the browser cannot play is left to ``otherwise``.
function film(source = "", name = "", otherwise = () => hint(name)) {
  const player = $("film");
  player.hidden = !source;
  if (!source) { player.removeAttribute("src"); return; }
  for (const id of ["after", "before", "compare", "seam", "mask"]) $(id).hidden = true;
  $("hint").hidden = true;
  $("frame").hidden = false;
  player.setAttribute("aria-label", name);
  player.onloadedmetadata = () => $("frame").style.setProperty("--shape", player.videoWidth / player.videoHeight);
  player.onerror = () => { if (player.getAttribute("src") === source) { film(); otherwise(); } };
  if (player.getAttribute("src") !== source) player.src = source;
}

function draw(after, before, shape) {
  film();
  $("hint").hidden = true;
  $("frame").hidden = $("after").hidden = false;
  $("frame").style.setProperty("--shape", shape);
  if ($("after").src !== new URL(after, location).href) $("after").src = after;
  $("before").hidden = $("compare").hidden = $("seam").hidden = !before;
  if (before && $("before").src !== new URL(before, location).href) $("before").src = before;
  drawBrushed();
}

$("compare").oninput = () => cut($("compare").value);

const unplayable = new Set(); // runs whose clips the browser cannot show
let loading = null; // the version of a preview on its way
function drawPreview(run) {
  const content = run.order.content, single = content.kind !== "folder" && content.kind !== "clip";
  if (content.kind === "clip" && ENDED.includes(run.state) && run.result && !unplayable.has(run.id)) {
    film(`/api/runs/${run.id}/result?show`, run.title, () => { unplayable.add(run.id); drawPreview(run); });
    return;
  }
  const before = single ? `/api/pictures/${content.id}/view` : null;
  if (!run.version) {
    if (!single) { hint(run.state === "waiting" ? "waiting" : "beginning"); return; }
    const image = new Image();
    image.onload = () => { if (shown === run.id && !world.runs.get(run.id)?.version) draw(image.src, null, image.naturalWidth / image.naturalHeight); };
    image.src = before;
    return;
  }
  const key = `${run.id}/${run.version}`;
  if (loading || ($("after").dataset.key === key && !$("after").hidden && !$("frame").hidden)) return;
  loading = key;
  const image = new Image(), made = run.made;
  const next = () => { loading = null; const now = world.runs.get(shown); if (now && `${now.id}/${now.version}` !== key) drawPreview(now); };
  image.onload = () => {
    if (shown === run.id) {
      $("after").dataset.key = key;
      draw(image.src, before, image.naturalWidth / image.naturalHeight);
      $("after").alt = `${run.title}, ${run.state}`;
      $("before").alt = content.name;
      if (run.state === "painting") requestAnimationFrame(() => window.latencies.push(Date.now() / 1000 - made));
    }
    next();
  };
  image.onerror = next;
  image.src = `/api/runs/${run.id}/preview?${run.version}`;
}

const STATES = { waiting: "waiting", painting: "painting", done: "done", stopped: "stopped", failed: "failed" };

function drawShown() {
  const run = world.runs.get(shown);
  for (const id of ["stop", "save", "masks", "larger", "reuse", "report", "remove"]) $(id).hidden = true;
  $("bar").hidden = !run || ENDED.includes(run.state);
  if (!run) return;
  const ended = ENDED.includes(run.state), many = run.order.content.kind === "folder" || run.order.content.kind === "clip";
  $("title").textContent = run.title;
  const left = run.secondsLeft === null ? "" : `, about ${duration(run.secondsLeft)} left`;
  const size = run.width ? `${run.width} x ${run.height}` : "";
  $("say").className = run.state === "failed" ? "bad" : "";
  $("say").textContent = run.state === "failed" ? run.error : ended ? [STATES[run.state], run.text === "not begun" ? run.text : many ? "in painted, below the folder" : size, run.seconds ? duration(run.seconds) : ""].filter(Boolean).join(", ") : run.state === "waiting" ? "waiting for its turn" : `${run.text}${left}`;
  if (run.fraction === null) $("bar").removeAttribute("value"); else $("bar").value = run.fraction;
  const notes = run.notes.join("\n");
  if ($("notes").dataset.text !== notes) { $("notes").dataset.text = notes; $("notes").replaceChildren(...run.notes.map((note) => make("li", { textContent: note }))); }
  $("stop").hidden = ended;
  $("stop").textContent = run.state === "waiting" ? "Do not begin" : "Stop and keep it";
  const has = run.result !== null && run.order.content.kind !== "folder";
  $("save").hidden = !(ended && has);
  if (has) $("save").href = `/api/runs/${run.id}/result`;
  $("masks").hidden = !(ended && has && (run.order.mask || run.order.regions.length));
  $("masks").href = `/api/runs/${run.id}/masks`;
  $("larger").hidden = !ended || many || run.state === "failed" || run.order.size >= 4096;
  $("larger").textContent = `Paint again at ${run.order.size * 2} px`;
  $("reuse").hidden = $("remove").hidden = !ended;
  $("report").hidden = !(ended && run.report && run.state !== "failed");
  if (run.report) $("report").href = `/api/runs/${run.id}/report/${encodeURIComponent(run.report)}`;
  drawPreview(run);
}

// Look at no run, but at the photo that is chosen.
function leave() {
  shown = null;
  $("title").textContent = "Nothing painted yet";
  $("say").textContent = "";
  $("notes").replaceChildren();
  $("notes").dataset.text = "";
  drawShown();
  drawRuns();
}

function show(id) {
  if (brush.state.open) brush.close();
  if (shown !== id) { cut(0); $("compare").value = 0; $("after").dataset.key = ""; }
  shown = id;
  drawShown();
  drawBrushed();
  drawRuns();
}

function drawRuns() {
  const runs = [...world.runs.values()].reverse(), at = document.activeElement?.dataset?.run;
  $("past").hidden = !runs.length;
  $("runs").replaceChildren(...runs.map((run) => {
    const many = run.order.content.kind === "folder" || run.order.content.kind === "clip";
    const source = run.version && ENDED.includes(run.state) ? `/api/runs/${run.id}/preview?${run.version}` : many ? "/static/icon.svg" : thumbnail(run.order.content.id);
    const about = run.state === "painting" ? `painting${run.fraction === null ? "" : `, ${Math.round(run.fraction * 100)} %`}` : run.state === "failed" ? "failed" : run.state === "done" && run.width ? `${run.width} x ${run.height}` : STATES[run.state];
    const old = $("runs").querySelector(`[data-run="${CSS.escape(run.id)}"] img`);
    const image = old && old.getAttribute("src") === source ? old : make("img", { className: "thumb", src: source, alt: "" });
    const button = make("button", { type: "button", className: run.state, onclick: () => { follow = run.state === "painting"; show(run.id); $("easel").scrollIntoView({ block: "nearest" }); } }, image, make("span", {}, run.title, make("small", { textContent: about })));
    button.dataset.run = run.id;
    button.setAttribute("aria-pressed", run.id === shown);
    return make("li", {}, button);
  }));
  if (at) $("runs").querySelector(`[data-run="${CSS.escape(at)}"]`)?.focus();
}

// --- orders

function placed(settings = {}, content = order.content, styles = order.styles) {
  const [format, bits] = FORMATS[order.format];
  const weights = styles.map((id) => order.weights[id] ?? 1);
  const blend = styles.length > 1 && weights.some((weight) => weight !== weights[0]) ? { style_weights: weights } : {};
  return { content, styles, preset: order.preset, settings: { ...order.settings, ...blend, ...settings }, format, bits };
}

async function send(what) {
  problem("");
  try {
    const run = await ask("/api/runs", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what) });
    take(run);
    const busy = [...world.runs.values()].some((each) => each.state === "painting" && each.id !== run.id);
    if (!busy || !follow) show(run.id);
    $("easel").scrollIntoView({ block: "nearest" });
    drawRuns();
    announce(busy ? `${run.title} waits for its turn` : `${run.title} has begun`);
  } catch (error) {
    problem(error);
  }
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  if (brush.state.open) endBrush();
  follow = true;
  send({ ...placed(), ...brush.parts() });
};
$("stop").onclick = () => ask(`/api/runs/${shown}/stop`, { method: "POST" }).catch(problem);
$("remove").onclick = () => ask(`/api/runs/${shown}`, { method: "DELETE" }).catch(problem);
const regionsOf = (was) => was.regions.map((each) => ({ mask: each.mask, styles: each.styles.map((style) => style.id) }));
$("larger").onclick = () => {
  const was = world.runs.get(shown).order;
  send({ content: was.content.id, styles: was.styles.map((each) => each.id), preset: was.preset, settings: { ...was.settings, size: was.size * 2, upscale: true }, format: was.format, bits: was.bits, mask: was.mask, regions: regionsOf(was) });
};
$("reuse").onclick = () => {
  const was = world.runs.get(shown).order;
  for (const each of [was.content, ...was.styles, ...was.regions.flatMap((region) => region.styles)]) know(each);
  brush.forget();
  order.content = was.content.id;
  order.styles = was.styles.map((each) => each.id);
  takeParts(was.mask, regionsOf(was));
  (was.settings.style_weights ?? []).forEach((weight, at) => { order.weights[order.styles[at]] = weight; });
  takeSettings(was.settings, was.preset);
  order.format = was.format + (was.bits === 16 ? "16" : "");
  drawChoices();
  drawKnobs();
  keep();
};
window.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});

function announce(text) {
  $("announce").textContent = text;
}

// --- what the server tells

function take(run) {
  const before = world.runs.get(run.id);
  if (before && before.revision > run.revision) return;
  world.runs.set(run.id, run);
  if (before && before.state !== run.state && run.state !== "waiting") announce(`${run.title}: ${run.state === "failed" ? run.error : run.state}`);
  if (before?.state !== run.state && run.state === "painting" && follow && !brush.state.open) { shown = run.id; cut(0); $("compare").value = 0; }
}

function ready(told) {
  const news = JSON.stringify(world.choices) !== JSON.stringify(told.choices);
  world.choices = told.choices;
  $("ready").textContent = told.ready ? "ready" : "loading torch…";
  $("ready").className = told.ready ? "on" : "";
  if (news && world.fields.length) drawKnobs();
}

function listen() {
  const events = new EventSource("/api/events");
  let states = "";
  events.onmessage = ({ data }) => {
    const told = JSON.parse(data);
    for (const run of told.runs) take(run);
    const known = told.all ? [...world.runs.keys()].filter((id) => !told.all.includes(id)) : told.gone;
    for (const id of known) {
      world.runs.delete(id);
      if (shown === id) { leave(); showContent(); }
    }
    ready(told);
    drawShown();
    const now = JSON.stringify([...world.runs.values()].map((run) => [run.id, run.state, run.state === "painting" ? Math.round(run.fraction * 50) : run.version, run.id === shown]));
    if (now !== states) { states = now; drawRuns(); }
  };
  events.onerror = () => { $("ready").textContent = "the server does not answer"; $("ready").className = "off"; };
  window.addEventListener("pagehide", () => events.close());
}

async function begin() {
  const state = await ask("/api/state");
  Object.assign(world, { fields: state.fields, presets: state.presets });
  for (const source of state.pictures) know(source);
  for (const run of state.runs) {
    world.runs.set(run.id, run);
    for (const each of [run.order.content, ...run.order.styles]) if (!world.pictures.has(each.id)) know(each);
  }
  for (const button of document.querySelectorAll(".browse")) button.hidden = !state.folder;
  try {
    const kept = JSON.parse(sessionStorage.getItem("order") ?? "{}");
    if (kept.settings) Object.assign(order, kept);
  } catch { /* as good as nothing kept */ }
  if (!world.pictures.has(order.content)) order.content = null;
  order.styles = order.styles.filter((id) => world.pictures.has(id));
  const runs = [...world.runs.values()];
  shown = (runs.find((run) => run.state === "painting") ?? runs.at(-1))?.id ?? null;
  ready(state);
  drawKnobs();
  drawChoices();
  drawShown();
  drawRuns();
  listen();
  document.body.dataset.drawn = "yes";
}

begin().catch(problem);

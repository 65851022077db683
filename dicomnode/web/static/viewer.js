// The overlay viewer. The server sends CT numbers of one slice at a time and the outlines of all; windows are applied
// here, so that another one needs no request. A picture and what is said of it always change together.

const byId = (id) => document.getElementById(id);
const viewer = byId("viewer"), stage = byId("stage"), picture = byId("picture"), canvas = byId("canvas");
const mask = byId("mask"), outline = byId("outline"), slider = byId("slice"), strip = byId("strip"), controls = byId("controls");
const level = byId("level"), width = byId("width"), opacity = byId("opacity");

const AHEAD = 4; // slices fetched before they are asked for
const MOST_BYTES = 256e6; // of slices that are kept
const LARGEST_ZOOM = 12;

async function get(url) {
  const answer = await fetch(url).catch(() => {
    throw new Error("The node does not answer.");
  });
  if (answer.redirected) throw new Error("The session has ended: reload the page to sign in again.");
  if (!answer.ok) throw new Error(`The slice cannot be shown (${answer.status}): reload the page to see why.`);
  return answer;
}

function tell(error) {
  byId("trouble").textContent = error.message;
}

const series = await get(viewer.dataset.slices).then((answer) => answer.json()).catch((error) => {
  tell(error);
  throw error;
});
const { rows, columns } = series, [rowMm, columnMm] = series.spacing_mm, count = series.slices.length;
const most = Math.max(4 * AHEAD, Math.floor(MOST_BYTES / (2 * rows * columns)));
const kept = new Map(); // slice number -> promise of its CT numbers, the last used at the end
const context = canvas.getContext("2d", { alpha: false });
const image = context.createImageData(columns, rows);

let wanted = Number(viewer.dataset.start); // the slice that was asked for last
let painted = null; // the one that is seen, with its CT numbers
let pointer = null; // where the mouse is over the stage
let shownBefore = "outline"; // how the mask was shown before it was hidden
let view = { zoom: 1, x: 0.5, y: 0.5 }; // x and y: the point of the image, from 0 to 1, in the middle of the stage

async function load(number) {
  const answer = await get(`${viewer.dataset.slices}/${number}`);
  const bytes = await answer.arrayBuffer();
  if (bytes.byteLength !== 2 * rows * columns) throw new Error("The slice came in part only.");
  return new Int16Array(bytes); // little endian, as every machine is that runs a browser
}

function voxels(number) {
  const known = kept.get(number) ?? load(number);
  kept.delete(number);
  kept.set(number, known);
  known.catch(() => kept.delete(number));
  if (kept.size > most) kept.delete(kept.keys().next().value);
  return known;
}

async function show(number) {
  const before = wanted;
  wanted = Math.min(count, Math.max(1, number));
  slider.value = wanted;
  stage.setAttribute("aria-busy", "true");
  const mine = wanted;
  try {
    const hounsfield = await voxels(mine);
    if (mine !== wanted) return;
    painted = { number: mine, hounsfield };
    byId("trouble").textContent = "";
    paint();
    describe();
    const way = mine < before ? -1 : 1;
    for (const step of [...Array(AHEAD).keys()].map((one) => one + 1)) fetchAhead(mine + way * step);
    fetchAhead(mine - way);
  } catch (error) {
    if (mine === wanted) tell(error);
  }
}

function fetchAhead(number) {
  if (number >= 1 && number <= count && !kept.has(number)) voxels(number).catch(() => {});
}

// PS3.3 C.11.2.1.2.1
function paint() {
  if (!painted) return;
  const centre = Number(level.value) - 0.5, range = Math.max(1, Number(width.value) - 1);
  const pixels = image.data, { hounsfield } = painted;
  for (let index = 0, at = 0; index < hounsfield.length; index++, at += 4) {
    pixels[at] = pixels[at + 1] = pixels[at + 2] = ((hounsfield[index] - centre) / range + 0.5) * 255;
    pixels[at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  outline.setAttribute("d", series.slices[painted.number - 1].outline);
  stage.setAttribute("aria-busy", "false");
  byId("window").textContent = `L ${level.value} W ${width.value}`;
  for (const button of controls.querySelectorAll("[data-level]")) {
    const isSet = button.dataset.level === level.value && button.dataset.width === width.value;
    button.setAttribute("aria-pressed", isSet);
  }
}

function describe() {
  const { number } = painted, slice = series.slices[number - 1];
  const area = slice.area_mm2 ? `${(slice.area_mm2 / 100).toFixed(1)} cm² marked` : "nothing marked";
  byId("number").textContent = `${number} of ${count}`;
  byId("place").textContent = `${number} / ${count} · ${slice.place}`;
  byId("said").textContent = `Slice ${number} of ${count}, ${slice.place}, ${slice.name}, ${area}`;
  slider.setAttribute("aria-valuetext", `${number} of ${count}, ${slice.place}, ${area}`);
  byId("here").setAttribute("x1", number - 0.5);
  byId("here").setAttribute("x2", number - 0.5);
  read();
  stage.dataset.painted = number;
}

function fit() {
  const [high, wide] = [rows * rowMm, columns * columnMm];
  const scale = Math.min(stage.clientWidth / wide, stage.clientHeight / high) * view.zoom;
  const [left, top] = [stage.clientWidth / 2 - view.x * wide * scale, stage.clientHeight / 2 - view.y * high * scale];
  Object.assign(picture.style, { width: `${wide * scale}px`, height: `${high * scale}px`, left: `${left}px`, top: `${top}px` });
  byId("zoom").textContent = `${Math.round(view.zoom * 100)} %`;
}

function look(zoom, x = view.x, y = view.y) {
  const clamp = (value) => Math.min(1, Math.max(0, value));
  view = { zoom: Math.min(LARGEST_ZOOM, Math.max(1, zoom)), x: clamp(x), y: clamp(y) };
  if (view.zoom === 1) Object.assign(view, { x: 0.5, y: 0.5 });
  fit();
}

function zoomAt(factor, event) {
  const box = picture.getBoundingClientRect();
  const at = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  const zoom = Math.min(LARGEST_ZOOM, Math.max(1, view.zoom * factor)), share = view.zoom / zoom;
  look(zoom, at.x + (view.x - at.x) * share, at.y + (view.y - at.y) * share);
}

function lookAtOrgan() {
  outline.setAttribute("d", series.slices.map((one) => one.outline).join("")); // all of them, to measure their extent
  const box = outline.getBBox();
  outline.setAttribute("d", series.slices[painted.number - 1].outline);
  const whole = Math.min(stage.clientWidth / (columns * columnMm), stage.clientHeight / (rows * rowMm));
  const organ = Math.min(stage.clientWidth / (box.width * columnMm), stage.clientHeight / (box.height * rowMm));
  look((0.7 * organ) / whole, (box.x + box.width / 2) / columns, (box.y + box.height / 2) / rows);
  if (!series.slices[wanted - 1].outline) show(Number(viewer.dataset.start));
}

// The CT number under the pointer.
function read() {
  const box = picture.getBoundingClientRect();
  const column = pointer ? Math.floor(((pointer.clientX - box.left) / box.width) * columns) : -1;
  const row = pointer ? Math.floor(((pointer.clientY - box.top) / box.height) * rows) : -1;
  const isInside = painted && column >= 0 && column < columns && row >= 0 && row < rows;
  byId("value").textContent = isInside ? `${painted.hounsfield[row * columns + column]} HU` : "";
}

function point(event) {
  pointer = event;
  read();
}

function setWindow(newLevel, newWidth) {
  level.value = Math.round(Math.min(3071, Math.max(-1024, newLevel)));
  width.value = Math.round(Math.min(4096, Math.max(1, newWidth)));
  paint();
}

function mark(shown) {
  mask.setAttribute("class", shown);
  controls.elements.shown.value = shown;
}

const ZOOMS = {
  in: () => look(view.zoom * 1.3),
  out: () => look(view.zoom / 1.3),
  all: () => look(1),
  organ: lookAtOrgan,
};

const KEYS = {
  ArrowUp: () => show(wanted - 1),
  ArrowLeft: () => show(wanted - 1),
  ArrowDown: () => show(wanted + 1),
  ArrowRight: () => show(wanted + 1),
  PageUp: () => show(wanted - 10),
  PageDown: () => show(wanted + 10),
  Home: () => show(1),
  End: () => show(count),
};

const STAGE_KEYS = {
  ...KEYS,
  "+": ZOOMS.in,
  "=": ZOOMS.in,
  "-": ZOOMS.out,
  0: ZOOMS.all,
  h: () => mark(controls.elements.shown.value === "none" ? shownBefore : "none"),
};

function act(keys, event) {
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!keys[name] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[name]();
}

stage.addEventListener("keydown", (event) => act(STAGE_KEYS, event));
slider.addEventListener("keydown", (event) => act(KEYS, event)); // up is up, as on the stage
slider.addEventListener("input", () => show(Number(slider.value)));
strip.addEventListener("click", (event) => {
  const box = strip.getBoundingClientRect();
  show(1 + Math.floor(((event.clientX - box.left) / box.width) * count));
});

let scrolled = 0; // a touchpad sends many small steps
stage.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) return zoomAt(Math.exp(-event.deltaY / 300), event);
    scrolled += event.deltaMode ? 40 * event.deltaY : event.deltaY;
    const steps = Math.trunc(scrolled / 40);
    if (!steps) return;
    scrolled -= 40 * steps;
    show(wanted + (Math.abs(event.deltaY) >= 100 ? Math.sign(steps) : steps));
  },
  { passive: false },
);

stage.addEventListener("pointermove", point);
stage.addEventListener("pointerleave", () => point(null));
stage.addEventListener("pointerdown", (event) => {
  if (event.button > 1) return;
  event.preventDefault();
  stage.focus({ focusVisible: false });
  stage.setPointerCapture(event.pointerId);
  const start = { x: event.clientX, y: event.clientY, level: Number(level.value), width: Number(width.value), view };
  const pans = event.shiftKey || event.button === 1;
  stage.classList.toggle("moves", pans);
  const drag = (move) => {
    const [right, down] = [move.clientX - start.x, move.clientY - start.y];
    const box = picture.getBoundingClientRect();
    if (pans) look(view.zoom, start.view.x - right / box.width, start.view.y - down / box.height);
    else setWindow(start.level - down, start.width + 2 * right);
  };
  stage.addEventListener("pointermove", drag);
  stage.addEventListener("lostpointercapture", () => {
    stage.removeEventListener("pointermove", drag);
    stage.classList.remove("moves");
  }, { once: true });
});

controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("click", ({ target }) => {
  if (target.dataset.level) setWindow(Number(target.dataset.level), Number(target.dataset.width));
  if (target.dataset.zoom) ZOOMS[target.dataset.zoom]();
});
controls.addEventListener("input", ({ target }) => {
  if (target === level || target === width) paint();
  if (target === opacity) mask.style.opacity = opacity.value / 100;
  if (target.name === "shown") {
    if (target.value !== "none") shownBefore = target.value;
    mark(target.value);
  }
});
new ResizeObserver(fit).observe(stage);
mask.style.opacity = opacity.value / 100;
fit();
stage.focus({ preventScroll: true, focusVisible: false });
await show(wanted);

// The trajectory player of geoflow: points on a turning map. It runs in notebooks (anywidget) and in saved pages, where `model` is a
// stub. Python's side, and what each field of the model means: geoflow/viz/player.py.
//
// Elements and controls → small classes for what the reader sees (View), the animation (Playback) and the questions to the kernel
// (Questions) → Player, which connects them.

const SECONDS = 8; // from noise to places, at speed 1
const DEBOUNCE = 120, PATIENCE = 6000; // ms

// Elements and controls

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A label with a list to choose from; `change` gets the text of what is chosen. */
function pick(label, options, value, change, attributes = {}) {
  const select = element("select", { ...attributes, onchange: () => change(select.value) });
  for (const option of options) select.append(element("option", { value: option, selected: option === value }, String(option)));
  return element("label", {}, label, select);
}

// The element of a control, by its kind. `reader` has the value, takes the choice (`ask`, `move`) and says what is wrong (`complain`).
const CONTROLS = {
  choice({ name, label, options }, { value, disabled, ask }) {
    return pick(label, options, value, (text) => ask(options.find((option) => String(option) === text)), { disabled, "data-name": name });
  },
  range({ name, label, options }, { value, disabled, ask }) {
    const nearest = options.reduce((best, option, i) => (Math.abs(option - value) < Math.abs(options[best] - value) ? i : best), 0);
    const shown = element("span", { class: "number", "aria-hidden": "true" }, String(value));
    const input = element("input", {
      type: "range", min: 0, max: options.length - 1, step: 1, value: nearest, disabled, "aria-label": label, "aria-valuetext": String(value), "data-name": name,
      oninput: () => { const chosen = options[input.value]; shown.textContent = chosen; input.setAttribute("aria-valuetext", chosen); ask(chosen); },
    });
    return element("label", {}, label, input, shown);
  },
  image({ name, label, options, images }, { value, disabled, uploads, ask, complain }) {
    const group = `${name}-${Math.random()}`;
    const pictures = options.map((option) => element("label", {},
      element("input", { type: "radio", name: group, value: option, checked: option === value, disabled, "data-name": name, onchange: () => ask(option) }),
      element("img", { src: images[option], alt: "" }), option));
    const file = element("input", { type: "file", accept: "image/*", "aria-label": "upload an image", onchange: () => readFile(file.files[0], ask, complain) });
    return element("fieldset", { class: "tiles", "aria-label": label }, ...pictures, ...(uploads ? [element("label", { class: "upload" }, "upload …", file)] : []));
  },
  place({ name, label }, reader) { // needs no kernel, so it is never disabled
    const field = (i, limit, what) => element("input", {
      type: "number", min: -limit, max: limit, step: "any", value: reader.value[i], "data-name": name, "data-part": i, "aria-label": `${label}: ${what}, degrees`,
      onchange: (event) => {
        const number = parseFloat(event.target.value), known = Math.abs(number) <= limit;
        reader.complain(known ? "" : `${what} ${event.target.value}; expected −${limit} to ${limit} degrees`);
        if (known) reader.move(reader.value.map((old, k) => (k === i ? number : old)));
      },
    });
    return element("fieldset", { "aria-label": label }, label, field(0, 90, "latitude"), field(1, 180, "longitude"));
  },
};

function readFile(file, ask, complain) {
  if (!file) return;
  if (file.size > 2e7) { complain(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; expected an image of at most 20 MB`); return; }
  const reader = new FileReader();
  reader.onload = () => ask(reader.result);
  reader.onerror = () => complain(`${file.name} cannot be read`);
  reader.readAsDataURL(file);
}

/** Dragging turns the map, or moves the end of the path that `grab` finds under the pointer; arrow keys turn the map too. */
function listen(canvas, { map, grab, move, turn }) {
  let from = null, held = null; // where the pointer was; the end that it moves
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    from = at(event); held = grab(map(), from);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = at(event), m = map(), v = held && m.inverse(...to);
    if (v) move(held, latlon(v).map((degrees) => Math.round(degrees * 100) / 100));
    if (!held) turn((to[1] - from[1]) * m.degreesPerPixel, (from[0] - to[0]) * m.degreesPerPixel);
    from = to;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -10], ArrowRight: [0, 10], ArrowUp: [10, 0], ArrowDown: [-10, 0] }[event.key];
    if (step) { event.preventDefault(); turn(...step); }
  });
}

/** A figure for panels on one map: picture, titles and notes above, text below. */
function figureOf(panels, aspectRatio) {
  const canvas = element("canvas", { tabindex: 0, role: "img" });
  canvas.style.aspectRatio = aspectRatio;
  const names = panels.map((panel) => element("b", {}, panel.title || (panels.length > 1 ? "panel" : "")));
  const notes = panels.map((panel) => element("span", { class: "note" }, panel.note || ""));
  const pictures = panels.length === 1 && panels[0].image ? [element("img", { src: panels[0].image, alt: "the image" })] : [];
  const head = element("figcaption", {}, ...pictures, ...names.flatMap((name, i) => [...(name.textContent ? [name] : []), notes[i]]));
  const foot = element("figcaption", { class: "note" });
  return { panels, canvas, names, foot, element: element("figure", {}, head, canvas, foot) };
}

function legendOf(panels) {
  const parts = [], dense = panels.find((panel) => panel.density);
  if (panels.some((panel) => panel.truth)) parts.push(element("span", {}, element("b", { class: "cross" }, "✛"), " true place"));
  if (panels.some((panel) => panel.best)) parts.push(element("span", {}, "◎ best places, best first"));
  if (dense) parts.push(element("span", {}, "density: uniform ", element("i", { class: "ramp" }), ` ${Math.round(Math.exp(dense.density.peak)).toLocaleString("en")} × uniform`));
  return parts;
}

// State: what is seen, the animation, the questions

/** What part of the Earth is seen, how, and with which trails. */
class View {
  constructor(model) {
    this.center = [...model.get("center")]; this.zoom = 1;
    for (const name of ["projection", "trails", "together"]) this[name] = model.get(name);
    this.turned = this.center.some((degrees) => degrees !== 0); // by hand, or by whoever made the player
  }

  get globe() { return this.projection === "globe"; }

  /** Whether the map moves to the north and south as well. */
  get free() { return this.globe || this.zoom > 1; }

  map(width, height) {
    return (this.globe ? orthographic : equalEarth)(this.center.map((degrees) => degrees * RADIAN), this.zoom, width, height);
  }

  /** Turn a free map to the answer, unless the reader has turned it by hand. */
  face(panel) {
    const answer = panel && (panel.truth || (panel.best && panel.best[0]));
    if (!this.turned && answer && this.free) this.center = [...answer];
  }

  turn(north, east) {
    this.turned = true;
    const [lat, lon] = this.center, wrapped = ((((lon + east + 180) % 360) + 360) % 360) - 180;
    this.center = [this.free ? Math.max(-90, Math.min(90, lat + north)) : lat, wrapped];
  }

  get key() { return [this.projection, this.zoom, ...this.center]; }
}

/** The share of the way from noise (0) to places (1), which grows while it plays. `changed` is called after every change. */
class Playback {
  constructor(changed) { this.share = 1; this.speed = 1; this.playing = false; this.changed = changed; }
  go(share) { this.share = Math.max(0, Math.min(1, share)); this.changed(); }
  jump(share) { this.play(false); this.go(share); }

  play(on) {
    if (on && this.share >= 1) this.share = 0;
    this.playing = on;
    this.changed();
    let before = null;
    const tick = (time) => {
      if (!this.playing) return;
      this.go(Math.min(1, this.share + (before === null ? 0 : ((time - before) / 1000 / SECONDS) * this.speed)));
      before = time;
      if (this.share >= 1) this.play(false); else this.ticking = requestAnimationFrame(tick);
    };
    cancelAnimationFrame(this.ticking);
    if (on) this.ticking = requestAnimationFrame(tick);
  }
}

/** The reader's choices, and who answers them: the page, from a table or by a network, or the kernel, which gets one question at a time. What is asked
 * meanwhile waits, and only the last of it is sent. `look` shows the table's answer, `changed` the choices, `say` a text, and whether
 * the maps wait for an answer. */
class Questions {
  constructor(model, { look, changed, say }) {
    Object.assign(this, { model, look, changed, say, values: { ...model.get("values") }, asked: model.get("asked"), again: false, pending: false });
  }

  hasTable() { return Object.keys(this.model.get("table")).length > 0; }

  /** Whether a network in the page makes the answer. */
  computes() { return Object.keys(this.model.get("jumps")).length > 0; }

  /** The name of the choices in the table. */
  key() { return this.model.get("controls").map(({ name }) => this.values[name]).join("|"); }

  /** Whether the kernel has not yet answered. */
  get waiting() { return this.asked > this.model.get("answered"); }

  ask(name, value) {
    this.values = { ...this.values, [name]: value };
    if (this.hasTable()) this.look(); else this.soon(() => (this.computes() ? this.look() : this.send()));
  }

  /** Python is told of a choice that nobody needs to answer. */
  tell(name, value) {
    this.values = { ...this.values, [name]: value };
    this.soon(() => { this.model.set("values", this.values); this.model.save_changes(); });
  }

  /** Wait for the next choice, as a slider makes many; `pending` until then. */
  soon(action) {
    clearTimeout(this.timer);
    this.pending = true;
    this.timer = setTimeout(() => { this.pending = false; action(); }, DEBOUNCE);
  }

  send() {
    this.again = this.waiting;
    if (this.again) return;
    this.asked = this.model.get("asked") + 1;
    this.model.set("values", this.values); this.model.set("asked", this.asked); this.model.save_changes();
    this.say("computing …", true);
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.say("No answer yet: the kernel is busy, or it has stopped (then run the cell again). The slider and the map go on working.", true), PATIENCE);
  }

  answered() {
    if (this.waiting) return;
    clearTimeout(this.patience);
    this.say("");
    if (this.again) this.send();
    else if (JSON.stringify(this.values) !== JSON.stringify(this.model.get("values"))) this.refresh();
  }

  /** Take over what Python has chosen, unless the reader's own choice is on its way. */
  refresh() {
    if (this.waiting || this.again || this.pending) return;
    this.values = { ...this.model.get("values") };
    this.changed();
  }

  stop() { clearTimeout(this.timer); clearTimeout(this.patience); }
}

// The player

class Player {
  constructor(model, root) {
    Object.assign(this, { model, root, steps: 1, frame: 0, panels: [], figures: [], bases: new Map(), rings: readLand(model.get("land")) });
    this.view = new View(model);
    this.playback = new Playback(() => this.showStep());
    this.questions = new Questions(model, {
      look: () => this.read(), changed: () => { this.buildControls(); if (this.questions.computes()) this.read(); else this.draw(); },
      say: (text, busy) => { this.say(text); this.maps.classList.toggle("busy", Boolean(busy)); },
    });
    this.build();
    this.read();
    this.playback.go(model.get("position"));
  }

  // Elements

  build() {
    const hidden = true;
    this.asking = element("div", { class: "bar asking" });
    this.message = element("div", { class: "message", role: "alert", hidden });
    const live = this.model.get("live") && !this.questions.hasTable() && !this.questions.computes() && this.model.get("controls").length ? "live" : "";
    this.status = element("div", { class: `status ${live}`, role: "status", "aria-live": "polite", hidden });
    this.maps = element("div", { class: "maps" });
    this.legend = element("div", { class: "bar note" });
    this.root.append(this.asking, this.message, this.status, this.maps, this.legend, this.buildPlayback(), this.buildView());
    // JupyterLab takes arrow keys for itself unless they stop here.
    this.root.dataset.lmSuppressShortcuts = "true";
    this.root.addEventListener("keydown", (event) => { if (event.key !== "Escape" && !event.ctrlKey && !event.metaKey) event.stopPropagation(); });
    this.buildControls();
  }

  buildPlayback() {
    const playback = this.playback;
    this.button = element("button", { type: "button", onclick: () => playback.play(!playback.playing) }, "▶ Play");
    this.slider = element("input", {
      type: "range", class: "way", min: 0, step: 1, "aria-label": "sampling step, from noise to places",
      oninput: () => playback.jump(this.slider.value / this.steps),
    });
    this.now = element("span", { class: "now" });
    this.chart = element("canvas", { class: "chart", role: "img", "aria-label": "schedule: time t over the share of the steps" });
    return element("div", { class: "bar playback" }, this.button, this.slider, this.now, this.chart);
  }

  buildView() {
    const view = this.view, projections = { "flat map": "flat", globe: "globe" };
    const kept = Object.keys(projections).find((name) => projections[name] === view.projection);
    const face = () => { view.face(this.panels[0]); this.arrange(); };
    this.trailsPick = pick("trails", Object.keys(TRAILS), view.trails, (name) => { view.trails = name; this.draw(); });
    this.speedPick = pick("speed", ["0.25×", "0.5×", "1×", "2×", "4×"], "1×", (text) => { this.playback.speed = parseFloat(text); });
    this.togetherBox = element("label", {}, element("input", {
      type: "checkbox", checked: view.together, onchange: (event) => { view.together = event.target.checked; this.arrange(); },
    }), "on one map");
    return element("div", { class: "bar" },
      pick("map", Object.keys(projections), kept, (name) => { view.projection = projections[name]; face(); }),
      pick("zoom", ["1×", "2×", "4×", "8×"], "1×", (text) => { view.zoom = parseFloat(text); face(); }),
      this.trailsPick, this.speedPick, this.togetherBox);
  }

  buildControls() {
    const controls = this.model.get("controls"), table = this.questions.hasTable() || this.questions.computes(), disabled = !this.model.get("live") && !table;
    const readerOf = ({ name }, { questions } = this) => ({
      get value() { return questions.values[name]; },
      disabled, uploads: !disabled && !table, complain: (text) => this.complain(text),
      ask: (value) => questions.ask(name, value), move: (degrees) => this.moveTo(name, degrees),
    });
    this.asking.replaceChildren(...controls.map((control) => CONTROLS[control.kind](control, readerOf(control))));
    this.asking.hidden = !controls.length;
    if (disabled && controls.some(({ kind }) => kind !== "place")) this.say("This page has no kernel: it shows the answer it was saved with. The slider and the map are alive.");
  }

  complain(text) { this.message.textContent = text; this.message.hidden = !text; }
  say(text) { this.status.textContent = text; this.status.hidden = !text; }

  // What is shown

  read() {
    const data = this.model.get("data"), panels = this.model.get("panels"), questions = this.questions;
    const chosen = questions.hasTable() ? this.model.get("table")[questions.key()] : panels.map((_, i) => i);
    this.complain(chosen ? this.model.get("message") : `Nothing was computed for ${questions.key()}.`);
    if (!chosen) return;
    this.panels = questions.computes() ? [this.jumped()] : chosen.map((i) => readPanel(data, panels[i]));
    this.bases.clear();
    this.view.face(this.panels[0]);
    this.steps = Math.max(1, ...this.panels.map((panel) => panel.states - 1));
    this.slider.max = this.steps;
    const resting = !this.panels.some((panel) => panel.states > 1), byHand = this.panels.some((panel) => panel.sphere);
    for (const part of [this.slider, this.button, this.now, this.speedPick]) part.hidden = resting;
    for (const part of [this.chart, this.trailsPick]) part.hidden = resting || byHand;
    this.togetherBox.hidden = this.panels.length < 2 || byHand || this.panels.some((panel) => panel.density);
    const legend = legendOf(this.panels);
    this.legend.replaceChildren(...legend);
    this.legend.hidden = !legend.length;
    this.arrange();
    this.playback.go(this.playback.playing ? this.playback.share : Math.round(this.playback.share * this.steps) / this.steps);
  }

  /** The jumps of a flow map, computed here. */
  jumped() {
    const { image, steps, guidance, points } = this.questions.values, about = this.model.get("jumps");
    const number = this.model.get("controls")[0].options.indexOf(image);
    this.network ??= readNetwork(about, this.model.get("network"));
    const panel = jumpPanel(this.network, { image: number, guidance, points, times: about.times[steps], truth: about.truths[number] });
    this.root.dataset.jumpsMs = panel.ms.toFixed(1); // for the tests
    return panel;
  }

  arrange() {
    const groups = this.view.together && !this.togetherBox.hidden ? [this.panels] : this.panels.map((panel) => [panel]);
    const columns = groups.length < 2 ? 1 : groups.length === 2 || groups.length === 4 ? 2 : 3;
    this.maps.style.gridTemplateColumns = `repeat(auto-fill, minmax(max(${columns > 1 ? 190 : 0}px, ${[100, 46, 31][columns - 1]}%), 1fr))`;
    this.maps.style.maxWidth = columns > 1 ? "" : "860px";
    this.figures = groups.map((panels) => figureOf(panels, this.view.globe && columns > 1 ? "1.2" : "2.04"));
    for (const { canvas, panels } of this.figures) {
      canvas.style.touchAction = panels[0].sphere || this.view.free ? "none" : "pan-y";
      listen(canvas, {
        map: () => this.view.map(canvas.clientWidth, canvas.clientHeight), grab: (map, from) => (panels[0].sphere ? this.grab(map, from) : null),
        move: (name, degrees) => this.moveTo(name, degrees), turn: (...by) => { this.view.turn(...by); this.draw(); },
      });
    }
    this.maps.replaceChildren(...this.figures.map((figure) => figure.element));
    this.draw();
  }

  /** The end of the path that lies within 16 pixels: "x", "y" or null. */
  grab(map, from) {
    const to = [0, 0];
    return ["x", "y"].find((name) => map.forward(vector(...this.questions.values[name]), 0, to, 0) && Math.hypot(to[0] - from[0], to[1] - from[1]) < 16) || null;
  }

  moveTo(name, degrees) {
    this.questions.tell(name, degrees);
    for (const field of this.asking.querySelectorAll(`[data-name="${name}"]`)) field.value = degrees[field.dataset.part];
    this.draw();
  }

  showStep() {
    const { share, playing } = this.playback;
    const panel = this.panels.reduce((a, b) => (b.states > a.states ? b : a), this.panels[0]);
    this.button.textContent = playing ? "❚❚ Pause" : "▶ Play";
    this.slider.value = Math.round(share * this.steps);
    if (panel) {
      this.now.textContent = panel.sphere ? `t = ${share.toFixed(2)}` : `step ${Math.round(share * panel.steps)} of ${panel.steps}, t = ${timeAt(panel, share).toFixed(3)}`;
      this.slider.setAttribute("aria-valuetext", this.now.textContent);
    }
    this.draw();
  }

  // Drawing, at most once a frame

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      try { this.redraw(); } catch (error) { this.complain(`The map cannot be drawn: ${error.message}`); throw error; }
    });
  }

  redraw() {
    const start = performance.now(), ink = getComputedStyle(this.root).color, [r, g, b] = ink.match(/[\d.]+/g).map(Number);
    const dark = 0.3 * r + 0.6 * g + 0.1 * b > 127, theme = dark ? DARK : LIGHT, ramp = this.legend.querySelector(".ramp");
    if (ramp) ramp.style.background = `linear-gradient(to right, transparent, ${densityColors(dark).join()})`;
    this.figures.forEach((figure, number) => this.drawFigure(figure, number, theme, dark));
    if (!this.chart.hidden) drawChart(this.chart, this.panels, this.playback.share, theme, ink);
    this.root.dataset.redrawMs = (performance.now() - start).toFixed(2); // for the tests
    this.root.dataset.redraws = Number(this.root.dataset.redraws || 0) + 1;
  }

  drawFigure({ panels, canvas, names, foot }, number, theme, dark) {
    const { ctx, width, height, scale } = prepare(canvas);
    if (!width || !height) return;
    const map = this.view.map(width, height), { x, y } = this.questions.values;
    ctx.drawImage(this.base(map, panels[0], number, theme, dark, width, height, scale), 0, 0, width, height);
    const texts = panels.map((panel, i) => {
      names[i].style.setProperty("--dot", colorOf(panel, theme));
      return drawPanel(ctx, map, panel, this.playback.share, this.view.trails, panel.sphere && [vector(...x), vector(...y)], theme);
    });
    for (const { best } of panels) (best || []).forEach((at, i) => drawBest(ctx, map, vector(...at), String(i + 1)));
    for (const { truth } of panels) if (truth) drawTruth(ctx, map, vector(...truth));
    foot.textContent = panels.length > 1 ? "" : texts[0];
    canvas.setAttribute("aria-label", `World map. ${panels.map((panel, i) => described(panel, texts[i])).join(" ")} Arrow keys turn it.`);
  }

  /** The map below the points. It is drawn once for each view; figures without a density share it. */
  base(map, panel, number, theme, dark, width, height, scale) {
    const key = [width, height, scale, ...this.view.key, dark, panel.density ? number : ""].join();
    if (!this.bases.has(key)) {
      if (this.bases.size >= 2 * this.figures.length + 2) this.bases.clear();
      const base = new OffscreenCanvas(Math.round(width * scale), Math.round(height * scale)), pen = base.getContext("2d");
      pen.scale(scale, scale);
      drawBase(pen, map, this.rings, theme, panel, dark, width, height);
      this.bases.set(key, base);
    }
    return this.bases.get(key);
  }
}

function render({ model, el }) {
  const root = element("div", { class: "geoflow", role: "group", "aria-label": "trajectory player" });
  el.append(root);
  let player;
  try { player = new Player(model, root); } catch (error) {
    root.append(element("div", { class: "message", role: "alert" }, `The player cannot be shown: ${error.message}`));
    throw error;
  }
  let waiting = false;
  const read = () => { // panels and data come in one message and are read once
    if (!waiting) queueMicrotask(() => { waiting = false; if (!player.panels.some((panel) => panel.sphere)) player.read(); });
    waiting = true;
  };
  const handlers = {
    "change:panels": read, "change:data": read, "change:message": () => player.complain(model.get("message")),
    "change:answered": () => player.questions.answered(), "change:values": () => player.questions.refresh(),
    "change:position": () => player.playback.jump(model.get("position")),
  };
  for (const [name, handler] of Object.entries(handlers)) model.on(name, handler);
  const resized = new ResizeObserver(() => player.draw());
  resized.observe(root);
  const themes = new MutationObserver(() => player.draw()), dark = matchMedia("(prefers-color-scheme: dark)"), redraw = () => player.draw();
  themes.observe(document.body, { attributes: true });
  dark.addEventListener("change", redraw);
  return () => {
    player.playback.play(false); player.questions.stop();
    resized.disconnect(); themes.disconnect(); dark.removeEventListener("change", redraw);
    for (const [name, handler] of Object.entries(handlers)) model.off(name, handler);
  };
}

export default { render };

// Drawing of the player: functions of a 2D canvas' context and a projection.

const LIGHT = {
  sea: "#eef3f7", land: "#dedad2", coast: "#5a5a5a", graticule: "#c3cbd1", ink: "#1b1b1b",
  colors: ["#0072B2", "#D55E00", "#009E73", "#B8860B", "#A8558A", "#4d4d4d"],
};
const DARK = {
  sea: "#131b22", land: "#303840", coast: "#8a949c", graticule: "#2a353e", ink: "#f2f2f2",
  colors: ["#56B4E9", "#FF8A4C", "#2BC49A", "#F0E442", "#E29AC4", "#cccccc"],
}; // Okabe and Ito's hues, darker on light and lighter on dark
const MAGMA = ["#000004", "#1d1147", "#51127c", "#822681", "#b63679", "#e65164", "#fb8861", "#fec287", "#fcfdbf"];
const TRUTH = "#00e5ff";
const TRAILS = { none: 0, short: 0.12, long: 0.35, "whole way": 1 }; // share of the way
const PIECES = 12000; // of trails at most: what a canvas draws in a frame

/** Sea, land, density, graticule and coast. */
function drawBase(ctx, map, rings, theme, panel, dark, width, height) {
  ctx.save();
  ctx.beginPath(); map.outline(ctx); ctx.clip();
  ctx.fillStyle = theme.sea; ctx.fillRect(0, 0, width, height);
  const { land, coast } = landPaths(map, rings, width, height);
  ctx.fillStyle = theme.land; ctx.fill(land, "evenodd");
  if (panel.raster) ctx.drawImage(drawDensity(panel, map, width, height, dark), 0, 0, width, height);
  ctx.strokeStyle = theme.graticule; ctx.lineWidth = 0.5; ctx.beginPath();
  for (let lat = -60; lat <= 60; lat += 30) addLine(ctx, map, 120, (i) => vector(lat, -180 + 3 * i));
  for (let lon = -180; lon < 180; lon += 30) addLine(ctx, map, 50, (i) => vector(-75 + 3 * i, lon));
  ctx.stroke();
  ctx.strokeStyle = theme.coast; ctx.lineWidth = 0.6; ctx.stroke(coast);
  ctx.restore();
  ctx.strokeStyle = theme.coast; ctx.lineWidth = 0.8; ctx.beginPath(); map.outline(ctx); ctx.stroke();
}

/** The land to fill, and the coast to stroke. On a flat map the land is repeated to the left and right of the middle one. */
function landPaths(map, rings, width, height) {
  const land = new Path2D(), coast = new Path2D(), to = [0, 0];
  for (const turn of map.unwrapped ? [-360, 0, 360] : [0])
    for (const ring of rings) {
      if (map.unwrapped) {
        map.unwrapped(0, ring.lons[0] + turn, to, 0); const left = to[0];
        map.unwrapped(0, ring.lons[1] + turn, to, 0);
        if (left > width || to[0] < 0) continue;
      }
      let before = null;
      ring.latlon.forEach((p, i) => {
        let seen = true;
        if (map.unwrapped) map.unwrapped(p[0], p[1] + turn, to, 0);
        else if (!(seen = map.forward(ring.vectors[i], 0, to, 0))) { // behind the globe: mirrored at its rim, well outside
          const x = to[0] - width / 2, y = to[1] - height / 2, r = Math.hypot(x, y) || 1e-6, far = (map.radius * (5 - (4 * r) / map.radius)) / r;
          to[0] = width / 2 + x * far; to[1] = height / 2 + y * far;
        }
        if (i) land.lineTo(...to); else land.moveTo(...to);
        if (before && seen && !isEdge(p, ring.latlon[i - 1])) { coast.moveTo(...before); coast.lineTo(...to); }
        before = seen ? [...to] : null;
      });
      land.closePath();
    }
  const all = 6 * map.radius; // with the hidden middle on land, the fill must begin from the outside
  if (!map.unwrapped && onLand(rings, latlon(map.antipode))) land.rect(width / 2 - all, height / 2 - all, 2 * all, 2 * all);
  return { land, coast };
}

/** A line through the vectors at(0) … at(n), without what is hidden or jumps across the edge. */
function addLine(ctx, map, n, at) {
  const to = [0, 0];
  let before = null;
  for (let i = 0; i <= n; i++) {
    const seen = map.forward(at(i), 0, to, 0);
    if (seen && before !== null && Math.abs(to[0] - before) < map.jump) ctx.lineTo(...to); else ctx.moveTo(...to);
    before = seen ? to[0] : null;
  }
}

const densityColors = (dark) => (dark ? MAGMA.slice(1) : MAGMA.slice(0, -1).reverse());

function drawDensity(panel, map, width, height, dark) {
  const { rows, columns } = panel.density, picture = new OffscreenCanvas(Math.ceil(width / 2), Math.ceil(height / 2)), w = picture.width;
  const ctx = picture.getContext("2d"), image = ctx.createImageData(w, picture.height), pixels = image.data;
  const stops = densityColors(dark).map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
  const at = (row, column) => panel.raster[Math.max(0, Math.min(rows - 1, row)) * columns + ((column + columns) % columns)];
  for (let py = 0; py < picture.height; py++)
    for (let px = 0; px < w; px++) {
      const v = map.inverse(2 * px + 1, 2 * py + 1); // two pixels wide: finer than the data, and a globe turns without a pause
      if (!v) continue;
      const [lat, lon] = latlon(v), r = ((90 - lat) / 180) * rows - 0.5, c = ((lon + 180) / 360) * columns - 0.5;
      const i = Math.floor(r), j = Math.floor(c), a = r - i, b = c - j;
      const level = (1 - a) * ((1 - b) * at(i, j) + b * at(i, j + 1)) + a * ((1 - b) * at(i + 1, j) + b * at(i + 1, j + 1));
      if (level < 1) continue;
      const s = (level / 255) * (stops.length - 1), k = Math.min(Math.floor(s), stops.length - 2), f = s - k;
      for (let channel = 0; channel < 3; channel++) pixels[4 * (py * w + px) + channel] = (1 - f) * stops[k][channel] + f * stops[k + 1][channel];
      pixels[4 * (py * w + px) + 3] = Math.min(255, 8 * level);
    }
  ctx.putImageData(image, 0, 0);
  return picture;
}

function drawTrails(ctx, map, panel, share, length, color) {
  const n = panel.count, steps = panel.states - 1;
  if (!length || steps < 1 || !n || share <= 0) return;
  const from = Math.max(0, share - length), pieces = Math.max(2, Math.min(40, Math.floor(PIECES / n), Math.ceil((share - from) * Math.max(steps, 32))));
  let last = new Float32Array(2 * n), next = new Float32Array(2 * n), seenLast = new Uint8Array(n), seenNext = new Uint8Array(n);
  const points = new Float32Array(3 * n);
  ctx.strokeStyle = color; ctx.lineWidth = 1;
  for (let j = 0; j <= pieces; j++) {
    statesAt(panel, share - ((share - from) * j) / pieces, points);
    for (let i = 0; i < n; i++) seenNext[i] = map.forward(points, 3 * i, next, 2 * i) ? 1 : 0;
    if (j) {
      ctx.globalAlpha = 0.5 * (1 - (j - 1) / pieces) * Math.min(1, 1500 / n + 0.3); ctx.beginPath();
      for (let i = 0; i < n; i++)
        if (seenLast[i] && seenNext[i] && Math.abs(last[2 * i] - next[2 * i]) < map.jump) {
          ctx.moveTo(last[2 * i], last[2 * i + 1]); ctx.lineTo(next[2 * i], next[2 * i + 1]);
        }
      ctx.stroke();
    }
    [last, next, seenLast, seenNext] = [next, last, seenNext, seenLast];
  }
  ctx.globalAlpha = 1;
}

function drawPoints(ctx, map, panel, color, sea) {
  const many = panel.count > 2000, radius = many ? 1.1 : panel.count > 800 ? 1.7 : 2.2, to = [0, 0], scale = ctx.getTransform().a;
  const size = 2 * radius + 2, dotted = new OffscreenCanvas(Math.ceil(size * scale), Math.ceil(size * scale)), pen = dotted.getContext("2d");
  pen.scale(scale, scale); pen.beginPath(); pen.arc(size / 2, size / 2, radius, 0, 2 * Math.PI); pen.fillStyle = color; pen.fill();
  pen.strokeStyle = sea; pen.lineWidth = 0.5; pen.stroke();
  ctx.globalAlpha = 0.85; ctx.fillStyle = color;
  for (let i = 0; i < panel.now.length; i += 3) {
    if (!map.forward(panel.now, i, to, 0)) continue;
    if (many) ctx.fillRect(Math.round(to[0] - radius), Math.round(to[1] - radius), 2, 2); // squares on whole pixels: thousands at once
    else ctx.drawImage(dotted, to[0] - size / 2, to[1] - size / 2, size, size);
  }
  ctx.globalAlpha = 1;
}

function drawTruth(ctx, map, at) {
  const to = [0, 0];
  if (!map.forward(at, 0, to, 0)) return;
  for (const [color, width] of [["#ffffff", 5], ["#000000", 3.4], [TRUTH, 1.8]]) {
    ctx.strokeStyle = color; ctx.lineWidth = width; ctx.beginPath();
    for (const [x, y] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { ctx.moveTo(to[0] + 5 * x, to[1] + 5 * y); ctx.lineTo(to[0] + 11 * x, to[1] + 11 * y); }
    ctx.stroke();
  }
}

function drawBest(ctx, map, at, label) {
  const to = [0, 0];
  if (!map.forward(at, 0, to, 0)) return;
  for (const [color, width] of [["#ffffff", 3.6], ["#000000", 1.6]]) {
    ctx.strokeStyle = color; ctx.lineWidth = width; ctx.beginPath(); ctx.arc(...to, 6, 0, 2 * Math.PI); ctx.stroke();
  }
  ctx.font = "bold 11px sans-serif"; ctx.textBaseline = "middle"; ctx.lineWidth = 3; ctx.strokeStyle = "#ffffff"; ctx.fillStyle = "#000000";
  ctx.strokeText(label, to[0] + 9, to[1] - 7); ctx.fillText(label, to[0] + 9, to[1] - 7);
}

/** Two points, the geodesic between them, and the vectors that log gives at each. */
function drawSphere(ctx, map, [x, y], share, theme) {
  const v = log(x, y), [path, first, second] = theme.colors;
  ctx.lineWidth = 2; ctx.strokeStyle = path; ctx.beginPath();
  addLine(ctx, map, 90, (i) => exp(x, v.map((c) => (c * i) / 90)));
  ctx.stroke();
  drawArrow(ctx, map, x, v, first); drawArrow(ctx, map, y, log(y, x), second);
  drawEnd(ctx, map, exp(x, v.map((c) => c * share)), path, "", 5, theme);
  drawEnd(ctx, map, x, first, "x", 8, theme); drawEnd(ctx, map, y, second, "y", 8, theme);
}

/** A tangent vector: on the globe as it lies in space, on the flat map in the direction of its geodesic, which it would be as long as
 * on the equator. */
function drawArrow(ctx, map, at, u, color) {
  const foot = [0, 0], tip = [0, 0], length = norm(u);
  if (!map.forward(at, 0, foot, 0) || length < 1e-6) return;
  if (map.unwrapped) {
    map.forward(exp(at, u.map((c) => (c * 1e-3) / length)), 0, tip, 0);
    const scale = (length / map.degreesPerPixel / RADIAN) / (Math.hypot(tip[0] - foot[0], tip[1] - foot[1]) || 1);
    tip[0] = foot[0] + (tip[0] - foot[0]) * scale; tip[1] = foot[1] + (tip[1] - foot[1]) * scale;
  } else map.forward(plus(at, 1, u), 0, tip, 0);
  const angle = Math.atan2(tip[1] - foot[1], tip[0] - foot[0]);
  ctx.strokeStyle = ctx.fillStyle = color; ctx.lineWidth = 2; ctx.setLineDash([5, 3]); ctx.beginPath(); ctx.moveTo(...foot); ctx.lineTo(...tip); ctx.stroke();
  ctx.setLineDash([]); ctx.beginPath(); ctx.moveTo(...tip);
  for (const side of [-0.4, 0.4]) ctx.lineTo(tip[0] - 10 * Math.cos(angle + side), tip[1] - 10 * Math.sin(angle + side));
  ctx.fill();
}

/** A disc with a label, pale behind the globe. */
function drawEnd(ctx, map, at, color, label, radius, theme) {
  const to = [0, 0];
  ctx.globalAlpha = map.forward(at, 0, to, 0) ? 1 : 0.35;
  ctx.beginPath(); ctx.arc(...to, radius, 0, 2 * Math.PI); ctx.fillStyle = color; ctx.fill(); ctx.strokeStyle = theme.sea; ctx.lineWidth = 1.5; ctx.stroke();
  ctx.font = "bold 13px sans-serif"; ctx.fillStyle = theme.ink; ctx.textBaseline = "middle"; ctx.fillText(label, to[0] + radius + 3, to[1]); ctx.globalAlpha = 1;
}

function sphereText([x, y], share) {
  const v = log(x, y), angle = norm(v), at = exp(x, v.map((c) => c * share));
  const numbers = (a) => `(${a.map((c) => c.toFixed(3)).join(", ")})`;
  const warning = angle > Math.PI - 1e-3 ? " The points are antipodes: log has no direction of its own there." : "";
  return `distance ${angle.toFixed(4)} rad = ${kilometres(angle * EARTH_KM)}\nlog of y at x ${numbers(v)}, length ${angle.toFixed(4)}; ` +
    `log of x at y ${numbers(log(y, x))}\nexp at x of ${share.toFixed(2)} log: ${place(latlon(at))}.${warning}`;
}

/** A canvas in device pixels, empty; its context counts in CSS pixels. */
function prepare(canvas) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(scale, 0, 0, scale, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return { ctx, width, height, scale };
}

/** What moves on a panel's map. Returns what is to be said about it. */
function drawPanel(ctx, map, panel, share, trails, ends, theme) {
  if (panel.sphere) {
    drawSphere(ctx, map, ends, share, theme);
    return sphereText(ends, share);
  }
  const color = colorOf(panel, theme);
  statesAt(panel, share, panel.now);
  drawTrails(ctx, map, panel, share, TRAILS[trails], color);
  drawPoints(ctx, map, panel, color, theme.sea);
  const parts = panel.states > 1 && !panel.density ? [`t = ${timeAt(panel, share).toFixed(3)}`] : [];
  if (panel.truth && panel.count) parts.push(`half within ${kilometres(medianKm(panel.now, vector(...panel.truth)))} of the true place`);
  return parts.join(" · ");
}

const colorOf = (panel, theme) => theme.colors[panel.color % theme.colors.length];

/** A panel in words, for readers who hear the page. */
const described = (panel, text) =>
  `${panel.title || "map"}: ${panel.sphere ? "two points" : `${panel.count} points`}. ${text}. ${panel.note || ""}` +
  `${panel.truth ? ` True place ${place(panel.truth)}.` : ""}${panel.best ? ` Best places ${panel.best.map(place).join("; ")}.` : ""}`;

/** The schedules: time over the share of the steps. */
function drawChart(canvas, panels, share, theme, ink) {
  const { ctx, width, height } = prepare(canvas);
  if (!width) return;
  const x = (s) => 16 + s * (width - 22), y = (t) => height - 13 - t * (height - 18);
  ctx.strokeStyle = theme.coast; ctx.lineWidth = 0.7; ctx.strokeRect(x(0), y(1), x(1) - x(0), y(0) - y(1));
  ctx.fillStyle = ink; ctx.font = "10px sans-serif"; ctx.textAlign = "center";
  ctx.fillText("t", 7, y(0.5) + 3); ctx.fillText("steps →", x(0.5), height - 2);
  for (const panel of panels.filter((p) => p.states > 1)) {
    ctx.strokeStyle = ctx.fillStyle = colorOf(panel, theme); ctx.lineWidth = 1.3; ctx.beginPath();
    panel.times.forEach((t, k) => ctx.lineTo(x(k / (panel.states - 1)), y(t)));
    ctx.stroke();
    if (panel.states < 34) panel.times.forEach((t, k) => ctx.fillRect(x(k / (panel.states - 1)) - 1, y(t) - 1, 2, 2));
    ctx.beginPath(); ctx.arc(x(share), y(timeAt(panel, share)), 3.5, 0, 2 * Math.PI); ctx.fill();
  }
}

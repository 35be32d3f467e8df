// The trajectory player of geoflow: points on a turning map, drawn on a 2D canvas. One module for notebooks (anywidget) and for
// saved pages, where `model` is a stub. Python's side, and what each field of the model means: geoflow/widgets.py.

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
const SECONDS = 8; // from noise to places, at speed 1
const TRAILS = { none: 0, short: 0.12, long: 0.35, "whole way": 1 }; // share of the way
const PIECES = 12000; // of trails at most: what a canvas draws in a frame
const DEBOUNCE = 120, PATIENCE = 6000; // ms
const EARTH_KM = 6371, RADIAN = Math.PI / 180;

// Geometry: unit vectors [x, y, z], the x axis to 0°N 0°E, the z axis to the north pole

const vector = (lat, lon) => {
  const side = Math.cos(lat * RADIAN);
  return [side * Math.cos(lon * RADIAN), side * Math.sin(lon * RADIAN), Math.sin(lat * RADIAN)];
};
const latlon = ([x, y, z]) => [Math.atan2(z, Math.hypot(x, y)) / RADIAN, Math.atan2(y, x) / RADIAN];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const plus = (a, s, b) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const norm = (a) => Math.sqrt(dot(a, a));

/** The tangent vector at x that leads to y: as `geoflow.sphere.log`. */
export function log(x, y) {
  const u = plus(y, -dot(x, y), x), s = norm(u);
  return s < 1e-12 ? [0, 0, 0] : u.map((c) => (c * Math.atan2(s, dot(x, y))) / s);
}

/** Where the tangent vector v at x leads: as `geoflow.sphere.exp`. */
export function exp(x, v) {
  const length = norm(v);
  return length < 1e-12 ? x : x.map((c, i) => c * Math.cos(length) + (v[i] * Math.sin(length)) / length);
}

/** Equal Earth (Šavrič, Patterson and Jenny, 2018) for the flat map, orthographic for the globe; x to the right, y down, pixels.
 * `forward(v, i, out, j)` places the vector at v[i…i+2] and says whether it is seen; `inverse(px, py)` is a vector or null. */
function projection({ projection: kind, center, zoom }, width, height) {
  const [lat0, lon0] = center.map((degrees) => degrees * RADIAN), cx = width / 2, cy = height / 2;
  if (kind === "globe") {
    const radius = zoom * (Math.min(width, height) / 2 - 3);
    const [cl, sl, cp, sp] = [Math.cos(lon0), Math.sin(lon0), Math.cos(lat0), Math.sin(lat0)];
    const east = [-sl, cl, 0], north = [-sp * cl, -sp * sl, cp], out = [cp * cl, cp * sl, sp];
    return {
      radius,
      forward(v, i, to, j) {
        to[j] = cx + radius * (v[i] * east[0] + v[i + 1] * east[1]);
        to[j + 1] = cy - radius * (v[i] * north[0] + v[i + 1] * north[1] + v[i + 2] * north[2]);
        return v[i] * out[0] + v[i + 1] * out[1] + v[i + 2] * out[2] >= 0;
      },
      inverse(px, py) {
        const a = (px - cx) / radius, b = (cy - py) / radius, c2 = 1 - a * a - b * b;
        return c2 < 0 ? null : plus(plus(out.map((c) => c * Math.sqrt(c2)), a, east), b, north);
      },
      outline: (path) => path.arc(cx, cy, radius, 0, 2 * Math.PI),
      antipode: out.map((c) => -c), jump: Infinity, degreesPerPixel: 1 / (radius * RADIAN),
    };
  }
  const M = Math.sqrt(3) / 2, [a, b, c, d] = [1.340264, -0.081106, 0.000893, 0.003796];
  const up = (q) => q * (a + b * q ** 2 + q ** 6 * (c + d * q ** 2));
  const slope = (q2) => { const q6 = q2 * q2 * q2; return a + 3 * b * q2 + q6 * (7 * c + 9 * d * q2); };
  const scale = zoom * Math.min((width - 4) / (2 * Math.PI / (M * a)), (height - 4) / (2 * up(Math.PI / 3)));
  const across = (q) => (scale * Math.cos(q)) / (M * slope(q * q)); // pixels per radian of longitude
  const middle = zoom > 1 ? up(Math.asin(M * Math.sin(lat0))) : 0;
  const parameter = (py) => { // the inverse of `up`, by Newton's method
    const y = (cy - py) / scale + middle;
    let q = y / a;
    for (let i = 0; i < 6; i++) q -= (up(q) - y) / slope(q * q);
    return q;
  };
  const place = (lon, q, to, j) => { to[j] = cx + lon * across(q); to[j + 1] = cy - scale * (up(q) - middle); };
  return {
    forward(v, i, to, j) {
      let lon = Math.atan2(v[i + 1], v[i]) - lon0;
      if (lon > Math.PI) lon -= 2 * Math.PI; else if (lon < -Math.PI) lon += 2 * Math.PI;
      const q = Math.asin(M * Math.max(-1, Math.min(1, v[i + 2])));
      place(lon, q, to, j);
      return true;
    },
    inverse(px, py) {
      const q = parameter(py), lon = (px - cx) / across(q);
      if (Math.abs(q) > Math.PI / 3 || Math.abs(lon) > Math.PI) return null;
      const z = Math.sin(q) / M, side = Math.sqrt(1 - z * z);
      return [side * Math.cos(lon + lon0), side * Math.sin(lon + lon0), z];
    },
    unwrapped(lat, lon, to, j) { place(lon * RADIAN - lon0, Math.asin(M * Math.sin(lat * RADIAN)), to, j); },
    outline(path) {
      const to = [0, 0];
      for (let i = -90; i <= 90; i += 2) { place(-Math.PI, Math.asin(M * Math.sin(i * RADIAN)), to, 0); path.lineTo(...to); }
      for (let i = 90; i >= -90; i -= 2) { place(Math.PI, Math.asin(M * Math.sin(i * RADIAN)), to, 0); path.lineTo(...to); }
      path.closePath();
    },
    jump: 0.3 * zoom * width, degreesPerPixel: 1 / (across(0) * RADIAN),
  };
}

// What comes from Python

const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Rings of (lat, lon), hundredths of degrees as int16, each after its length; long edges are divided, so that they can bend. */
function readLand(view) {
  const rings = [];
  for (let at = 0; at < view.byteLength; ) {
    const ring = [], count = view.getInt16(at, true);
    for (let i = 0; i < count; i++) {
      const lat = view.getInt16(at + 2 + 4 * i, true) / 100, lon = view.getInt16(at + 4 + 4 * i, true) / 100;
      const [lat0, lon0] = i ? ring[ring.length - 1] : [lat, lon];
      const parts = Math.max(1, Math.ceil(Math.max(Math.abs(lat - lat0), Math.abs(lon - lon0)) / 3));
      for (let k = 1; k <= parts; k++) ring.push([lat0 + ((lat - lat0) * k) / parts, lon0 + ((lon - lon0) * k) / parts]);
    }
    rings.push({ latlon: ring, vectors: ring.map((p) => vector(...p)), lons: [Math.min(...ring.map((p) => p[1])), Math.max(...ring.map((p) => p[1]))] });
    at += 2 + 4 * count;
  }
  return rings;
}
const isEdge = (p, q) => (Math.abs(p[1]) > 179.98 && p[1] === q[1]) || (p[0] < -89.98 && q[0] < -89.98); // of the plane, no coast

function onLand(rings, [lat, lon]) {
  let inside = false;
  for (const { latlon: ring } of rings)
    for (let i = 1; i < ring.length; i++) {
      const [p, q] = [ring[i - 1], ring[i]];
      if (p[0] > lat !== q[0] > lat && lon < p[1] + ((lat - p[0]) / (q[0] - p[0])) * (q[1] - p[1])) inside = !inside;
    }
  return inside;
}

/** uint16 latitudes and longitudes → unit vectors, (states · count) of them. */
function readVectors(data, panel) {
  const all = new Float32Array(3 * panel.states * panel.count);
  for (let i = 0, at = panel.start; i < all.length; i += 3, at += 4)
    all.set(vector((data.getUint16(at, true) / 65535) * 180 - 90, (data.getUint16(at + 2, true) / 65536) * 360 - 180), i);
  return all;
}

function readPanel(data, panel) {
  const shown = { ...panel, vectors: panel.count ? readVectors(data, panel) : new Float32Array(0), now: new Float32Array(3 * panel.count) };
  if (panel.density) shown.raster = bytes(data).subarray(panel.density.start, panel.density.start + panel.density.rows * panel.density.columns);
  return shown;
}

/** The panel's points after a share (0 to 1) of its steps, on the geodesics between states: into `to`. */
function statesAt(panel, share, to) {
  const steps = panel.states - 1, at = Math.max(0, Math.min(1, share)) * steps, k = Math.min(Math.floor(at), Math.max(0, steps - 1));
  const f = steps ? at - k : 0, size = 3 * panel.count, v = panel.vectors, p = k * size, q = steps ? p + size : p;
  for (let i = 0; i < size; i += 3) {
    const x = v[p + i], y = v[p + i + 1], z = v[p + i + 2], x1 = v[q + i], y1 = v[q + i + 1], z1 = v[q + i + 2];
    const cosine = x * x1 + y * y1 + z * z1;
    let a = 1 - f, b = f;
    if (cosine < 0.999 && f) { // else chord and arc are one
      const angle = Math.acos(Math.max(-1, cosine)), s = Math.sin(angle) || 1;
      a = Math.sin((1 - f) * angle) / s; b = Math.sin(f * angle) / s;
    }
    to[i] = a * x + b * x1; to[i + 1] = a * y + b * y1; to[i + 2] = a * z + b * z1;
  }
  return to;
}

const timeAt = (panel, share) => {
  const at = share * (panel.states - 1), k = Math.min(Math.floor(at), Math.max(0, panel.states - 2));
  return panel.states < 2 ? panel.times[0] : panel.times[k] + (at - k) * (panel.times[k + 1] - panel.times[k]);
};

function medianKm(points, place) {
  const km = new Float32Array(points.length / 3);
  for (let i = 0; i < km.length; i++) {
    const x = points[3 * i] - place[0], y = points[3 * i + 1] - place[1], z = points[3 * i + 2] - place[2];
    km[i] = 2 * EARTH_KM * Math.asin(Math.min(1, Math.sqrt(x * x + y * y + z * z) / 2));
  }
  km.sort();
  return km[Math.floor(km.length / 2)];
}
const kilometres = (km) => `${km < 10 ? km.toFixed(1) : Math.round(km).toLocaleString("en")} km`;
const place = ([lat, lon]) => `${Math.abs(lat).toFixed(1)}°${lat < 0 ? "S" : "N"} ${Math.abs(lon).toFixed(1)}°${lon < 0 ? "W" : "E"}`;

// Drawing

function drawBase(ctx, map, rings, theme, panel, dark, width, height) {
  ctx.save();
  ctx.beginPath(); map.outline(ctx); ctx.clip();
  ctx.fillStyle = theme.sea; ctx.fillRect(0, 0, width, height);
  const land = new Path2D(), coast = new Path2D(), to = [0, 0];
  const turns = map.unwrapped ? [-360, 0, 360] : [0];
  for (const turn of turns)
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
  if (!map.unwrapped && onLand(rings, latlon(map.antipode))) land.rect(width / 2 - 6 * map.radius, height / 2 - 6 * map.radius, 12 * map.radius, 12 * map.radius);
  ctx.fillStyle = theme.land; ctx.fill(land, "evenodd");
  if (panel.raster) ctx.drawImage(drawDensity(panel, map, width, height, dark), 0, 0, width, height);
  ctx.strokeStyle = theme.graticule; ctx.lineWidth = 0.5; ctx.beginPath();
  const line = (n, at) => {
    let before = false;
    for (let i = 0; i <= n; i++) {
      const seen = map.forward(vector(...at(i)), 0, to, 0), x = to[0];
      if (seen && before !== false && Math.abs(x - before) < map.jump) ctx.lineTo(...to); else ctx.moveTo(...to);
      before = seen ? x : false;
    }
  };
  for (let lat = -60; lat <= 60; lat += 30) line(120, (i) => [lat, -180 + 3 * i]);
  for (let lon = -180; lon < 180; lon += 30) line(50, (i) => [-75 + 3 * i, lon]);
  ctx.stroke();
  ctx.strokeStyle = theme.coast; ctx.lineWidth = 0.6; ctx.stroke(coast);
  ctx.restore();
  ctx.strokeStyle = theme.coast; ctx.lineWidth = 0.8; ctx.beginPath(); map.outline(ctx); ctx.stroke();
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

/** Two points, the geodesic between them, and the vectors that log gives at each; on the globe a vector is drawn as it lies in space. */
function drawSphere(ctx, map, [x, y], share, theme) {
  const v = log(x, y), back = log(y, x), to = [0, 0];
  ctx.lineWidth = 2; ctx.strokeStyle = theme.colors[0]; ctx.beginPath();
  let before = null;
  for (let i = 0; i <= 90; i++) {
    const seen = map.forward(exp(x, v.map((c) => (c * i) / 90)), 0, to, 0);
    if (seen && before && Math.abs(to[0] - before) < map.jump) ctx.lineTo(...to); else ctx.moveTo(...to);
    before = seen ? to[0] : null;
  }
  ctx.stroke();
  const arrow = (at, u, color) => {
    const foot = [0, 0], tip = [0, 0], length = norm(u);
    if (!map.forward(at, 0, foot, 0) || length < 1e-6) return;
    if (map.unwrapped) { // the direction that the geodesic starts in; as long as the geodesic would be on the equator
      map.forward(exp(at, u.map((c) => (c * 1e-3) / length)), 0, tip, 0);
      const scale = (length / map.degreesPerPixel / RADIAN) / (Math.hypot(tip[0] - foot[0], tip[1] - foot[1]) || 1);
      tip[0] = foot[0] + (tip[0] - foot[0]) * scale; tip[1] = foot[1] + (tip[1] - foot[1]) * scale;
    } else map.forward(plus(at, 1, u), 0, tip, 0);
    const angle = Math.atan2(tip[1] - foot[1], tip[0] - foot[0]);
    ctx.strokeStyle = ctx.fillStyle = color; ctx.lineWidth = 2; ctx.setLineDash([5, 3]); ctx.beginPath(); ctx.moveTo(...foot); ctx.lineTo(...tip); ctx.stroke();
    ctx.setLineDash([]); ctx.beginPath(); ctx.moveTo(...tip);
    for (const side of [-0.4, 0.4]) ctx.lineTo(tip[0] - 10 * Math.cos(angle + side), tip[1] - 10 * Math.sin(angle + side));
    ctx.fill();
  };
  arrow(x, v, theme.colors[1]); arrow(y, back, theme.colors[2]);
  const mark = (at, color, label, radius) => {
    const seen = map.forward(at, 0, to, 0);
    ctx.globalAlpha = seen ? 1 : 0.35;
    ctx.beginPath(); ctx.arc(...to, radius, 0, 2 * Math.PI); ctx.fillStyle = color; ctx.fill(); ctx.strokeStyle = theme.sea; ctx.lineWidth = 1.5; ctx.stroke();
    ctx.font = "bold 13px sans-serif"; ctx.fillStyle = theme.ink; ctx.textBaseline = "middle"; ctx.fillText(label, to[0] + radius + 3, to[1]); ctx.globalAlpha = 1;
  };
  mark(exp(x, v.map((c) => c * share)), theme.colors[0], "", 5);
  mark(x, theme.colors[1], "x", 8); mark(y, theme.colors[2], "y", 8);
}

function sphereText([x, y], share) {
  const v = log(x, y), angle = norm(v), at = exp(x, v.map((c) => c * share));
  const numbers = (a) => `(${a.map((c) => c.toFixed(3)).join(", ")})`;
  const warning = angle > Math.PI - 1e-3 ? " The points are antipodes: log has no direction of its own there." : "";
  return `distance ${angle.toFixed(4)} rad = ${kilometres(angle * EARTH_KM)}\nlog of y at x ${numbers(v)}, length ${angle.toFixed(4)}; ` +
    `log of x at y ${numbers(log(y, x))}\nexp at x of ${share.toFixed(2)} log: ${place(latlon(at))}.${warning}`;
}

// The elements

const STYLE = `
.geoflow { color: var(--jp-ui-font-color1, var(--vscode-editor-foreground, inherit)); font: 13px/1.4 system-ui, sans-serif; max-width: 1100px; padding: 3px; }
.geoflow .bar { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin: 4px 0; }
.geoflow label, .geoflow fieldset { display: inline-flex; gap: 5px; align-items: center; border: 0; margin: 0; padding: 0; }
.geoflow .maps { display: grid; gap: 8px 12px; align-items: end; }
.geoflow figure { margin: 0; min-width: 0; }
.geoflow figcaption { display: flex; gap: 6px; align-items: center; min-height: 20px; font-variant-numeric: tabular-nums; flex-wrap: wrap; }
.geoflow figcaption b::before { content: ""; display: inline-block; width: 9px; height: 9px; border-radius: 50%; background: var(--dot); margin-right: 5px; }
.geoflow canvas { display: block; width: 100%; cursor: grab; border-radius: 3px; }
.geoflow canvas:active { cursor: grabbing; }
.geoflow img { width: 40px; height: 40px; object-fit: cover; display: block; border-radius: 3px; box-shadow: 0 0 0 1px #8888; }
.geoflow button, .geoflow select, .geoflow input { font: inherit; color: inherit; accent-color: #0072B2; }
.geoflow button, .geoflow select, .geoflow input[type=number] { background: transparent; border: 1px solid currentColor; border-radius: 4px; padding: 2px 8px; }
.geoflow option { color: CanvasText; background: Canvas; }
.geoflow input[type=number] { width: 5.5em; }
.geoflow button { min-width: 5.5em; cursor: pointer; }
.geoflow .way { flex: 1 1 120px; min-width: 120px; margin: 0; }
.geoflow .tiles label { position: relative; flex-direction: column; gap: 1px; cursor: pointer; font-size: 11px; }
.geoflow .tiles input[type=radio] { position: absolute; opacity: 0; }
.geoflow .tiles input:checked + img { outline: 3px solid #E69F00; }
.geoflow :focus-visible, .geoflow .tiles input:focus-visible + img { outline: 3px solid #56B4E9; outline-offset: 2px; }
.geoflow .upload { border: 1px dashed currentColor; border-radius: 4px; padding: 2px 8px; margin-left: 8px; cursor: pointer; }
.geoflow .upload input { position: absolute; opacity: 0; width: 1px; }
.geoflow .upload:focus-within { outline: 3px solid #56B4E9; outline-offset: 2px; }
.geoflow .now { min-width: 10.5em; font-variant-numeric: tabular-nums; }
.geoflow .number { min-width: 2em; }
.geoflow .note { opacity: 0.85; font-variant-numeric: tabular-nums; }
.geoflow .ramp { display: inline-block; width: 110px; height: 10px; border: 1px solid currentColor; vertical-align: -1px; }
.geoflow .reticle { color: #00b8cc; }
.geoflow figcaption.note { white-space: pre-line; }
.geoflow .chart { width: 128px; height: 56px; cursor: default; }
.geoflow .message { border: 1px solid #D55E00; border-left-width: 5px; border-radius: 4px; padding: 4px 8px; margin: 4px 0; white-space: pre-wrap; }
.geoflow .status { min-height: 1.4em; opacity: 0.85; }
.geoflow [hidden] { display: none !important; }`;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

class Player {
  constructor(model, root) {
    this.model = model; this.root = root;
    this.share = 1; this.steps = 1; this.speed = 1; this.playing = false; this.frame = 0;
    this.asked = model.get("asked"); this.again = false; this.bases = new Map(); this.panels = []; this.figures = [];
    this.values = { ...model.get("values") };
    this.view = { center: [...model.get("center")], projection: model.get("projection"), zoom: 1, trails: model.get("trails"), together: model.get("together") };
    this.turned = this.view.center.some((degrees) => degrees !== 0); // by hand, or by whoever made the player
    this.rings = readLand(model.get("land"));
    this.build();
    this.read();
    this.go(model.get("position"));
  }

  build() {
    const pick = (label, options, value, change) => {
      const select = element("select", { onchange: (event) => change(event.target.value) });
      for (const option of options) select.append(element("option", { value: option, selected: option === value }, option));
      return element("label", {}, label, select);
    };
    this.asking = element("div", { class: "bar asking" });
    this.message = element("div", { class: "message", role: "alert", hidden: true });
    this.status = element("div", { class: "status", role: "status", "aria-live": "polite", hidden: true });
    this.maps = element("div", { class: "maps" });
    this.button = element("button", { type: "button", onclick: () => this.play(!this.playing) }, "▶ Play");
    this.slider = element("input", {
      type: "range", class: "way", min: 0, step: 1, "aria-label": "sampling step, from noise to places",
      oninput: () => { this.play(false); this.go(this.slider.value / this.steps); },
    });
    this.now = element("span", { class: "now" });
    this.legend = element("div", { class: "bar note" });
    this.chart = element("canvas", { class: "chart", role: "img", "aria-label": "schedule: time t over the share of the steps" });
    const projections = { "flat map": "flat", globe: "globe" };
    const kept = Object.keys(projections).find((name) => projections[name] === this.view.projection);
    this.togetherBox = element("label", {}, element("input", {
      type: "checkbox", checked: this.view.together, onchange: (event) => { this.view.together = event.target.checked; this.arrange(); },
    }), "on one map");
    this.trailsPick = pick("trails", Object.keys(TRAILS), this.view.trails, (name) => { this.view.trails = name; this.draw(); });
    this.speedPick = pick("speed", ["0.25×", "0.5×", "1×", "2×", "4×"], "1×", (text) => { this.speed = parseFloat(text); });
    this.root.append(
      element("style", {}, STYLE), this.asking, this.message, this.maps, this.legend,
      element("div", { class: "bar" }, this.button, this.slider, this.now, this.chart),
      element("div", { class: "bar" },
        pick("map", Object.keys(projections), kept, (name) => {
          this.view.projection = projections[name];
          this.face(name === "globe");
          this.arrange();
        }),
        pick("zoom", ["1×", "2×", "4×", "8×"], "1×", (text) => { this.view.zoom = parseFloat(text); this.face(this.view.zoom > 1); this.arrange(); }),
        this.trailsPick, this.speedPick, this.togetherBox),
      this.status,
    );
    // JupyterLab takes arrow keys for itself unless they stop here.
    this.root.dataset.lmSuppressShortcuts = "true";
    this.root.addEventListener("keydown", (event) => { if (event.key !== "Escape" && !event.ctrlKey && !event.metaKey) event.stopPropagation(); });
    this.buildControls();
  }

  // Questions: what the reader chooses, and who answers

  buildControls() {
    const live = this.model.get("live") || this.hasTable(), controls = this.model.get("controls");
    this.asking.replaceChildren(...controls.map((control) => this.buildControl(control, !live)));
    this.asking.hidden = !controls.length;
    if (!live && controls.some(({ kind }) => kind !== "place")) this.say("This page has no kernel: it shows the answer it was saved with. The slider and the map are alive.");
  }

  buildControl({ name, label, kind, options, images }, disabled) {
    const ask = (value) => this.ask({ ...this.values, [name]: value }), value = this.values[name];
    if (kind === "place") {
      disabled = false; // needs no kernel
      const field = (i, limit, what) => element("input", {
        type: "number", min: -limit, max: limit, step: "any", value: value[i], "data-name": name, "data-part": i, "aria-label": `${label}: ${what}, degrees`,
        onchange: (event) => {
          const number = parseFloat(event.target.value);
          if (!(Math.abs(number) <= limit)) return this.complain(`${what} ${event.target.value}; expected −${limit} to ${limit} degrees`);
          this.complain(""); this.moveTo(name, this.values[name].map((old, k) => (k === i ? number : old)));
          return undefined;
        },
      });
      return element("fieldset", { "aria-label": label }, label, field(0, 90, "latitude"), field(1, 180, "longitude"));
    }
    if (kind === "range") {
      const nearest = options.reduce((best, option, i) => (Math.abs(option - value) < Math.abs(options[best] - value) ? i : best), 0);
      const shown = element("span", { class: "number", "aria-hidden": "true" }, String(value));
      const input = element("input", {
        type: "range", min: 0, max: options.length - 1, step: 1, value: nearest, disabled, "aria-label": label, "aria-valuetext": String(value), "data-name": name,
        oninput: () => { const chosen = options[input.value]; shown.textContent = chosen; input.setAttribute("aria-valuetext", chosen); ask(chosen); },
      });
      return element("label", {}, label, input, shown);
    }
    if (kind === "image") {
      const group = `${name}-${Math.random()}`;
      const pictures = options.map((option) => element("label", {},
        element("input", { type: "radio", name: group, value: option, checked: option === value, disabled, "data-name": name, onchange: () => ask(option) }),
        element("img", { src: images[option], alt: "" }), option));
      const upload = element("input", { type: "file", accept: "image/*", "aria-label": "upload an image", disabled, onchange: () => this.upload(upload, ask) });
      return element("fieldset", { class: "tiles", "aria-label": label }, ...pictures, ...(disabled || this.hasTable() ? [] : [element("label", { class: "upload" }, "upload …", upload)]));
    }
    const select = element("select", { disabled, "data-name": name, onchange: () => ask(options.find((option) => String(option) === select.value)) });
    for (const option of options) select.append(element("option", { value: option, selected: option === value }, String(option)));
    return element("label", {}, label, select);
  }

  upload(input, ask) {
    const file = input.files[0];
    if (!file) return;
    if (file.size > 2e7) { this.complain(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; expected an image of at most 20 MB`); return; }
    const reader = new FileReader();
    reader.onload = () => ask(reader.result);
    reader.onerror = () => this.complain(`${file.name} cannot be read`);
    reader.readAsDataURL(file);
  }

  hasTable() { return Object.keys(this.model.get("table")).length > 0; }

  key() { return this.model.get("controls").map(({ name }) => this.values[name]).join("|"); }

  ask(values) {
    this.values = values;
    if (this.hasTable()) { this.read(); return; }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), DEBOUNCE);
  }

  /** One question at a time: what is asked meanwhile waits, and only the last of it is sent. */
  send() {
    this.again = this.asked > this.model.get("answered");
    if (this.again) return;
    this.asked = this.model.get("asked") + 1;
    this.model.set("values", this.values); this.model.set("asked", this.asked); this.model.save_changes();
    this.say("computing …");
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.say("No answer yet: the kernel is busy, or it has stopped (then run the cell again). The slider and the map go on working."), PATIENCE);
  }

  answered() {
    if (this.model.get("answered") < this.asked) return;
    clearTimeout(this.patience);
    this.say("");
    if (this.again) this.send();
    else if (JSON.stringify(this.values) !== JSON.stringify(this.model.get("values"))) this.valuesChanged();
  }

  valuesChanged() {
    if (this.asked > this.model.get("answered") || this.again) return;
    this.values = { ...this.model.get("values") };
    this.buildControls(); this.draw();
  }

  complain(text) { this.message.textContent = text; this.message.hidden = !text; }

  say(text) { this.status.textContent = text; this.status.hidden = !text; }

  // What is shown

  read() {
    const data = this.model.get("data"), table = this.model.get("table"), panels = this.model.get("panels");
    const chosen = this.hasTable() ? table[this.key()] : panels.map((_, i) => i);
    this.complain(this.model.get("message"));
    if (!chosen) { this.complain(`Nothing was computed for ${this.key()}.`); return; }
    this.panels = chosen.map((i) => readPanel(data, panels[i]));
    this.bases.clear();
    this.face(this.view.projection === "globe" || this.view.zoom > 1);
    this.steps = Math.max(1, ...this.panels.map((panel) => panel.states - 1));
    const moving = this.panels.some((panel) => panel.states > 1);
    this.slider.max = this.steps;
    for (const part of [this.slider, this.button, this.chart, this.now]) part.hidden = !moving;
    this.chart.hidden = !moving || this.panels.some((panel) => panel.sphere);
    this.trailsPick.hidden = !moving || this.chart.hidden; this.speedPick.hidden = !moving;
    this.buildLegend();
    this.togetherBox.hidden = this.panels.length < 2 || this.panels.some((panel) => panel.density || panel.sphere);
    this.arrange();
    this.go(this.playing ? this.share : Math.round(this.share * this.steps) / this.steps);
  }

  buildLegend() {
    const parts = [];
    if (this.panels.some((panel) => panel.truth)) parts.push(element("span", {}, element("b", { class: "reticle" }, "✛"), " true place"));
    if (this.panels.some((panel) => panel.best)) parts.push(element("span", {}, "◎ best places, best first"));
    const dense = this.panels.find((panel) => panel.density);
    if (dense) parts.push(element("span", {}, "density: uniform ", element("i", { class: "ramp" }), ` ${Math.round(Math.exp(dense.density.peak)).toLocaleString("en")} × uniform`));
    this.legend.replaceChildren(...parts);
    this.legend.hidden = !parts.length;
  }

  arrange() {
    const groups = this.view.together && !this.togetherBox.hidden ? [this.panels] : this.panels.map((panel) => [panel]);
    const columns = groups.length < 2 ? 1 : groups.length === 2 || groups.length === 4 ? 2 : 3;
    this.maps.style.gridTemplateColumns = `repeat(auto-fill, minmax(max(${columns > 1 ? 190 : 0}px, ${[100, 46, 31][columns - 1]}%), 1fr))`;
    this.maps.style.maxWidth = columns > 1 ? "" : "860px";
    this.figures = groups.map((panels) => {
      const canvas = element("canvas", { tabindex: 0, role: "img" });
      canvas.style.aspectRatio = this.view.projection === "globe" && columns > 1 ? "1.2" : "2.04";
      const names = panels.map((panel) => element("b", {}, panel.title || (panels.length > 1 ? "panel" : "")));
      const notes = panels.map((panel) => element("span", { class: "note" }, panel.note || ""));
      const pictures = panels.length === 1 && panels[0].image ? [element("img", { src: panels[0].image, alt: "the image" })] : [];
      const head = element("figcaption", {}, ...pictures, ...names.flatMap((name, i) => [...(name.textContent ? [name] : []), notes[i]]));
      const foot = element("figcaption", { class: "note" });
      this.listen(canvas, panels);
      return { panels, canvas, names, foot, element: element("figure", {}, head, canvas, foot) };
    });
    this.maps.replaceChildren(...this.figures.map((figure) => figure.element));
    this.draw();
  }

  listen(canvas, panels) {
    let from = null, held = null; // where the pointer was; the point of the sphere that it moves
    const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    const map = () => projection(this.view, canvas.clientWidth, canvas.clientHeight);
    canvas.style.touchAction = panels[0].sphere || this.view.projection === "globe" || this.view.zoom > 1 ? "none" : "pan-y";
    canvas.addEventListener("pointerdown", (event) => {
      from = at(event); held = null;
      canvas.setPointerCapture(event.pointerId);
      if (panels[0].sphere) {
        const to = [0, 0], m = map();
        held = ["x", "y"].find((name) => m.forward(vector(...this.values[name]), 0, to, 0) && Math.hypot(to[0] - from[0], to[1] - from[1]) < 16) || null;
      }
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      const to = at(event), m = map();
      if (held) {
        const v = m.inverse(...to);
        if (v) this.moveTo(held, latlon(v).map((degrees) => Math.round(degrees * 100) / 100));
      } else this.turn((to[1] - from[1]) * m.degreesPerPixel, (from[0] - to[0]) * m.degreesPerPixel);
      from = to;
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -10], ArrowRight: [0, 10], ArrowUp: [10, 0], ArrowDown: [-10, 0] }[event.key];
      if (step) { event.preventDefault(); this.turn(...step); }
    });
  }

  /** A point of the explorer of the sphere, moved by hand; Python is told, nobody needs to answer. */
  moveTo(name, degrees) {
    this.values = { ...this.values, [name]: degrees };
    for (const field of this.asking.querySelectorAll(`[data-name="${name}"]`)) field.value = degrees[field.dataset.part];
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.model.set("values", this.values); this.model.save_changes(); }, DEBOUNCE);
    this.draw();
  }

  /** Turn to the answer, unless the reader has turned the map by hand. */
  face(wanted) {
    const [panel] = this.panels, answer = panel && (panel.truth || (panel.best && panel.best[0]));
    if (!this.turned && answer && wanted) this.view.center = [...answer];
  }

  turn(north, east) {
    this.turned = true;
    const [lat, lon] = this.view.center, wrapped = ((((lon + east + 180) % 360) + 360) % 360) - 180;
    this.view.center = [this.view.projection === "globe" || this.view.zoom > 1 ? Math.max(-90, Math.min(90, lat + north)) : lat, wrapped];
    this.draw();
  }

  play(on) {
    if (on && this.share >= 1) this.share = 0;
    this.playing = on;
    this.button.textContent = on ? "❚❚ Pause" : "▶ Play";
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

  go(share) {
    this.share = Math.max(0, Math.min(1, share));
    const step = this.share * this.steps, panel = this.panels.reduce((a, b) => (b.states > a.states ? b : a), this.panels[0]);
    this.slider.value = Math.round(step);
    if (panel) {
      const text = panel.sphere ? `t = ${this.share.toFixed(2)}` : `step ${Math.round(step)} of ${this.steps}, t = ${timeAt(panel, this.share).toFixed(3)}`;
      this.now.textContent = text; this.slider.setAttribute("aria-valuetext", text);
    }
    this.draw();
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      try { this.redraw(); } catch (error) { this.complain(`The map cannot be drawn: ${error.message}`); throw error; }
    });
  }

  isDark() {
    const [r, g, b] = getComputedStyle(this.root).color.match(/[\d.]+/g).map(Number);
    return 0.3 * r + 0.6 * g + 0.1 * b > 127;
  }

  redraw() {
    const start = performance.now(), dark = this.isDark(), theme = dark ? DARK : LIGHT, ramp = this.legend.querySelector(".ramp");
    if (ramp) ramp.style.background = `linear-gradient(to right, transparent, ${densityColors(dark).join()})`;
    for (const figure of this.figures) this.drawFigure(figure, theme, dark);
    if (!this.chart.hidden) this.drawChart(theme);
    this.root.dataset.redrawMs = (performance.now() - start).toFixed(2); // for the tests
    this.root.dataset.redraws = Number(this.root.dataset.redraws || 0) + 1;
  }

  prepare(canvas) {
    const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    const ctx = canvas.getContext("2d");
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    ctx.clearRect(0, 0, width, height);
    return { ctx, width, height, scale };
  }

  drawFigure({ panels, canvas, names, foot }, theme, dark) {
    const { ctx, width, height, scale } = this.prepare(canvas);
    if (!width || !height) return;
    const map = projection(this.view, width, height);
    const key = [width, height, scale, this.view.projection, this.view.zoom, ...this.view.center, dark, panels[0].density ? this.panels.indexOf(panels[0]) : ""].join();
    if (!this.bases.has(key)) {
      if (this.bases.size >= 2 * this.figures.length + 2) this.bases.clear();
      const base = new OffscreenCanvas(Math.round(width * scale), Math.round(height * scale)), pen = base.getContext("2d");
      pen.scale(scale, scale);
      drawBase(pen, map, this.rings, theme, panels[0], dark, width, height);
      this.bases.set(key, base);
    }
    ctx.drawImage(this.bases.get(key), 0, 0, width, height);
    const texts = panels.map((panel, i) => {
      const color = theme.colors[panel.color % theme.colors.length];
      names[i].style.setProperty("--dot", color);
      if (panel.sphere) {
        const points = [vector(...this.values.x), vector(...this.values.y)];
        drawSphere(ctx, map, points, this.share, theme);
        return sphereText(points, this.share);
      }
      statesAt(panel, this.share, panel.now);
      drawTrails(ctx, map, panel, this.share, TRAILS[this.view.trails], color);
      drawPoints(ctx, map, panel, color, theme.sea);
      const parts = panel.states > 1 && !panel.density ? [`t = ${timeAt(panel, this.share).toFixed(3)}`] : [];
      if (panel.truth && panel.count) parts.push(`median ${kilometres(medianKm(panel.now, vector(...panel.truth)))} off`);
      return parts.join(" · ");
    });
    panels.forEach((panel) => (panel.best || []).forEach((at, i) => drawBest(ctx, map, vector(...at), String(i + 1))));
    panels.forEach((panel) => { if (panel.truth) drawTruth(ctx, map, vector(...panel.truth)); });
    foot.textContent = panels.length > 1 ? "" : texts[0];
    const described = panels.map((panel, i) => `${panel.title || "map"}: ${panel.sphere ? "two points" : `${panel.count} points`}. ${texts[i]}. ${panel.note || ""}` +
      `${panel.truth ? ` True place ${place(panel.truth)}.` : ""}${panel.best ? ` Best places ${panel.best.map(place).join("; ")}.` : ""}`);
    canvas.setAttribute("aria-label", `World map. ${described.join(" ")} Arrow keys turn it.`);
  }

  drawChart(theme) {
    const { ctx, width, height } = this.prepare(this.chart);
    if (!width) return;
    const x = (s) => 16 + s * (width - 22), y = (t) => height - 13 - t * (height - 18);
    ctx.strokeStyle = theme.coast; ctx.lineWidth = 0.7; ctx.strokeRect(x(0), y(1), x(1) - x(0), y(0) - y(1));
    ctx.fillStyle = getComputedStyle(this.root).color; ctx.font = "10px sans-serif"; ctx.textAlign = "center";
    ctx.fillText("t", 7, y(0.5) + 3); ctx.fillText("steps →", x(0.5), height - 2);
    for (const panel of this.panels.filter((p) => p.states > 1)) {
      ctx.strokeStyle = ctx.fillStyle = theme.colors[panel.color % theme.colors.length]; ctx.lineWidth = 1.3; ctx.beginPath();
      panel.times.forEach((t, k) => ctx.lineTo(x(k / (panel.states - 1)), y(t)));
      ctx.stroke();
      if (panel.states < 34) panel.times.forEach((t, k) => ctx.fillRect(x(k / (panel.states - 1)) - 1, y(t) - 1, 2, 2));
      ctx.beginPath(); ctx.arc(x(this.share), y(timeAt(panel, this.share)), 3.5, 0, 2 * Math.PI); ctx.fill();
    }
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
    "change:answered": () => player.answered(), "change:values": () => player.valuesChanged(),
    "change:position": () => { player.play(false); player.go(model.get("position")); },
  };
  for (const [name, handler] of Object.entries(handlers)) model.on(name, handler);
  const resized = new ResizeObserver(() => player.draw());
  resized.observe(root);
  const themes = new MutationObserver(() => player.draw()), dark = matchMedia("(prefers-color-scheme: dark)"), redraw = () => player.draw();
  themes.observe(document.body, { attributes: true });
  dark.addEventListener("change", redraw);
  return () => {
    player.play(false); clearTimeout(player.timer); clearTimeout(player.patience);
    resized.disconnect(); themes.disconnect(); dark.removeEventListener("change", redraw);
    for (const [name, handler] of Object.entries(handlers)) model.off(name, handler);
  };
}

export default { render };

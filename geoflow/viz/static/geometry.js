// Geometry and data of the player: unit vectors, projections, coastline, and the panels that Python sends.
//
// geometry.js, flowmap.js, drawing.js and player.js are parts of one module, which geoflow/viz/player.py joins in this order.

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

// Projections: x to the right, y down, pixels. `forward(v, i, to, j)` writes the place of the vector v[i…i+2] to to[j…j+1] and says
// whether it is seen; `inverse(px, py)` is a vector or null; `jump` is the length of a line that must have crossed the map's edge.

/** Orthographic: the globe. */
function orthographic([lat0, lon0], zoom, width, height) {
  const cx = width / 2, cy = height / 2, radius = zoom * (Math.min(width, height) / 2 - 3);
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

/** Equal Earth (Šavrič, Patterson and Jenny, 2018): the flat map. `q` is its parametric latitude. */
function equalEarth([lat0, lon0], zoom, width, height) {
  const cx = width / 2, cy = height / 2, M = Math.sqrt(3) / 2, [a, b, c, d] = [1.340264, -0.081106, 0.000893, 0.003796];
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
  const edge = (path, lon, lat) => { const to = [0, 0]; place(lon, Math.asin(M * Math.sin(lat * RADIAN)), to, 0); path.lineTo(...to); };
  return {
    forward(v, i, to, j) {
      let lon = Math.atan2(v[i + 1], v[i]) - lon0;
      if (lon > Math.PI) lon -= 2 * Math.PI; else if (lon < -Math.PI) lon += 2 * Math.PI;
      place(lon, Math.asin(M * Math.max(-1, Math.min(1, v[i + 2]))), to, j);
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
      for (let lat = -90; lat <= 90; lat += 2) edge(path, -Math.PI, lat);
      for (let lat = 90; lat >= -90; lat -= 2) edge(path, Math.PI, lat);
      path.closePath();
    },
    jump: 0.3 * zoom * width, degreesPerPixel: 1 / (across(0) * RADIAN),
  };
}

// Data from Python

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

// A flow map in the browser: its network, X_{t,s}(x) = exp_x((s − t) u_{t,s}(x, c, ω)), for many points of one image. Python packs the
// weights (geoflow/viz/browser.py, where the layers are named as in geoflow/flowmap/network.py); numbers are 64 bits wide here.

const CLOCK_END = 1e-3, EPSILON = 1e-5, [NARROWEST, WIDEST] = [-12, 2]; // as in schedules.py, LayerNorm, velocity.py

/** float16 (little-endian) → Float64Array. */
function readHalves(view, start, count) {
  const all = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const bits = view.getUint16(start + 2 * i, true), exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : (fraction / 1024) * 2 ** -14;
    all[i] = bits & 0x8000 ? -size : size;
  }
  return all;
}

/** What Python packed: `about` has sizes and where each tensor begins, in order; `view` the bytes. */
export function readNetwork(about, view) {
  const weights = {};
  for (const [name, { start, shape }] of Object.entries(about.tensors)) weights[name] = readHalves(view, start, shape.reduce((a, b) => a * b, 1));
  return { ...about, weights };
}

const silu = (y) => y / (1 + Math.exp(-y));

/** y (rows) = W x + b for one vector x. */
function linear(weight, bias, x) {
  const columns = x.length, y = Float64Array.from(bias);
  for (let r = 0; r < y.length; r++) { let sum = 0; for (let k = 0; k < columns; k++) sum += weight[r * columns + k] * x[k]; y[r] += sum; }
  return y;
}

/** log(1 − (1 − ε) t) / log ε: even in the logarithm of the time left. */
const logClock = (t, end) => Math.log1p((end - 1) * t) / Math.log(end);

/** A `TimeEmbedding`: standardised waves of a number, and a two-layer MLP. */
function embed({ dim, weights }, name, scale, at) {
  const count = dim / 8, waves = new Float64Array(2 * count);
  for (let i = 0; i < count; i++) {
    const phase = at * scale * 1e-4 ** ((2 * i) / (dim / 4));
    waves[i] = Math.cos(phase); waves[count + i] = Math.sin(phase);
  }
  const mean = waves.reduce((a, b) => a + b) / waves.length;
  const deviation = Math.sqrt(waves.reduce((a, b) => a + (b - mean) ** 2, 0) / (waves.length - 1));
  const hidden = linear(weights[`${name}.mlp.0.weight`], weights[`${name}.mlp.0.bias`], waves.map((w) => (w - mean) / deviation)).map(silu);
  return linear(weights[`${name}.mlp.2.weight`], weights[`${name}.mlp.2.bias`], hidden);
}

/** SiLU(image + time + A(s) − A(t) + G(ω) − G(0)), which modulates all layers. */
function conditionOf(network, image, t, s, guidance) {
  const { dim, clock, scale, added, most, weights } = network;
  const parts = [
    [1, embed(network, "embed_time", scale, clock ? logClock(t, clock) : t)],
    [1, embed(network, "embed_arrival", added, logClock(s, CLOCK_END))], [-1, embed(network, "embed_arrival", added, logClock(t, CLOCK_END))],
    [1, embed(network, "embed_guidance", added, guidance / most)], [-1, embed(network, "embed_guidance", added, 0)],
  ];
  const c = weights.images.slice(image * dim, (image + 1) * dim);
  for (const [sign, part] of parts) for (let k = 0; k < dim; k++) c[k] += sign * part[k];
  return c.map(silu);
}

/** The layers of a block for one condition: scale, shift and gate are the same for all points, so they go into the weights. */
function modulated({ dim, weights }, block, c) {
  const name = `blocks.${block}`, m = linear(weights[`${name}.modulation.weight`], weights[`${name}.modulation.bias`], c);
  const scale = m.subarray(0, dim), shift = m.subarray(dim, 2 * dim), gate = m.subarray(2 * dim);
  const up = weights[`${name}.mlp.0.weight`], upBias = linear(up, weights[`${name}.mlp.0.bias`], shift);
  const down = weights[`${name}.mlp.2.weight`], width = upBias.length;
  return {
    up: up.map((w, i) => w * (1 + scale[i % dim])), upBias,
    down: down.map((w, i) => w * gate[Math.floor(i / width)]), downBias: weights[`${name}.mlp.2.bias`].map((b, i) => b * gate[i]),
  };
}

/** out (4 × rows) = in (4 × columns) Wᵀ + b, for four points at once: eight sums at a time stay in registers. */
function four(weight, bias, input, columns, out, rows) {
  for (let r = 0; r < rows; r += 2) {
    let [a0, a1, a2, a3, b0, b1, b2, b3] = [0, 0, 0, 0, 0, 0, 0, 0];
    const p = r * columns, q = p + columns;
    for (let k = 0; k < columns; k++) {
      const u = weight[p + k], v = weight[q + k], x0 = input[4 * k], x1 = input[4 * k + 1], x2 = input[4 * k + 2], x3 = input[4 * k + 3];
      a0 += u * x0; a1 += u * x1; a2 += u * x2; a3 += u * x3;
      b0 += v * x0; b1 += v * x1; b2 += v * x2; b3 += v * x3;
    }
    const at = 4 * r, u = bias[r], v = bias[r + 1];
    out[at] = a0 + u; out[at + 1] = a1 + u; out[at + 2] = a2 + u; out[at + 3] = a3 + u;
    out[at + 4] = b0 + v; out[at + 5] = b1 + v; out[at + 6] = b2 + v; out[at + 7] = b3 + v;
  }
}

/** LayerNorm of each of four columns of h (rows × 4), without gain and bias. */
function normalised(h, rows, out) {
  for (let j = 0; j < 4; j++) {
    let mean = 0, variance = 0;
    for (let k = j; k < 4 * rows; k += 4) mean += h[k];
    mean /= rows;
    for (let k = j; k < 4 * rows; k += 4) variance += (h[k] - mean) ** 2;
    const factor = 1 / Math.sqrt(variance / rows + EPSILON);
    for (let k = j; k < 4 * rows; k += 4) out[k] = (h[k] - mean) * factor;
  }
}

// GELU, y Φ(y), by a table of Φ between −FAR and FAR in steps of 1/FINE with straight lines between: errors below 1e-7.
const FAR = 8, FINE = 1024, PHI = new Float64Array(2 * FAR * FINE + 2);
for (let i = 1; i < PHI.length; i++) { // Simpson's rule for the integral of the normal density
  const density = (y) => Math.exp((-y * y) / 2) / Math.sqrt(2 * Math.PI), y = -FAR + i / FINE, h = 1 / FINE;
  PHI[i] = PHI[i - 1] + (h / 6) * (density(y - h) + 4 * density(y - h / 2) + density(y));
}
function gelu(values, count) {
  for (let i = 0; i < count; i++) {
    const y = values[i], at = (y + FAR) * FINE;
    if (y <= -FAR) values[i] = 0;
    else if (y < FAR) { const k = Math.floor(at); values[i] = y * (PHI[k] + (at - k) * (PHI[k + 1] - PHI[k])); }
  }
}

/** One jump of all points x (3 n, unit vectors) of an image from time t to time s: a new Float64Array. */
export function jump(network, image, x, t, s, guidance) {
  const { dim, depth, expansion, fourier, weights } = network, inputs = 3 + 2 * fourier, wide = expansion * dim, n = x.length / 3;
  const c = conditionOf(network, image, t, s, guidance), blocks = Array.from({ length: depth }, (_, b) => modulated(network, b, c));
  const last = linear(weights["modulation.weight"], weights["modulation.bias"], c), left = 1 - t, end = new Float64Array(x.length);
  const [first, h, normal, inner, change, y] = [inputs, dim, dim, wide, dim, 8].map((size) => new Float64Array(4 * size));
  for (let i = 0; i < n; i += 4) {
    for (let j = 0; j < 4; j++) {
      const at = 3 * Math.min(i + j, n - 1);
      for (let k = 0; k < 3; k++) first[4 * k + j] = x[at + k];
      for (let w = 0; w < fourier; w++) {
        const phase = x[at] * weights.frequencies[w] + x[at + 1] * weights.frequencies[fourier + w] + x[at + 2] * weights.frequencies[2 * fourier + w];
        first[4 * (3 + w) + j] = Math.sin(phase); first[4 * (3 + fourier + w) + j] = Math.cos(phase);
      }
    }
    four(weights["embed_location.weight"], weights["embed_location.bias"], first, inputs, h, dim);
    for (const block of blocks) {
      normalised(h, dim, normal);
      four(block.up, block.upBias, normal, dim, inner, wide);
      gelu(inner, 4 * wide);
      four(block.down, block.downBias, inner, wide, change, dim);
      for (let k = 0; k < 4 * dim; k++) h[k] += change[k];
    }
    normalised(h, dim, normal);
    for (let k = 0; k < 4 * dim; k++) normal[k] = normal[k] * (1 + last[k >> 2]) + last[dim + (k >> 2)];
    four(weights["head.weight"], weights["head.bias"], normal, dim, y, 8); // seven outputs, and one of zeros
    for (let j = 0; j < Math.min(4, n - i); j++) arrive(end, 3 * (i + j), x, (k) => y[4 * k + j], left, s - t);
  }
  return end;
}

/** exp_x(length · u) into end[at…], with u = a + mean (1 − t)/(width² + (1 − t)²) for the head's answer (a, mean, log width). */
function arrive(end, at, x, answer, left, length) {
  const width = Math.exp(Math.min(WIDEST, Math.max(NARROWEST, answer(6)))), share = left / (width * width + left * left);
  const point = [x[at], x[at + 1], x[at + 2]], u = [0, 1, 2].map((k) => answer(k) + share * answer(3 + k));
  const there = exp(point, plus(u, -dot(point, u), point).map((k) => k * length)), size = norm(there);
  for (let k = 0; k < 3; k++) end[at + k] = there[k] / size;
}

/** Uniform points of the sphere: (3 n), the same for the same seed. */
export function uniformPoints(n, seed = 1) {
  const x = new Float64Array(3 * n);
  let state = seed;
  const random = () => { // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
  for (let i = 0; i < x.length; i += 3) {
    const height = 2 * random() - 1, side = Math.sqrt(1 - height * height), lon = 2 * Math.PI * random();
    x[i] = side * Math.cos(lon); x[i + 1] = side * Math.sin(lon); x[i + 2] = height;
  }
  return x;
}

/** A panel of jumps between `times`: what `readPanel` makes of a trajectory that Python computed. */
export function jumpPanel(network, { image, guidance, points, times, truth }) {
  const start = performance.now(), states = [uniformPoints(points)];
  for (let k = 1; k < times.length; k++) states.push(jump(network, image, states[k - 1], times[k - 1], times[k], guidance));
  const vectors = new Float32Array(3 * points * states.length), calls = times.length - 1, ms = performance.now() - start;
  states.forEach((x, k) => vectors.set(x, 3 * points * k));
  const note = `${calls} call${calls > 1 ? "s" : ""} of the network for each point, ${Math.round(ms)} ms in this browser`;
  return { title: "", note, states: states.length, steps: calls, count: points, times, truth, color: 0, vectors, now: new Float32Array(3 * points), ms };
}

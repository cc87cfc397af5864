// Masks as runs: sorted, disjoint [start, end) places in column order (place = x * height + y), in a flat array.
// COCO's compressed strings are read and written as pipeline/rle.py does, byte for byte.

export const NOTHING = new Int32Array(0);

/** The runs of a COCO segmentation {size: [h, w], counts: "..."}. */
export function runsOf(segmentation) {
  const text = segmentation.counts, lengths = [];
  for (let i = 0; i < text.length; ) {
    let value = 0, shift = 0, bits = 0;
    do {
      bits = text.charCodeAt(i++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32);
    if (bits & 16 && shift < 32) value |= -1 << shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  const runs = [];
  for (let i = 0, end = 0; i < lengths.length; i++) {
    const start = end;
    end += lengths[i];
    if (i % 2 && end > start) runs.push(start, end);
  }
  return Int32Array.from(runs);
}

/** The COCO segmentation of runs. */
export function segmentationOf(runs, height, width) {
  const lengths = [];
  let last = 0;
  for (const edge of runs) { lengths.push(edge - last); last = edge; }
  if (last < height * width || !lengths.length) lengths.push(height * width - last);
  let text = "";
  lengths.forEach((length, i) => {
    let value = i > 2 ? length - lengths[i - 2] : length, more = true;
    while (more) {
      let bits = value & 31;
      value >>= 5;
      more = bits & 16 ? value !== -1 : value !== 0;
      if (more) bits |= 32;
      text += String.fromCharCode(bits + 48);
    }
  });
  return { size: [height, width], counts: text };
}

export function areaOf(runs) {
  let area = 0;
  for (let i = 0; i < runs.length; i += 2) area += runs[i + 1] - runs[i];
  return area;
}

/** [left, top, right, bottom], inclusive; null for nothing. */
export function boxOf(runs, height) {
  if (!runs.length) return null;
  let top = height, bottom = -1;
  for (let i = 0; i < runs.length; i += 2) {
    const x = Math.floor(runs[i] / height), last = Math.floor((runs[i + 1] - 1) / height);
    if (x !== last) { top = 0; bottom = height - 1; break; }
    top = Math.min(top, runs[i] - x * height);
    bottom = Math.max(bottom, runs[i + 1] - 1 - x * height);
  }
  return [Math.floor(runs[0] / height), top, Math.floor((runs[runs.length - 1] - 1) / height), bottom];
}

/** Whether a place lies in runs. */
export function holds(runs, place) {
  let low = 0, high = runs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (runs[middle] <= place) low = middle + 1; else high = middle;
  }
  return low % 2 === 1;
}

/** Runs where `keep(inA, inB)` is true: the one pass behind union, less and common. */
function combined(a, b, keep) {
  const out = [];
  let i = 0, j = 0, inside = false;
  while (i < a.length || j < b.length) {
    const at = Math.min(i < a.length ? a[i] : Infinity, j < b.length ? b[j] : Infinity);
    while (i < a.length && a[i] === at) i++;
    while (j < b.length && b[j] === at) j++;
    const now = keep(i % 2 === 1, j % 2 === 1);
    if (now !== inside) { out.push(at); inside = now; }
  }
  return Int32Array.from(out);
}

export const union = (a, b) => combined(a, b, (inA, inB) => inA || inB);
export const less = (a, b) => combined(a, b, (inA, inB) => inA && !inB);
export const common = (a, b) => combined(a, b, (inA, inB) => inA && inB);
export const rest = (runs, height, width) => less(Int32Array.of(0, height * width), runs);

/** Many masks as one. */
export function unionOf(masks) {
  let parts = masks.slice();
  while (parts.length > 1) {
    const next = [];
    for (let i = 0; i < parts.length; i += 2) next.push(i + 1 < parts.length ? union(parts[i], parts[i + 1]) : parts[i]);
    parts = next;
  }
  return parts[0] || NOTHING;
}

/** Runs cut at column ends, as [x, top, bottom) triples. */
function columnsOf(runs, height) {
  const out = [];
  for (let i = 0; i < runs.length; i += 2) {
    for (let start = runs[i]; start < runs[i + 1]; ) {
      const x = Math.floor(start / height), end = Math.min(runs[i + 1], (x + 1) * height);
      out.push(x, start - x * height, end - x * height);
      start = end;
    }
  }
  return out;
}

/** The connected pieces of runs, the largest first; pieces that touch at a corner are one if `corners`. */
export function piecesOf(runs, height, corners = true) {
  const parts = columnsOf(runs, height), count = parts.length / 3, reach = corners ? 1 : 0;
  const root = Int32Array.from({ length: count }, (_, i) => i);
  const find = (i) => { while (root[i] !== i) { root[i] = root[root[i]]; i = root[i]; } return i; };
  for (let i = 0, before = 0; i < count; i++) {
    const x = parts[3 * i], top = parts[3 * i + 1], bottom = parts[3 * i + 2];
    while (before < i && (parts[3 * before] < x - 1 || (parts[3 * before] === x - 1 && parts[3 * before + 2] + reach <= top))) before++;
    for (let j = before; j < i && parts[3 * j] === x - 1 && parts[3 * j + 1] < bottom + reach; j++) {
      if (parts[3 * j + 2] + reach > top) root[find(i)] = find(j);
    }
  }
  const found = new Map();
  for (let i = 0; i < count; i++) {
    const key = find(i);
    if (!found.has(key)) found.set(key, []);
    const edges = found.get(key), start = parts[3 * i] * height + parts[3 * i + 1];
    if (edges.length && edges[edges.length - 1] === start) edges.pop(); else edges.push(start);
    edges.push(parts[3 * i] * height + parts[3 * i + 2]);
  }
  return [...found.values()].map((edges) => Int32Array.from(edges)).sort((a, b) => areaOf(b) - areaOf(a));
}

/** The same mask with its holes filled: what is outside and touches no border. */
export function filled(runs, height, width) {
  let out = runs;
  for (const piece of piecesOf(rest(runs, height, width), height, false)) {
    const [left, top, right, bottom] = boxOf(piece, height);
    if (left > 0 && top > 0 && right < width - 1 && bottom < height - 1) out = union(out, piece);
  }
  return out;
}

/** Runs of the pixels whose centres lie inside a polygon, by the even-odd rule. */
export function polygon(points, height, width) {
  const edges = [];
  const xs = points.map((p) => p[0]);
  const from = Math.max(0, Math.floor(Math.min(...xs))), to = Math.min(width - 1, Math.ceil(Math.max(...xs)));
  for (let x = from; x <= to; x++) {
    const cuts = [];
    points.forEach(([x0, y0], i) => {
      const [x1, y1] = points[(i + 1) % points.length];
      if ((x0 <= x + 0.5) !== (x1 <= x + 0.5)) cuts.push(y0 + ((x + 0.5 - x0) / (x1 - x0)) * (y1 - y0));
    });
    cuts.sort((a, b) => a - b);
    for (let i = 0; i + 1 < cuts.length; i += 2) {
      const top = Math.max(0, Math.ceil(cuts[i] - 0.5)), bottom = Math.min(height, Math.ceil(cuts[i + 1] - 0.5));
      if (bottom <= top) continue;
      const start = x * height + top;
      if (edges.length && edges[edges.length - 1] === start) edges.pop(); else edges.push(start);
      edges.push(x * height + bottom);
    }
  }
  return Int32Array.from(edges);
}

/** Runs of a round brush of a radius, drawn along points. */
export function stroke(points, radius, height, width) {
  const spans = new Map(); // column -> [top, bottom) of each place of the brush
  const dot = (cx, cy) => {
    for (let x = Math.max(0, Math.ceil(cx - radius - 0.5)); x <= Math.min(width - 1, Math.floor(cx + radius - 0.5)); x++) {
      const half = Math.sqrt(Math.max(0, radius * radius - (x + 0.5 - cx) ** 2));
      const top = Math.max(0, Math.ceil(cy - half - 0.5)), bottom = Math.min(height, Math.floor(cy + half - 0.5) + 1);
      if (bottom > top) spans.has(x) ? spans.get(x).push([top, bottom]) : spans.set(x, [[top, bottom]]);
    }
  };
  points.forEach(([x, y], i) => {
    const [px, py] = points[Math.max(0, i - 1)];
    const steps = Math.max(1, Math.ceil(Math.hypot(x - px, y - py) / Math.max(0.5, radius / 4)));
    for (let s = 1; s <= steps; s++) dot(px + ((x - px) * s) / steps, py + ((y - py) * s) / steps);
  });
  const edges = [];
  for (const x of [...spans.keys()].sort((a, b) => a - b)) {
    const found = spans.get(x).sort((a, b) => a[0] - b[0]);
    let [top, bottom] = found[0];
    const push = () => {
      const start = x * height + top;
      if (edges.length && edges[edges.length - 1] === start) edges.pop(); else edges.push(start);
      edges.push(x * height + bottom);
    };
    for (const [from, to] of found.slice(1)) {
      if (from > bottom) { push(); [top, bottom] = [from, to]; } else bottom = Math.max(bottom, to);
    }
    push();
  }
  return Int32Array.from(edges);
}

export const same = (a, b) => a.length === b.length && a.every((edge, i) => edge === b[i]);

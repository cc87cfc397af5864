// A picture under its masks on a canvas: zoom, pan, what lies under the cursor. Masks are {id, runs, ...}.
//
// All masks are painted once, at the picture's own pixels, into a layer of their own; a frame draws the picture
// and the layer, so a thousand masks pan as one. What is under the cursor is found by runs, the smallest first.

import { areaOf, boxOf, holds } from "./rle.js";

const MOST_LAYER_PX = 8e6; // a larger picture's layer is painted coarser
const MOST_STILL_PX = 12e6;
const GOLDEN = 0.618033988749895;

/** The colour of a mask by its place, as maskmill's other pictures have it: [r, g, b]. */
export function colourOf(place) {
  const hue = (0.58 + place * GOLDEN) % 1, saturation = [0.62, 0.85, 0.48][place % 3], value = [1, 0.88, 0.96][place % 3];
  const sector = Math.floor(hue * 6), part = hue * 6 - sector;
  const p = value * (1 - saturation), q = value * (1 - saturation * part), t = value * (1 - saturation * (1 - part));
  const rgb = [[value, t, p], [q, value, p], [p, value, t], [p, q, value], [t, p, value], [value, p, q]][sector % 6];
  return rgb.map((one) => Math.round(one * 255));
}

export class View {
  /**
   * @param canvas fills its parent.
   * @param roof gives the height in px that lies under something else, at the top.
   * @param on {hover, down, move, up, drawn}: told what the pointer does, in px of the picture.
   */
  constructor(canvas, on = {}, roof = () => 12) {
    this.roof = roof;
    this.canvas = canvas;
    this.on = on;
    this.context = canvas.getContext("2d");
    this.image = null;
    this.masks = [];
    this.height = this.width = 0;
    this.scale = 1;
    this.left = this.top = 0;
    this.fills = true;
    this.hovered = null;
    this.selected = new Set();
    this.heat = null; // a small canvas, stretched over the picture and its masks
    this.marks = []; // drawn over everything: functions of (context, view)
    this.sprites = new Map();
    this.frames = [];
    this.pinch = new Map();
    this.listen();
    this.sizes = new ResizeObserver(() => this.resized());
    this.sizes.observe(canvas.parentElement);
    this.resized();
  }

  /** Lets the canvas go: another view takes a fresh one. */
  close() {
    this.sizes.disconnect();
    cancelAnimationFrame(this.waiting);
    this.canvas.replaceWith(this.canvas.cloneNode());
  }

  /** Shows a picture, which may be here already; it fits the canvas. */
  async show(url, width, height, known = null) {
    const image = known || new Image();
    if (!known) {
      image.src = url;
      await image.decode();
    }
    this.image = image;
    [this.width, this.height] = [width, height];
    this.fit();
  }

  /** Shows these masks; their order gives their colours unless they have a `place`. */
  setMasks(masks) {
    this.masks = masks.map((mask, i) => {
      if (mask.area === undefined) mask.area = areaOf(mask.runs);
      if (mask.box === undefined) mask.box = boxOf(mask.runs, this.height);
      if (mask.place === undefined) mask.place = i;
      return mask;
    });
    this.bySize = [...this.masks].sort((a, b) => a.area - b.area);
    this.layer = null;
    this.draw();
  }

  fit() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!this.width || !clientWidth) return;
    const roof = this.roof(), edge = Math.min(clientWidth, clientHeight) > 500 ? 12 : 4;
    const [wide, high] = [clientWidth - 2 * edge, Math.max(50, clientHeight - roof - edge)];
    this.scale = this.fitted = Math.min(wide / this.width, high / this.height);
    this.left = edge + (wide - this.width * this.scale) / 2;
    this.top = roof + (high - this.height * this.scale) / 2;
    this.layer = null;
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const scale = Math.min(40, Math.max((this.fitted || 1) / 2, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.draw();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.draw();
  }

  /** Where a pointer's event is, in px of the picture. */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left - this.left) / this.scale, (event.clientY - box.top - this.top) / this.scale];
  }

  inside([x, y]) {
    return x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  /** The smallest mask at a place of the picture, or null. */
  smallest([x, y]) {
    if (!this.inside([x, y]) || !this.bySize) return null;
    const column = Math.floor(x), row = Math.floor(y), place = column * this.height + row;
    for (const mask of this.bySize) {
      const box = mask.box;
      if (box && column >= box[0] && row >= box[1] && column <= box[2] && row <= box[3] && holds(mask.runs, place)) return mask;
    }
    return null;
  }

  listen() {
    const canvas = this.canvas;
    let panning = null, moved = false;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pinch.set(event.pointerId, [event.clientX, event.clientY]);
      moved = false;
      const free = event.button === 1 || this.held || this.pinch.size > 1;
      if (this.pinch.size > 1 && this.on.cancel) this.on.cancel();
      panning = free || !(this.on.down && this.on.down(this.at(event), event)) ? [event.clientX, event.clientY] : null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = this.pinch.get(event.pointerId);
      if (before && this.pinch.size === 2) {
        const other = [...this.pinch].find(([id]) => id !== event.pointerId)[1];
        const box = canvas.getBoundingClientRect(), now = [event.clientX, event.clientY];
        const distance = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
        this.zoom(distance(now) / Math.max(1, distance(before)), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
        this.pinch.set(event.pointerId, now);
        moved = true;
        return;
      }
      if (panning && before) {
        const [dx, dy] = [event.clientX - panning[0], event.clientY - panning[1]];
        if (!moved && Math.hypot(dx, dy) < 4) return;
        moved = true;
        this.pan(dx, dy);
        panning = [event.clientX, event.clientY];
        canvas.classList.add("panning");
        return;
      }
      if (this.on.move && this.on.move(this.at(event), event)) return;
      this.hover(this.smallest(this.at(event)), event);
    });
    const ended = (event) => {
      const was = this.pinch.delete(event.pointerId);
      canvas.classList.remove("panning");
      if (was && event.type === "pointerup" && !moved && this.on.up) this.on.up(this.at(event), event);
      panning = null;
    };
    canvas.addEventListener("pointerup", ended);
    canvas.addEventListener("pointercancel", ended);
    canvas.addEventListener("pointerleave", () => this.hover(null));
  }

  hover(mask, event = null) {
    const is = mask && mask.id;
    if (is !== (this.hovered && this.hovered.id)) {
      this.hovered = mask;
      this.draw();
    }
    if (this.on.hover) this.on.hover(mask, event);
  }

  resized() {
    const ratio = window.devicePixelRatio || 1, { clientWidth, clientHeight } = this.canvas.parentElement;
    const had = this.canvas.width;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.ratio = ratio;
    if (!had || this.scale === this.fitted) this.fit();
    this.draw();
  }

  /** All masks, painted into a layer at the picture's pixels (or every k-th of them). */
  paint() {
    const k = Math.max(1, Math.ceil(Math.sqrt((this.width * this.height) / MOST_LAYER_PX)));
    const width = Math.ceil(this.width / k), height = Math.ceil(this.height / k);
    const labels = new Uint16Array(width * height), H = this.height;
    const largestFirst = [...this.bySize].reverse();
    largestFirst.forEach((mask, order) => {
      const label = order + 1, runs = mask.runs;
      for (let i = 0; i < runs.length; i += 2) {
        for (let start = runs[i]; start < runs[i + 1]; ) {
          const x = (start / H) | 0, end = Math.min(runs[i + 1], (x + 1) * H);
          if (x % k === 0) {
            const stop = Math.ceil((end - x * H) / k), column = x / k;
            for (let y = Math.ceil((start - x * H) / k), at = y * width + column; y < stop; y++, at += width) labels[at] = label;
          }
          start = end;
        }
      }
    });

    // Colours, paler where a person decided, and bright edges about a pixel of the screen wide
    const fill = new Uint32Array(largestFirst.length + 1), edge = new Uint32Array(largestFirst.length + 1);
    largestFirst.forEach((mask, order) => {
      const [r, g, b] = colourOf(mask.place);
      fill[order + 1] = (((mask.how && mask.how !== "kept" ? 40 : 95) << 24) | (b << 16) | (g << 8) | r) >>> 0;
      edge[order + 1] = ((255 << 24) | ((b + 255) >> 1 << 16) | ((g + 255) >> 1 << 8) | ((r + 255) >> 1)) >>> 0;
    });
    const pixels = new Uint32Array(width * height);
    const thick = Math.max(1, Math.round(1 / (this.fitted * this.ratio * k)));
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const label = labels[at];
        if (!label) continue;
        const isEdge = x < thick || y < thick || labels[at - thick] !== label || labels[at - thick * width] !== label || x + thick >= width || labels[at + thick] !== label || labels[at + thick * width] !== label;
        pixels[at] = isEdge ? edge[label] : this.fills ? fill[label] : 0;
      }
    }
    const layer = document.createElement("canvas");
    [layer.width, layer.height] = [width, height];
    layer.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
    return layer;
  }

  /** One mask as a small picture of its own, in a colour, for what is under the cursor or chosen. */
  sprite(mask, kind) {
    const name = `${mask.id}/${kind}/${mask.area}/${mask.runs.length ? mask.runs[0] : 0}`;
    const known = this.sprites.get(name);
    if (known && known.runs === mask.runs) return known;
    const made = { runs: mask.runs, ...spriteOf(mask.runs, mask.box || boxOf(mask.runs, this.height), this.height, kind === "draft" ? [45, 125, 255] : kind === "lack" ? [255, 60, 60] : colourOf(mask.place || 0), kind, Math.max(1, Math.round(1.6 / (this.scale * this.ratio)))) };
    this.sprites.set(name, made);
    if (this.sprites.size > 60) this.sprites.delete(this.sprites.keys().next().value);
    return made;
  }

  drawSprite(mask, kind) {
    if (!mask.runs.length) return;
    const sprite = this.sprite(mask, kind);
    this.context.drawImage(sprite.canvas, sprite.x, sprite.y);
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.drawNow();
    });
  }

  drawBoth(context, layer) {
    context.drawImage(this.image, 0, 0, this.width, this.height);
    if (!layer) return;
    const k = Math.max(1, Math.ceil(Math.sqrt((this.width * this.height) / MOST_LAYER_PX)));
    context.drawImage(layer, 0, 0, layer.width * k, layer.height * k);
  }

  /** Picture and layer at the screen's pixels, from the second frame of one scale on: a pan then only moves it. */
  still(layer) {
    const { scale, ratio } = this, width = Math.ceil(this.width * scale * ratio), height = Math.ceil(this.height * scale * ratio);
    const isSame = this.last && this.last.scale === scale && this.last.layer === layer && this.last.image === this.image;
    if (!isSame) this.last = { scale, layer, image: this.image, made: null };
    else if (!this.last.made && width * height <= MOST_STILL_PX) {
      const made = document.createElement("canvas"), context = made.getContext("2d");
      [made.width, made.height] = [width, height];
      context.setTransform(scale * ratio, 0, 0, scale * ratio, 0, 0);
      context.imageSmoothingEnabled = scale * ratio < 2.5;
      this.drawBoth(context, layer);
      this.last.made = made;
    }
    return this.last.made;
  }

  drawNow() {
    const { context, ratio } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.image) return;
    const left = Math.round(this.left * ratio), top = Math.round(this.top * ratio);
    if (this.masks.length && !this.bare) this.layer = this.layer || this.paint();
    const still = this.still(this.bare ? null : this.layer);
    if (still) context.drawImage(still, left, top);
    context.setTransform(this.scale * ratio, 0, 0, this.scale * ratio, left, top);
    context.imageSmoothingEnabled = this.scale * ratio < 2.5;
    if (!still) this.drawBoth(context, this.bare ? null : this.layer);
    if (this.heat && !this.bare) {
      context.imageSmoothingEnabled = true;
      context.drawImage(this.heat, 0, 0, this.width, this.height);
      context.imageSmoothingEnabled = this.scale * ratio < 2.5;
    }
    if (!this.bare) {
      for (const mask of this.masks) if (this.selected.has(mask.id)) this.drawSprite(mask, "chosen");
      if (this.hovered && !this.selected.has(this.hovered.id)) this.drawSprite(this.hovered, "hover");
    }
    for (const mark of this.marks) mark(context, this);
    if (this.on.drawn) this.on.drawn();
  }
}

/** A verdict's map as a small canvas: orange, the denser the surer that something lies there without a mask. */
export function heatOf({ rows, columns, cells }) {
  const bytes = atob(cells), pixels = new Uint8ClampedArray(rows * columns * 4);
  for (let i = 0; i < rows * columns; i++) pixels.set([255, 92, 0, 0.8 * bytes.charCodeAt(i)], 4 * i);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  canvas.getContext("2d").putImageData(new ImageData(pixels, columns, rows), 0, 0);
  return canvas;
}

/** Runs as a small canvas: a fill, and an edge around it. */
function spriteOf(runs, box, H, colour, kind, thick) {
  const [left, top, right, bottom] = box;
  const pad = kind === "lack" ? 0 : thick, width = right - left + 1 + 2 * pad, height = bottom - top + 1 + 2 * pad;
  const inside = new Uint8Array(width * height);
  for (let i = 0; i < runs.length; i += 2) {
    for (let start = runs[i]; start < runs[i + 1]; ) {
      const x = (start / H) | 0, end = Math.min(runs[i + 1], (x + 1) * H);
      for (let y = start - x * H; y < end - x * H; y++) inside[(y - top + pad) * width + x - left + pad] = 1;
      start = end;
    }
  }
  const [r, g, b] = colour, alpha = { hover: 120, chosen: 105, draft: 110, lack: 110 }[kind];
  const fill = ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const edge = kind === "draft" ? 0xffff7d2d : 0xffffffff;
  const pixels = new Uint32Array(width * height);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (inside[at]) { pixels[at] = kind === "lack" && (x + y + left + top) % 12 < 6 ? 0 : fill; continue; }
      if (!pad) continue;
      const near = (x >= thick && inside[at - thick]) || (x + thick < width && inside[at + thick]) || (y >= thick && inside[at - thick * width]) || (y + thick < height && inside[at + thick * width]);
      if (near) pixels[at] = edge;
    }
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  return { canvas, x: left - pad, y: top - pad };
}

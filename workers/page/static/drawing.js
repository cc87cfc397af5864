// Tools that make masks: clicks and boxes that the segmenter answers, brush, eraser, polygon. What is being made is
// the draft; nothing of it counts until it is accepted.

import { post } from "./api.js";
import { NOTHING, less, polygon, runsOf, stroke, union } from "./rle.js";

export const TOOLS = [
  ["select", "Select", "v", "Click a mask to choose it, the smallest under the cursor; shift-click chooses several"],
  ["click", "Click", "c", "Click an object: the segmenter answers. Click again to add, shift-click to take away"],
  ["box", "Box", "b", "Drag a box around an object: the segmenter answers"],
  ["brush", "Brush", "d", "Paint: onto the chosen mask, or a new one. [ and ] change the size"],
  ["eraser", "Eraser", "e", "Erase from the chosen mask, or from what is being made"],
  ["polygon", "Polygon", "p", "Click corners; Enter or a click on the first one closes it"],
];

export class Drawing {
  /**
   * @param view, work: the picture and what is made of it.
   * @param on {changed, chosen, failed}: told when the draft changed, with ids of chosen masks, and of errors.
   */
  constructor(view, work, on) {
    Object.assign(this, { view, work, on, tool: "select", radius: 12, draft: null, corners: [], line: null, drag: null, cursor: null, asked: 0, takes: false });
    view.marks = [(context) => this.mark(context)];
  }

  use(tool) {
    this.tool = tool;
    this.corners = [];
    this.drag = this.line = null;
    this.view.canvas.classList.toggle("select", tool === "select");
    this.on.changed();
    this.view.draw();
  }

  get chosen() { return [...this.view.selected].map((id) => this.work.find(id)).filter(Boolean); }

  choose(ids) {
    this.view.selected = new Set(ids);
    this.view.draw();
    this.on.chosen();
  }

  /** A pointer went down: true where the tool takes the drag, else it pans. */
  down(at, event) {
    this.work.tick();
    if (event.button !== 0) return false;
    if (this.tool === "box") { this.drag = [at, at]; return true; }
    if (this.tool === "brush" || this.tool === "eraser") { this.line = [at]; this.view.draw(); return true; }
    return false;
  }

  move(at) {
    this.cursor = at;
    this.work.tick();
    if (this.drag) this.drag[1] = at;
    if (this.line) this.line.push(at);
    const busy = this.drag || this.line || this.tool === "brush" || this.tool === "eraser" || this.corners.length;
    if (busy) this.view.draw();
    return Boolean(this.drag || this.line) || this.tool !== "select";
  }

  cancel() {
    this.drag = this.line = null;
    this.view.draw();
  }

  /** A pointer went up where it went down, or the end of a drag of the tool. */
  up(at, event) {
    this.work.tick();
    const takesAway = event.shiftKey || event.button === 2;
    if (this.drag) { const drag = this.drag; this.drag = null; return this.boxed(drag); }
    if (this.line) { const line = this.line; this.line = null; return this.painted(line); }
    if (this.tool === "select") return this.select(at, event.shiftKey || event.ctrlKey || event.metaKey);
    if (!this.view.inside(at)) return undefined;
    if (this.tool === "click") return this.click(at, takesAway !== this.takes ? 0 : 1);
    if (this.tool === "polygon") return this.corner(at);
    return undefined;
  }

  select(at, more) {
    const found = this.view.smallest(at), ids = new Set(more ? this.view.selected : []);
    if (found && ids.has(found.id)) ids.delete(found.id); else if (found) ids.add(found.id);
    this.choose(ids);
  }

  /** A click for the segmenter: of the draft, of the one chosen mask, or of a new one. */
  click(at, label) {
    const point = [Math.floor(at[0]), Math.floor(at[1])];
    let draft = this.draft;
    if (!draft || draft.drawn) {
      const target = this.chosen.length === 1 ? this.chosen[0] : null;
      if (!target && !label) return this.on.failed(new Error("The first click goes on the object; shift-click then takes away."));
      draft = { points: [], labels: [], box: null, choice: 0, target: target && target.id, runs: target ? target.runs : NOTHING };
      if (target) Object.assign(draft, promptOf(target));
    }
    return this.ask({ ...draft, points: [...draft.points, point], labels: [...draft.labels, label], clicks: (draft.clicks || 0) + 1 });
  }

  boxed([from, to]) {
    const clip = (value, most) => Math.min(Math.max(value, 0), most);
    const xs = [from[0], to[0]].map((x) => clip(x, this.work.width)).sort((a, b) => a - b), ys = [from[1], to[1]].map((y) => clip(y, this.work.height)).sort((a, b) => a - b);
    if (xs[1] - xs[0] < 3 || ys[1] - ys[0] < 3) return this.view.draw();
    return this.ask({ points: [], labels: [], box: [xs[0], ys[0], xs[1], ys[1]], choice: 0, target: null, runs: NOTHING, clicks: 1 });
  }

  /** The next of the first click's three outputs. */
  other() {
    if (this.draft && this.draft.outputs > 1 && this.draft.points.length === 1 && !this.draft.box) this.ask({ ...this.draft, choice: (this.draft.choice + 1) % this.draft.outputs });
  }

  /** Has the segmenter answer; an answer that was overtaken by a later click is dropped. */
  ask(draft) { return (this.answering = this.answer(draft)); }

  async answer(draft) {
    this.draft = { ...draft, waiting: true };
    this.work.clicks++;
    this.on.changed();
    this.view.draw();
    const asked = ++this.asked;
    try {
      const { points, labels, box, choice } = draft;
      const found = await post("api/review/answer", { key: this.work.key, points, labels, box, choice });
      if (asked !== this.asked || !this.draft) return;
      this.draft = { ...draft, runs: runsOf(found.segmentation), iou: found.predicted_iou, outputs: found.outputs, segmentation: found.segmentation };
    } catch (error) {
      if (asked === this.asked) this.draft = draft.points.length > 1 ? { ...draft, points: draft.points.slice(0, -1), labels: draft.labels.slice(0, -1) } : null;
      this.on.failed(error);
    }
    this.on.changed();
    this.view.draw();
    if (asked === this.asked && this.acceptNext) this.accept();
    this.acceptNext = false;
  }

  /** A stroke of brush or eraser: onto the draft, else the one chosen mask, else a new draft. */
  painted(line) {
    const runs = stroke(line, this.radius / this.view.scale, this.work.height, this.work.width);
    const change = (before) => (this.tool === "brush" ? union(before, runs) : less(before, runs));
    const target = this.chosen.length === 1 ? this.chosen[0] : null;
    if (this.draft) this.draft = { ...this.draft, runs: change(this.draft.runs), drawn: true };
    else if (target) {
      const now = change(target.runs);
      if (!now.length) return this.on.failed(new Error("Nothing would be left of the mask: reject it instead (X)."));
      const [made] = this.work.replace([target.id], [{ runs: now, drawn: true }], this.tool === "brush" ? "painted" : "erased");
      this.choose([made.id]);
    } else if (this.tool === "brush") this.draft = { points: [], labels: [], box: null, target: null, runs, drawn: true, clicks: 0 };
    else return this.on.failed(new Error("Choose a mask to erase from (V, then click it)."));
    this.on.changed();
    return this.view.draw();
  }

  corner(at) {
    const [first] = this.corners, near = first && Math.hypot(first[0] - at[0], first[1] - at[1]) * this.view.scale < 9;
    if (near && this.corners.length > 2) return this.close();
    this.corners.push(at);
    this.on.changed();
    return this.view.draw();
  }

  close() {
    const runs = polygon(this.corners, this.work.height, this.work.width);
    this.corners = [];
    if (runs.length) this.draft = { ...(this.draft || { points: [], labels: [], box: null, target: null, clicks: 0 }), runs: this.draft ? union(this.draft.runs, runs) : runs, drawn: true };
    this.on.changed();
    this.view.draw();
  }

  /** The draft becomes a mask, or the new outline of the one it corrects. */
  accept() {
    const draft = this.draft;
    if (!draft) return false;
    if (draft.waiting) return (this.acceptNext = true); // the answer is on its way
    this.draft = null;
    this.takes = false;
    if (!draft.runs.length) { this.on.failed(new Error("This mask is empty: click elsewhere.")); this.on.changed(); return true; }
    const box = draft.box && [draft.box[0], draft.box[1], draft.box[2] - draft.box[0], draft.box[3] - draft.box[1]];
    const mask = { runs: draft.runs, clicks: draft.clicks || 0, drawn: Boolean(draft.drawn), points: draft.points.filter((_, i) => draft.labels[i]), promptBox: box };
    if (draft.target != null && this.work.find(draft.target)) {
      const before = this.work.find(draft.target);
      this.work.replace([draft.target], [{ ...mask, clicks: before.clicks + mask.clicks }], "corrected");
    } else this.work.add(mask, draft.drawn ? "drawn" : "added");
    this.choose([]);
    return true;
  }

  /** Takes back the last click or corner, else the draft; false where there is neither. */
  back() {
    if (this.corners.length) this.corners.pop();
    else if (this.draft && !this.draft.drawn && this.draft.points.length > (this.draft.box ? 0 : 1)) {
      this.ask({ ...this.draft, points: this.draft.points.slice(0, -1), labels: this.draft.labels.slice(0, -1) });
      return true;
    } else if (this.draft) this.drop();
    else return false;
    this.on.changed();
    this.view.draw();
    return true;
  }

  drop() {
    this.asked++;
    this.draft = null;
    this.takes = false;
    this.corners = [];
    this.on.changed();
    this.view.draw();
  }

  /** What is drawn over the picture: draft, clicks, box, polygon, the brush's ring. */
  mark(context) {
    const { view, draft } = this, px = 1 / view.scale;
    if (draft && draft.runs.length) view.drawSprite({ id: "draft", runs: draft.runs, area: 0 }, "draft");
    context.lineWidth = 1.5 * px;
    const dot = ([x, y], colour) => {
      context.beginPath();
      context.arc(x + 0.5, y + 0.5, 5 * px, 0, 7);
      context.fillStyle = colour;
      context.fill();
      context.strokeStyle = "#fff";
      context.stroke();
    };
    if (draft) draft.points.forEach((point, i) => dot(point, draft.labels[i] ? "#1f9d55" : "#d6322a"));
    const box = this.drag ? [...this.drag[0], ...this.drag[1]] : draft && draft.box;
    if (box) {
      context.strokeStyle = "#2f6fec";
      context.lineWidth = 2 * px;
      context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
    }
    if (this.corners.length) {
      context.beginPath();
      for (const [x, y] of this.corners) context.lineTo(x, y);
      if (this.cursor) context.lineTo(...this.cursor);
      context.strokeStyle = "#2f6fec";
      context.lineWidth = 2 * px;
      context.stroke();
      this.corners.forEach((corner, i) => dot([corner[0] - 0.5, corner[1] - 0.5], i ? "#2f6fec" : "#1f9d55"));
    }
    if (this.line) {
      context.beginPath();
      for (const [x, y] of this.line) context.lineTo(x, y);
      context.lineTo(this.line[0][0] + 0.01, this.line[0][1]);
      context.lineCap = context.lineJoin = "round";
      context.lineWidth = 2 * this.radius * px;
      context.strokeStyle = this.tool === "brush" ? "rgb(47 111 236 / .5)" : "rgb(214 50 42 / .5)";
      context.stroke();
    }
    if (this.cursor && (this.tool === "brush" || this.tool === "eraser")) {
      context.beginPath();
      context.arc(this.cursor[0], this.cursor[1], this.radius * px, 0, 7);
      context.lineWidth = 1.5 * px;
      context.strokeStyle = this.tool === "brush" ? "#fff" : "#ff9c94";
      context.stroke();
    }
  }
}

/** What a mask is asked for again with, before it is corrected: its own clicks, else its box. */
function promptOf(mask) {
  const points = mask.points.length ? mask.points : (mask.row?.point_coords || []);
  if (points.length === 1 && !mask.drawn) return { points: [points[0].map((side) => Math.floor(side))], labels: [1], box: null };
  const [left, top, right, bottom] = mask.box;
  return { points: [], labels: [], box: [left, top, right + 1, bottom + 1] };
}

// What a person makes of one picture: masks, each an unchanging object, steps that can be taken back without end,
// time with idle out, and saves: one after each step, so that at most the mask in hand is lost.

import { post } from "./api.js";
import * as outbox from "./outbox.js";
import { areaOf, boxOf, runsOf, segmentationOf } from "./rle.js";

const IDLE_S = 12; // a longer pause is no work
const SAVE_AFTER_MS = 900;
const AGAIN_AFTER_MS = 3000;

export class Work {
  /** @param opened the answer of api/review/open; @param on {changed, saved, failed} */
  constructor(opened, who, on) {
    this.opened = opened;
    this.who = who;
    this.on = on;
    this.key = opened.key;
    [this.height, this.width] = [opened.image.height, opened.image.width];
    this.sitting = { name: crypto.randomUUID().replaceAll("-", "").slice(0, 16), number: 0, last: null };
    this.known = new Set(opened.rows.map((row) => row.id));
    this.uid = 0;
    const masks = opened.rows.map((row) => this.made({ runs: runsOf(row.segmentation), row, sources: [row.id], how: "kept", label: row.label || "", wasLabel: row.label || "" }));
    this.steps = [{ masks, words: "opened" }];
    this.at = 0;
    this.finished = opened.finished;
    this.clicks = 0;
    this.seconds = 0; // all of them
    this.spent = 0; // since the last mask was decided
    this.seen = performance.now();
    this.dirty = false;
    this.saving = Promise.resolve();
    outbox.watch(this);
  }

  /** Something of it is not kept yet. */
  get pending() { return this.dirty || Boolean(this.unsent); }

  get masks() { return this.steps[this.at].masks; }

  made(mask) {
    const id = this.uid++;
    return Object.freeze({ clicks: 0, seconds: 0, drawn: false, points: [], promptBox: null, place: id, ...mask, area: areaOf(mask.runs), box: boxOf(mask.runs, this.height), id });
  }

  find(id) { return this.masks.find((mask) => mask.id === id); }

  /** Something was done at the mouse or keys: the time since the last such moment was work, unless it was long. */
  tick() {
    const now = performance.now(), gone = (now - this.seen) / 1000;
    this.seen = now;
    if (gone < IDLE_S) { this.spent += gone; this.seconds += gone; }
  }

  /** The seconds since the last mask was decided; they are this one's. */
  took() {
    this.tick();
    const spent = this.spent;
    this.spent = 0;
    return spent;
  }

  /** A new step: these masks instead of those there were. */
  step(masks, words) {
    this.steps = [...this.steps.slice(0, this.at + 1), { masks, words }];
    this.at++;
    this.touched();
  }

  undo() { if (this.at > 0) { this.at--; this.touched(); return this.steps[this.at + 1].words; } return null; }
  redo() { if (this.at + 1 < this.steps.length) { this.at++; this.touched(); return this.steps[this.at].words; } return null; }

  touched() {
    this.dirty = true;
    this.finished = false;
    this.on.changed();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), SAVE_AFTER_MS);
  }

  add(mask, words) {
    const made = this.made({ sources: [], how: "made", label: "", ...mask, seconds: (mask.seconds || 0) + this.took() });
    this.step([...this.masks, made], words);
    return made;
  }

  /** Masks of these ids become others; what they came from goes along. */
  replace(ids, news, words) {
    const old = this.masks.filter((mask) => ids.includes(mask.id)), seconds = this.took();
    const sources = [...new Set(old.flatMap((mask) => mask.sources))];
    const labels = [...new Set(old.map((mask) => mask.label).filter(Boolean))];
    const label = labels.length === 1 ? labels[0] : "";
    const sum = (name) => old.reduce((total, mask) => total + mask[name], 0);
    const made = news.map((mask) => this.made({
      sources, how: "made", label, row: old[0].row && { parent: null }, clicks: sum("clicks"), drawn: old.some((one) => one.drawn), points: old[0].points, promptBox: old[0].promptBox, place: old[0].place,
      ...mask, seconds: (sum("seconds") + seconds) / news.length,
    }));
    const first = this.masks.findIndex((mask) => ids.includes(mask.id));
    const left = this.masks.filter((mask) => !ids.includes(mask.id));
    this.step([...left.slice(0, first), ...made, ...left.slice(first)], words);
    return made;
  }

  /** The same masks with other facts: confirmed, or a label. */
  mark(ids, facts, words) {
    const seconds = this.took() / Math.max(1, ids.length);
    this.step(this.masks.map((mask) => (ids.includes(mask.id) ? Object.freeze({ ...mask, ...facts, seconds: mask.seconds + seconds }) : mask)), words);
  }

  remove(ids, words) {
    this.took();
    this.step(this.masks.filter((mask) => !ids.includes(mask.id)), words);
  }

  /** What became of each mask that was opened, as a save says it: each is in some mask's sources, or rejected. */
  account() {
    const makes = this.masks.filter((mask) => mask.how === "made"), uses = new Map();
    for (const mask of makes) for (const source of mask.sources) uses.set(source, (uses.get(source) || 0) + 1);
    const named = new Map(); // how often a source that several share was named
    const sent = this.masks.map((mask) => {
      if (mask.how !== "made") return { how: mask.how, sources: mask.sources };
      const own = mask.sources.filter((source) => uses.get(source) === 1), shared = mask.sources.filter((source) => uses.get(source) > 1);
      if (own.length) return { how: own.length > 1 ? "merged" : "changed", sources: own };
      if (!shared.length) return { how: "added", sources: [] };
      const source = shared.reduce((a, b) => ((named.get(b) || 0) < (named.get(a) || 0) ? b : a));
      named.set(source, (named.get(source) || 0) + 1);
      return { how: "split", sources: [source] };
    });

    // A source that only masks with others of their own came from goes to the first of these
    for (const [source, count] of uses) {
      if (count < 2 || named.has(source)) continue;
      const place = this.masks.findIndex((mask) => mask.how === "made" && mask.sources.includes(source));
      sent[place] = { how: "merged", sources: [...sent[place].sources, source] };
    }
    const gone = new Set(sent.flatMap((one) => one.sources));
    const masks = this.masks.map((mask, i) => ({
      ...sent[i],
      segmentation: mask.how === "made" ? segmentationOf(mask.runs, this.height, this.width) : null,
      label: mask.how !== "made" && mask.label === mask.wasLabel ? null : mask.label,
      clicks: mask.clicks, seconds: mask.seconds, drawn: mask.drawn, points: mask.points, box: mask.promptBox,
    }));
    return { masks, rejected: [...this.known].filter((id) => !gone.has(id)) };
  }

  /** Keeps what there is; one save at a time, and again while the server does not take it. */
  save(finished = this.finished) {
    clearTimeout(this.timer);
    if (finished !== this.finished) this.dirty = true;
    this.finished = finished;
    this.saving = this.saving.then(() => this.put());
    return this.saving;
  }

  /** The next save: all that there is now. */
  compose() {
    this.sitting.number++;
    return { key: this.key, who: this.who(), opening: this.opened.opening, sitting: { ...this.sitting }, ...this.account(), finished: this.finished, seconds: this.seconds, clicks: this.clicks };
  }

  async put() {
    if (!this.dirty) return true;
    this.dirty = false;
    const again = this.unsent, sent = again || this.compose();
    this.unsent = sent;
    outbox.hold(sent);
    try {
      const kept = await post("api/review/save", sent);
      this.unsent = null;
      this.sitting.last = kept.number;
      outbox.kept(sent);
      this.on.saved(kept);
    } catch (error) {
      this.dirty = true;
      const isFinal = error.status >= 400 && error.status < 500;
      if (isFinal) this.unsent = null; // it will never be taken: say why, send the next state
      outbox.failed(sent, error.message);
      this.on.failed(error);
      clearTimeout(this.timer);
      if (!isFinal) this.timer = setTimeout(() => this.save(), AGAIN_AFTER_MS);
      return false;
    }
    if (again) { this.dirty = true; return this.put(); } // what was made since the one that had failed
    return true;
  }
}

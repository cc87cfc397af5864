// The review page: a queue of pictures, one at a time, all by keys or by the mouse.

import { $, count, el, get, plural, post, say, shortName } from "./api.js";
import { numbers } from "./browse.js";
import { Drawing, TOOLS } from "./drawing.js";
import { STATES, inHand, notes, turn, words } from "./hand.js";
import { help } from "./help.js";
import * as outbox from "./outbox.js";
import { heatSwitch, roof, tip, wordOf } from "./picture.js";
import { filled, holds, piecesOf, rest, runsOf, unionOf } from "./rle.js";
import { View, colourOf } from "./view.js";
import { Work } from "./work.js";

const HERE_EVERY_MS = 60000;
const whoNow = () => $("person").value.trim() || "somebody";

/** The queue that this tab works through: {keys, query}; it outlives a reload. */
const queue = {
  get: () => JSON.parse(sessionStorage.getItem("queue") || "null"),
  set: (value) => sessionStorage.setItem("queue", JSON.stringify(value)),
};

export async function show(about, key, query) {
  $("side").replaceChildren(el("p", { class: "hint" }, "loading…"));
  $("tools").replaceChildren();
  if (!key) return begin(about, query);
  const blank = query.get("start") === "empty", both = query.get("both") === "1";
  if (!queue.get()?.keys.includes(key)) queue.set(await beginningWith(key));
  const ahead = !blank && !both && ready?.key === key ? ready : null;
  ready = null;
  const known = ahead && (await ahead.opened.catch(() => null));
  const opened = known || (await post("api/review/open", { key, who: whoNow(), blank, both }));
  const page = new Page(about, opened, blank);
  await page.start(ahead && (await ahead.image.catch(() => null)));
  if (known) page.stay(); // it was read a while ago: who else is here now, and did anybody save it?
  window.maskmill = { view: page.view, work: page.work, drawing: page.drawing };
  return () => page.leave();
}

/** The queue's next picture, read before it is asked for: {key, opened, image}. */
let ready = null;

/** A queue of a picture that was opened by its address alone, and those after it. */
async function beginningWith(key) {
  const { keys, complete } = await post("api/review/queue", { sort: "key" });
  return { keys: [key, ...keys.filter((one) => one > key)], complete, query: "" };
}

/** A queue by the filters and order in the address; then its first picture. */
async function begin(about, query) {
  const values = Object.fromEntries(query), start = values.start;
  delete values.start;
  $("side").replaceChildren(el("p", { class: "hint" }, "looking for the next pictures…"));
  const sent = { filters: numbers(values), sort: values.sort || about.order || "key", seed: Number(values.seed || 1) };
  const { keys, complete } = await post("api/review/queue", sent);
  if (!keys.length) {
    $("side").replaceChildren(el("h2", {}, "Nothing is left"), el("p", { class: "hint" }, "Every picture that fits is finished."), el("a", { class: "button", href: "#/browse" }, "Back to the grid"));
    return () => {};
  }
  queue.set({ keys, complete, query: query.toString() });
  location.replace(`#/review/${keys[0]}${start ? `?start=${start}` : ""}`);
  return () => {};
}

class Page {
  constructor(about, opened, blank) {
    Object.assign(this, { about, opened, blank, lacks: false, state: "" });
    this.key = opened.key;
    this.view = new View($("canvas"), {
      hover: (mask, event) => tip(this.view, mask, event),
      down: (at, event) => this.drawing.down(at, event), move: (at) => this.drawing.move(at), up: (at, event) => this.drawing.up(at, event), cancel: () => this.drawing.cancel(),
    }, roof);
    this.work = new Work(opened, whoNow, {
      changed: () => this.shown(),
      saved: (kept) => this.saved(kept),
      failed: () => { this.state = "not saved yet"; this.side(); },
    });
    this.drawing = new Drawing(this.view, this.work, { changed: () => this.side(), chosen: () => this.side(), failed: (error) => say(error.message, true) });
    this.view.marks.unshift((context) => this.markLack(context));
    this.heat = blank ? null : heatSwitch(this.view, opened.verdict, "⇧U");
  }

  async start(image) {
    this.tools();
    this.side();
    await this.view.show(`api/pictures/${this.key}/image.jpg`, this.work.width, this.work.height, image);
    this.shown();
    if (!this.work.masks.length) this.use("click");
    document.body.dataset.ready = this.key;
    $("canvas").focus({ preventScroll: true });
    this.ends = new AbortController();
    const { signal } = this.ends;
    addEventListener("keydown", (event) => this.pressed(event), { signal });
    addEventListener("keyup", (event) => { if (event.key === " ") this.view.held = false; }, { signal });
    addEventListener("pagehide", () => this.gone(), { signal });
    this.here = setInterval(() => this.stay(), HERE_EVERY_MS);
    this.prepare();
  }

  /** Has the next picture read, embedded and decoded meanwhile. */
  prepare() {
    const key = this.around(1);
    if (!key || this.blank) return;
    const image = new Image();
    image.src = `api/pictures/${key}/image.jpg`;
    ready = { key, opened: post("api/review/open", { key, who: whoNow(), ahead: true }), image: image.decode().then(() => image) };
    for (const one of [ready.opened, ready.image]) one.catch(() => {}); // it is asked for again when its turn comes
  }

  /** Lets the picture go. What is not kept yet is on its way; nobody waits for it. */
  leave() {
    clearInterval(this.here);
    this.ends?.abort();
    this.left = true;
    delete document.body.dataset.ready;
    this.drawing.asked++;
    $("tip").className = "";
    this.view.close();
    this.work.save();
    outbox.close(this.work);
    this.gone();
  }

  gone() { post("api/review/leave", { key: this.key, who: whoNow() }, true).catch(() => {}); }

  async stay() {
    try {
      const { others, saves } = await post("api/review/here", { key: this.key, who: whoNow() });
      if (this.left) return;
      this.opened.others = others;
      const isOld = Math.max(0, ...saves) > Math.max(0, ...this.opened.saves);
      if (isOld && !this.work.at && !this.drawing.draft && !this.work.sitting.number) dispatchEvent(new Event("hashchange"));
      else this.side();
    } catch { /* the next save says so */ }
  }

  around(step) {
    const found = queue.get();
    return found?.keys[found.keys.indexOf(this.key) + step];
  }

  /** To a neighbour of the queue. */
  go(step) {
    if (this.drawing.draft || this.drawing.corners.length) { say("A mask is in hand: accept it first (A), or drop it (X)."); return; }
    const to = this.around(step);
    if (to) location.hash = `#/review/${to}${this.blank ? "?start=empty" : ""}`;
    else if (step > 0 && queue.get()?.complete === false) location.hash = `#/review?${queue.get().query}`; // more was found since
    else if (step > 0) { say("That was the last picture of this queue."); location.hash = "#/summary"; }
    else say("This is the first picture of this queue.");
  }

  /** All is there: what is in hand is accepted, an answer on its way is waited for, and the next picture comes. */
  async finish() {
    if (this.drawing.corners.length > 2) this.drawing.close();
    if (this.drawing.draft) {
      this.drawing.accept();
      await this.drawing.answering;
      if (this.drawing.draft || this.left) return;
    }
    const saving = this.work.save(true);
    if (!this.around(1)) await saving; // the summary counts it
    this.go(1);
  }

  saved(kept) {
    if (this.left) {
      if (kept.beside) say(`${kept.in_force_by} saved ${shortName(this.opened.image.source)} meanwhile: both are kept, theirs counts for now.`, true);
      return;
    }
    this.state = this.work.finished ? "finished" : "saved";
    if (kept.beside) this.opened.raced = kept.in_force_by;
    this.side();
  }

  /** After a step: masks on the canvas, list, lack. */
  shown() {
    this.lack = null;
    this.state = this.work.dirty ? "saving…" : this.state;
    this.view.setMasks(this.work.masks);
    this.view.selected = new Set([...this.view.selected].filter((id) => this.work.find(id)));
    this.side();
  }

  use(tool) {
    this.drawing.use(tool);
    this.tools();
  }

  /** One mask is right as it is; or what is being made is. The next undecided one is chosen. */
  accept() {
    if (this.drawing.corners.length > 2) this.drawing.close();
    if (this.drawing.draft) return this.drawing.accept();
    const chosen = this.drawing.chosen;
    if (!chosen.length) return say("Choose a mask to accept (V, then click it), or click an object (C).");
    if (chosen.length > 1) return say("Accept masks one at a time: it says that you looked at each.");
    const [mask] = chosen;
    if (mask.how === "kept") this.work.mark([mask.id], { how: "confirmed" }, "accepted");
    return this.next(mask);
  }

  reject() {
    if (this.drawing.draft || this.drawing.corners.length) return this.drawing.drop();
    const chosen = this.drawing.chosen;
    if (!chosen.length) return say("Choose the masks to reject (V, then click).");
    const after = chosen.length === 1 ? this.following(chosen[0]) : null;
    this.work.remove(chosen.map((mask) => mask.id), plural(chosen.length, "mask") + " rejected");
    return this.drawing.choose(after ? [after.id] : []);
  }

  /** Undecided masks, the largest first, from one on. */
  following(mask, step = 1) {
    const open = this.work.masks.filter((one) => one.how === "kept" || one === mask).sort((a, b) => b.area - a.area);
    const others = open.filter((one) => one !== mask);
    if (!others.length) return null;
    const at = open.indexOf(mask);
    return at < 0 ? others[0] : open[(at + step + open.length) % open.length];
  }

  next(mask, step = 1) {
    const found = this.following(mask && this.work.find(mask.id), step);
    this.drawing.choose(found ? [found.id] : []);
    if (!found && this.work.masks.length) say("Every mask is decided. Add what is missing, then finish (Shift Enter).");
  }

  merge() {
    const chosen = this.drawing.chosen;
    if (chosen.length < 2) return say("Choose two or more masks to merge: click one, shift-click the others.");
    const [made] = this.work.replace(chosen.map((mask) => mask.id), [{ runs: unionOf(chosen.map((mask) => mask.runs)) }], "merged");
    return this.drawing.choose([made.id]);
  }

  split() {
    const [mask, more] = this.drawing.chosen;
    if (!mask || more) return say("Choose one mask to split into its pieces.");
    const pieces = piecesOf(mask.runs, this.work.height);
    if (pieces.length < 2) return say("This mask is one piece: erase a gap through it first (E), then split.");
    const made = this.work.replace([mask.id], pieces.map((runs, i) => (i ? { runs, place: undefined } : { runs })).map((one) => { if (one.place === undefined) delete one.place; return one; }), `split into ${pieces.length}`);
    return this.drawing.choose(made.map((one) => one.id));
  }

  fill() {
    if (this.drawing.draft) {
      this.drawing.draft = { ...this.drawing.draft, runs: filled(this.drawing.draft.runs, this.work.height, this.work.width) };
      return this.view.draw();
    }
    const [mask, more] = this.drawing.chosen;
    if (!mask || more) return say("Choose one mask to fill the holes of.");
    const runs = filled(mask.runs, this.work.height, this.work.width);
    if (runs.length === mask.runs.length && runs.every((edge, i) => edge === mask.runs[i])) return say("This mask has no holes.");
    const [made] = this.work.replace([mask.id], [{ runs }], "holes filled");
    return this.drawing.choose([made.id]);
  }

  undo() {
    if (this.drawing.back()) return;
    const said = this.stepped(() => this.work.undo());
    say(said ? `taken back: ${said}` : "Nothing to take back.");
  }

  /** Steps back or on; masks that come back are chosen. */
  stepped(step) {
    const before = new Set(this.work.masks), said = step();
    const news = this.work.masks.filter((mask) => !before.has(mask));
    if (said && news.length) this.drawing.choose(news.map((mask) => mask.id));
    return said;
  }

  redo() {
    const said = this.stepped(() => this.work.redo());
    say(said ? `done again: ${said}` : "Nothing to do again.");
  }

  label() {
    const field = $("side").querySelector("input[name=label]");
    field ? field.focus() : say("Choose a mask to give it a label.");
  }

  setLabel(text) {
    const label = text.trim(), ids = this.drawing.chosen.map((mask) => mask.id);
    if (label) words.add(label);
    localStorage.setItem("labels", JSON.stringify([...words].slice(-500)));
    if (this.drawing.chosen.some((mask) => mask.label !== label)) this.work.mark(ids, { label }, label ? `called ${label}` : "label taken away");
    $("canvas").focus({ preventScroll: true });
  }

  /** Shows where no mask is. */
  toggleLack() {
    this.lacks = !this.lacks;
    this.tools();
    this.view.draw();
  }

  markLack() {
    if (!this.lacks) return;
    this.lack = this.lack || { id: "lack", runs: rest(unionOf(this.work.masks.map((mask) => mask.runs)), this.work.height, this.work.width), area: 0 };
    this.view.drawSprite(this.lack, "lack");
  }

  toggle(name) {
    this.view[name] = !this.view[name];
    this.view.layer = null;
    this.view.draw();
    this.tools();
  }

  pressed(event) {
    if (event.target.matches("input, textarea, select") || $("help").open || $("ask").open) return;
    this.work.tick();
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") { event.preventDefault(); event.shiftKey ? this.redo() : this.undo(); }
      if (key === "y") { event.preventDefault(); this.redo(); }
      return;
    }
    if (event.altKey) return;
    const tool = TOOLS.find(([, , letter]) => letter === key);
    const doers = {
      a: () => this.accept(), Enter: () => (event.shiftKey ? this.finish() : this.accept()), x: () => this.reject(), Delete: () => this.reject(), Backspace: () => (this.drawing.draft || this.drawing.corners.length ? this.drawing.back() : this.reject()),
      m: () => this.merge(), s: () => this.split(), f: () => this.fill(), l: () => this.label(), z: () => (event.shiftKey ? this.redo() : this.undo()), y: () => this.redo(),
      t: () => turn(this), n: () => this.go(1), k: () => this.go(-1), o: () => this.drawing.other(), u: () => (event.shiftKey ? this.heat?.button.click() : this.toggleLack()), h: () => this.toggle("bare"), i: () => this.toggle("fills"),
      Tab: () => this.next(this.drawing.chosen[0], event.shiftKey ? -1 : 1), Escape: () => (this.drawing.draft || this.drawing.corners.length ? this.drawing.drop() : this.drawing.choose([])),
      "[": () => this.size(1 / 1.25), "]": () => this.size(1.25), "+": () => this.view.zoom(1.4), "=": () => this.view.zoom(1.4), "-": () => this.view.zoom(1 / 1.4), 0: () => this.view.fit(), " ": () => { this.view.held = true; }, "?": () => help(),
    };
    const act = tool ? () => this.use(tool[0]) : doers[key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  size(factor) {
    this.drawing.radius = Math.min(200, Math.max(1.5, this.drawing.radius * factor));
    this.view.draw();
  }

  tools() {
    const button = (words, letter, on, act, title) => el("button", { class: on ? "on" : "", title: `${title || words} (${letter.toUpperCase()})`, "aria-pressed": String(Boolean(on)), onclick: () => { act(); $("canvas").focus({ preventScroll: true }); } }, words, " ", el("kbd", {}, letter.toUpperCase()));
    $("tools").replaceChildren(
      el("div", { class: "group" }, TOOLS.map(([name, words, letter, title]) => button(words, letter, this.drawing.tool === name, () => this.use(name), title))),
      el("div", { class: "group" }, button("Hide", "h", this.view.bare, () => this.toggle("bare"), "The picture alone"), button("Unlabelled", "u", this.lacks, () => this.toggleLack(), "Show where no mask is"), this.heat?.button || ""),
      el("div", { class: "group" }, el("button", { title: "Take back (Z)", onclick: () => this.undo() }, "↶"), el("button", { title: "Do again (Y)", onclick: () => this.redo() }, "↷"), el("button", { title: "The whole picture (0)", onclick: () => this.view.fit() }, "Fit")), this.heat?.legend || "",
    );
  }

  side() {
    if (this.left) return;
    if (document.activeElement?.name === "label") return; // a label is being typed: its end redraws
    const found = queue.get() || { keys: [this.key] }, at = found.keys.indexOf(this.key);
    const scroll = $("side").scrollTop;
    if (!this.top) $("side").replaceChildren((this.top = el("div", { class: "top" })), (this.below = el("section")));
    this.top.replaceChildren(...[].concat(
      el("div", {}, el("div", { class: "title" }, el("h2", { title: this.opened.image.source }, shortName(this.opened.image.source)), el("span", { class: "hint" }, `${count(at + 1)} of ${count(found.keys.length)}${found.complete === false ? " so far" : ""}`)), el("div", { class: "meter" }, el("progress", { max: found.keys.length, value: at })), el("p", { class: "hint", id: "state" }, this.state || (this.work.finished ? "finished" : this.opened.saved_by ? `last saved by ${this.opened.saved_by}` : this.blank ? "from an empty picture" : ""))),
      notes(this),
      el("div", { class: "buttons" }, el("button", { class: "button main", title: "Everything to be found is there (Shift Enter)", onclick: () => this.finish() }, "Finish ", el("kbd", {}, "⇧↵")), el("button", { class: "button", title: "Leave it for later (N)", onclick: () => this.go(1) }, "Next ", el("kbd", {}, "N")), el("button", { class: "button", title: "The picture before (K)", onclick: () => this.go(-1) }, "‹ ", el("kbd", {}, "K")), el("button", { class: "button", title: "All keys (?)", onclick: help }, "?")),
      inHand(this),
    ));
    this.listed();
    $("side").scrollTop = scroll;
  }

  /** Masks of saves beside that none of these is nearly the same as. */
  lacking() {
    const near = (a, b) => { let both = 0; for (let i = 0; i < a.length; i += 2) for (let p = a[i]; p < a[i + 1]; p++) both += holds(b.runs, p); return both / (b.area + sum(a) - both) > 0.8; };
    const sum = (runs) => { let area = 0; for (let i = 0; i < runs.length; i += 2) area += runs[i + 1] - runs[i]; return area; };
    return this.opened.beside.flatMap((one) => one.rows).map((row) => ({ runs: runsOf(row.segmentation), label: row.label || "" })).filter((theirs) => !this.work.masks.some((mine) => near(theirs.runs, mine)));
  }

  takeOver() {
    const found = this.lacking();
    const made = found.map((one) => this.work.made({ sources: [], how: "made", ...one }));
    this.work.step([...this.work.masks, ...made], `${plural(made.length, "mask")} taken over`);
    this.opened.beside = [];
    this.side();
  }

  /** The list, made anew only when masks or what is chosen changed: it may be long. */
  listed() {
    const chosen = [...this.view.selected].join();
    if (this.listOf === this.work.masks && this.listChosen === chosen) return;
    [this.listOf, this.listChosen] = [this.work.masks, chosen];
    const scroll = this.below.querySelector(".masks")?.scrollTop || 0;
    this.below.replaceChildren(this.listHead(), this.list());
    if (this.below.querySelector(".masks")) this.below.querySelector(".masks").scrollTop = scroll;
  }

  listHead() {
    const masks = this.work.masks, decided = masks.filter((mask) => mask.how !== "kept").length;
    return el("div", { class: "title" }, el("h2", {}, plural(masks.length, "mask")), el("span", { class: "hint" }, `${count(decided)} decided`));
  }

  list() {
    const masks = this.work.masks;
    if (!masks.length) return el("p", { class: "hint" }, "None yet. Click an object in the picture.");
    const rows = [...masks].sort((a, b) => b.area - a.area).slice(0, 400).map((mask) => {
      const dot = el("span", { class: "dot" });
      dot.style.background = `rgb(${colourOf(mask.place)})`;
      return el("button", { class: this.view.selected.has(mask.id) ? "on" : "", onclick: (event) => { const more = event.shiftKey ? [...this.view.selected, mask.id] : [mask.id]; this.drawing.choose(more); }, onpointerenter: () => { this.view.hovered = mask; this.view.draw(); }, onpointerleave: () => { this.view.hovered = null; this.view.draw(); } }, dot, el("span", { class: "what" }, mask.label || wordOf(mask.row || {}) || "mask", " ", el("span", { class: "soft" }, `${count(mask.area)} px`)), el("span", { class: mask.how === "kept" ? "how" : "how person" }, STATES[mask.how][0]));
    });
    return el("div", { class: "masks" }, rows);
  }
}

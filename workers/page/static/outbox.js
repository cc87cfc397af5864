// What is on its way to the dataset, kept in this browser until the server has it: a page may be closed, may crash, or
// outlive its server. What is left is sent when the page is opened again; a save that comes twice is kept once.

import { $, el, plural, post, say } from "./api.js";

const PREFIX = "unsent/";
const MOST_ALIVE = 60000; // bytes that a browser still sends for a page that is gone
const works = new Set(); // pictures that were opened, until all of them is kept
const failing = new Map(); // name of a save here -> why it is not kept
let about = {}; // {root, identity} of the dataset

const nameOf = (sent) => `${PREFIX}${about.identity}/${sent.key}/${sent.sitting.name}`;
const read = (name) => { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } };

export const watch = (work) => works.add(work);

/** A picture was closed: its work is forgotten here once all of it is kept. */
export const close = (work) => { work.closed = true; if (!work.pending) works.delete(work); };

/** Before it is sent. False where the browser has no room: then closing the page asks. */
export function hold(sent) {
  try { localStorage.setItem(nameOf(sent), JSON.stringify({ root: about.root, sent })); return true; } catch { return false; }
}

export function kept(sent) {
  const name = nameOf(sent), here = read(name);
  if (!here || here.sent.sitting.number <= sent.sitting.number) localStorage.removeItem(name);
  failing.delete(name);
  for (const work of works) if (work.closed && !work.pending) works.delete(work);
  tell();
}

export function failed(sent, why) {
  failing.set(nameOf(sent), why);
  tell();
}

/** Sends what an earlier page could not; to where the dataset was moved, or to a copy of it, only when told to. */
export async function deliver(to = about, isTold = false) {
  about = to;
  const live = new Set([...works].map((work) => work.sitting.name));
  let done = 0;
  for (const name of Object.keys(localStorage).filter((one) => one.startsWith(`${PREFIX}${about.identity}/`))) {
    const { root, sent } = read(name) || {};
    if (!sent || live.has(sent.sitting.name)) continue;
    try {
      if (root !== about.root && !isTold) throw new Error(`it was made at ${root}, and this dataset is at ${about.root}`);
      await post("api/review/save", sent);
      kept(sent);
      done++;
    } catch (error) { failed(sent, error.message); }
  }
  if (done) say(`${plural(done, "picture")} that had not been saved ${done === 1 ? "is" : "are"} saved now.`);
  tell();
}

/** A line under the bar for as long as something is not kept. */
function tell() {
  const place = $("unsent"), [why] = new Set(failing.values());
  place.hidden = !failing.size;
  if (!failing.size) return;
  const again = el("button", { class: "button", onclick: () => { for (const work of works) if (work.pending) work.save(); deliver(about, true); } }, "Save now");
  const file = el("a", { class: "button", download: "unsaved.json", href: "#", onclick: () => { file.href = URL.createObjectURL(new Blob([JSON.stringify([...failing.keys()].map(read), null, 1)], { type: "application/json" })); } }, "Download");
  place.replaceChildren(el("span", {}, el("b", {}, `${plural(failing.size, "picture")} not saved yet`), `: ${why}. Nothing is lost: your work waits in this browser.`), again, file);
}

/** The page may go now: everything is put where it outlasts it, and sent. True where that is not sure. */
function leaving() {
  let unsure = false;
  for (const work of works) {
    if (!work.pending) continue;
    const sent = work.compose(), size = JSON.stringify(sent).length;
    if (!hold(sent)) unsure = true;
    if (size < MOST_ALIVE) post("api/review/save", sent, true).then(() => kept(sent)).catch(() => {}); else unsure = true;
  }
  return unsure || failing.size > 0;
}

addEventListener("beforeunload", (event) => { if (leaving()) event.preventDefault(); });
addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") for (const work of works) if (work.pending) work.save(); });

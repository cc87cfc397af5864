// What is in a reviewer's hand, at the side: a mask that is being made, those that are chosen, or what comes next; and who
// else works on the picture.

import { count, el, plural, score } from "./api.js";
import { TOOLS } from "./drawing.js";
import { facts, wordOf } from "./picture.js";

export const words = new Set(JSON.parse(localStorage.getItem("labels") || "[]"));
const WAITING = "asking the segmenter…", FIRST_WAITING = `${WAITING} its first answer takes a while: it is being loaded`;
export const STATES = { kept: ["undecided", "An automatic mask"], confirmed: ["accepted", "An accepted mask"], made: ["yours", "A mask you made"] };

let hasAnswered = false; // the segmenter, since this page was opened

/** What is being made, or what is chosen, with what can be done to it. */
export function inHand(page) {
  const { draft, chosen, corners, tool } = page.drawing;
  if (draft) {
    const clicks = plural(draft.points.length, "click");
    if (!draft.waiting) hasAnswered = true;
    const how = draft.waiting ? (hasAnswered ? WAITING : FIRST_WAITING) : draft.drawn ? "drawn by hand" : `${draft.box ? "a box" : clicks}${draft.box && draft.points.length ? ` and ${clicks}` : ""} · predicted IoU ${score(draft.iou)}`;
    const other = draft.outputs > 1 && draft.points.length === 1 && !draft.box;
    return el("section", { id: "draft" }, el("h2", {}, draft.target != null ? "Correcting a mask" : "A new mask"), el("p", { class: "hint" }, how), el("div", { class: "buttons" }, el("button", { class: "button main", disabled: Boolean(draft.waiting), onclick: () => page.accept() }, "Accept ", el("kbd", {}, "A")), other ? el("button", { class: "button", title: "The next of the model's three answers (O)", onclick: () => page.drawing.other() }, "Other ", el("kbd", {}, "O")) : "", el("button", { class: "button danger", onclick: () => page.reject() }, "Drop ", el("kbd", {}, "X"))), draft.drawn ? el("p", { class: "hint" }, "Go on painting, or accept it.") : nextClick(page));
  }
  if (corners.length) return el("section", {}, el("h2", {}, "A polygon"), el("p", { class: "hint" }, `${plural(corners.length, "corner")}. Enter closes it, Backspace takes the last one back.`));
  if (!chosen.length) return steps(page, tool);
  const options = el("datalist", { id: "words" }, [...new Set([...words, ...page.work.masks.map((mask) => mask.label)])].filter(Boolean).sort().map((word) => el("option", { value: word })));
  const same = chosen.every((mask) => mask.label === chosen[0].label);
  const field = el("input", { class: "field", name: "label", list: "words", autocomplete: "off", maxlength: 200, placeholder: "Label", value: same ? chosen[0].label : "", onkeydown: (event) => { if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); event.key === "Escape" ? (field.value = same ? chosen[0].label : "") : null; field.blur(); } }, onblur: () => { page.setLabel(field.value); setTimeout(() => page.side()); } });
  const [one] = chosen, row = one.row || {};
  const numbers = [["area", `${count(one.area)} px`], ...(row.predicted_iou != null && one.how !== "made" ? [["predicted IoU", score(row.predicted_iou)], ["stability", score(row.stability_score)]] : []), ...(wordOf(row) && !one.label ? [["the model calls it", wordOf(row)]] : [])];
  const alone = chosen.length === 1;
  const doers = [
    alone ? el("button", { class: "button main", onclick: () => page.accept() }, "Accept ", el("kbd", {}, "A")) : el("button", { class: "button main", onclick: () => page.merge() }, "Merge ", el("kbd", {}, "M")),
    el("button", { class: "button danger", onclick: () => page.reject() }, "Reject ", el("kbd", {}, "X")),
    alone && el("button", { class: "button", title: "Into its pieces (S)", onclick: () => page.split() }, "Split ", el("kbd", {}, "S")),
    alone && el("button", { class: "button", title: "Fill its holes (F)", onclick: () => page.fill() }, "Fill ", el("kbd", {}, "F")),
  ];
  return el("section", { id: "chosen" }, el("h2", {}, alone ? STATES[one.how][1] : `${count(chosen.length)} masks chosen`), el("div", { class: "buttons" }, doers), alone && tool === "click" ? el("p", { class: "hint" }, "Click to correct this mask; Esc to begin a new one.") : "", field, options, alone ? facts(numbers) : "");
}

/** What the next click means; shift turns it round for one click. */
function nextClick(page) {
  const button = (words, takes, sign) => el("button", { class: page.drawing.takes === takes ? "on" : "", "aria-pressed": String(page.drawing.takes === takes), title: "Turns what a click means (T)", onclick: () => turn(page, takes) }, el("span", { class: takes ? "dot less" : "dot more" }), sign);
  return el("div", { class: "next" }, el("p", { class: "hint" }, "The next click says: this is"), el("div", { class: "switch", role: "group" }, button("", false, "missing"), button("", true, ["too much ", el("kbd", {}, "⇧")])));
}

/** The next clicks say "too much" instead of "missing", or again the other way. */
export function turn(page, takes = !page.drawing.takes) {
  page.drawing.takes = takes;
  page.side();
}

/** Nothing is in hand: what the tool does, and how a picture is done. */
function steps(page, tool) {
  const left = page.work.masks.filter((mask) => mask.how === "kept").length;
  const look = el("button", { class: "button", disabled: !left, onclick: () => page.next() }, left ? `Look at the next of ${count(left)} ` : "All are decided ", el("kbd", {}, "Tab"));
  const add = el("button", { class: "button", onclick: () => page.use("click") }, "Add what is missing ", el("kbd", {}, "C"));
  return el("section", {}, el("p", { class: "hint" }, TOOLS.find(([name]) => name === tool)[3] + "."), el("div", { class: "buttons" }, look, add));
}

/** Who else works on the picture, and what they saved. */
export function notes(page) {
  const notes = [];
  if (page.opened.others.length) notes.push(el("p", { class: "note" }, `${page.opened.others.map((one) => one.who).join(", ")} ${page.opened.others.length > 1 ? "have" : "has"} this picture open too. Both of you can save; nothing is lost.`));
  const both = el("a", { class: "button", href: `#/review/${page.key}?both=1` }, "See both");
  if (page.opened.raced) notes.push(el("div", { class: "note bad" }, `${page.opened.raced} saved this picture since you opened it. Theirs counts for now; yours is kept beside it. `, both));
  else if (page.opened.beside.length && !page.opened.beside[0].rows.length) notes.push(el("div", { class: "note bad" }, `${page.opened.beside.map((one) => one.who).join(", ")} saved this picture too, beside this. `, both));
  else if (page.opened.beside.length) notes.push(el("div", { class: "note" }, `Also saved by ${page.opened.beside.map((one) => one.who).join(", ")}. Take over what is right; what you save then counts for all. `, el("button", { class: "button", onclick: () => page.takeOver() }, `Add ${plural(page.lacking().length, "mask")} of theirs`)));
  return notes;
}

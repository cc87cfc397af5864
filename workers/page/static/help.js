// What each key does, in a dialog.

import { $, el } from "./api.js";
import { TOOLS } from "./drawing.js";

const KEYS = [
  ["Decide", [["A", "accept the chosen mask, or what is being made"], ["X", "reject the chosen masks, or drop what is being made"], ["Tab", "the next undecided mask"], ["⇧ Enter", "finish: everything to be found is there"], ["N  K", "the next picture, the one before"]]],
  ["Make", [...TOOLS.map(([, words, letter, title]) => [letter.toUpperCase(), `${words.toLowerCase()}: ${title[0].toLowerCase()}${title.slice(1)}`]), ["⇧ click", "this is too much: less of it"], ["T", "the next clicks say what is too much, or what is missing"], ["O", "the next of the three answers to a first click"]]],
  ["Change", [["M", "merge the chosen masks"], ["S", "split the chosen mask into its pieces"], ["F", "fill its holes"], ["L", "label it"], ["Z  Y", "take back, do again, without end"]]],
  ["Look", [["H", "hide the masks"], ["I", "outlines alone"], ["U", "show where no mask is; where only looking, as ⇧ U"], ["⇧ U", "what a verifier holds for unexplained, where one was asked"], ["+  −  0", "nearer, further, the whole picture; the wheel too"], ["Space", "hold and drag to move the picture"]]],
];

/** All keys, in a dialog. */
export function help() {
  const dialog = $("help");
  dialog.replaceChildren(el("h2", {}, "Keys"), el("div", { class: "columns" }, KEYS.map(([title, rows]) => el("div", {}, el("b", {}, title), el("dl", { class: "keys" }, rows.flatMap(([key, means]) => [el("dt", {}, key.split("  ").map((one) => [el("kbd", {}, one), " "])), el("dd", {}, means)]))))), el("div", { class: "buttons" }, el("button", { class: "button main", onclick: () => dialog.close() }, "Close")));
  dialog.showModal();
}

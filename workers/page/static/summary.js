// How reviewing goes, and what is left.

import { $, count, el, get, plural } from "./api.js";

const WORDS = { kept: "left alone", confirmed: "accepted", changed: "corrected", added: "added", merged: "merged", split: "split", rejected: "rejected" };
const time = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);
const rate = (value) => (value == null ? "–" : count(Math.round(value)));

export async function show() {
  const found = await get("api/review/summary"), { total } = found;
  const tile = (name, value, small) => el("div", {}, el("dt", {}, name), el("dd", {}, value), el("small", {}, small));
  $("summary").replaceChildren(
    el("dl", { class: "tiles" },
      tile("Finished", count(found.finished), `of ${plural(found.images, "picture")}`),
      tile("Left", count(found.left), found.begun ? `${count(found.begun)} of them begun` : "none of them begun"),
      tile("Masks decided", count(total.masks), `${plural(total.clicks, "click")}, ${time(total.seconds)} of work`),
      tile("Masks an hour", rate(total.masks_an_hour), "idle time left out")),
    el("h2", {}, "By what became of a mask"),
    total.fates.length ? sheet(["", "Masks", "Seconds a mask"], total.fates.map((one) => [WORDS[one.how] || one.how, count(one.masks), one.seconds_a_mask == null ? "–" : one.seconds_a_mask.toFixed(1)])) : el("p", { class: "hint" }, "Nobody has reviewed a picture of this dataset yet."),
    ...(found.people.length ? [el("h2", {}, "By person"), sheet(["", "Pictures", "Finished", "Masks", "Work", "Masks an hour"], found.people.map((one) => [one.who, count(one.pictures), count(one.finished), count(one.masks), time(one.seconds), rate(one.masks_an_hour)]))] : []),
    ...(found.agreement?.length ? [el("h2", {}, "Agreement"), sheet(["", "Pictures", "Matched", "Mean IoU of matched"], found.agreement.map((one) => [one.people.join(" and "), count(one.pictures), `${(100 * one.matched).toFixed(0)} %`, one.mean_iou == null ? "–" : one.mean_iou.toFixed(3)]))] : []),
    ...(found.open.length ? [el("h2", {}, "Open now"), sheet(["", "Picture", "Seconds ago"], found.open.map((one) => [one.who, el("a", { href: `#/picture/${one.key}` }, one.key), count(Math.round(one.age_s))]))] : []),
  );
}

function sheet(heads, rows) {
  const cells = (row, tag) => row.map((value, i) => el(tag, { class: i ? "n" : "" }, value));
  return el("div", { class: "sheet" }, el("table", {}, el("thead", {}, el("tr", {}, cells(heads, "th"))), el("tbody", {}, rows.map((row) => el("tr", {}, cells(row, "td"))))));
}

// One picture: its masks under the cursor, their numbers, and what made each column.

import { $, count, el, get, plural, score, shortName } from "./api.js";
import { runsOf } from "./rle.js";
import { View, colourOf, heatOf } from "./view.js";

export async function show(about, key, query) {
  const values = Object.fromEntries(query);
  $("tools").replaceChildren();
  $("side").replaceChildren(el("p", { class: "hint" }, "loading…"));
  const record = await get(`api/pictures/${encodeURIComponent(key)}`);
  const masks = masksOf(record);
  const state = { record, masks, chosen: null, values };
  const view = new View($("canvas"), { hover: (mask, event) => tip(view, mask, event), up: (at) => choose(view, state, view.smallest(at)) }, roof);
  $("canvas").className = "select";
  tools(view, state);
  side(view, state);
  await view.show(`api/pictures/${key}/image.jpg`, record.image.width, record.image.height);
  view.setMasks(masks);
  document.body.dataset.ready = key;
  $("canvas").focus({ preventScroll: true });
  const keys = (event) => pressed(event, view, state);
  addEventListener("keydown", keys);
  window.maskmill = { view, state };
  return () => {
    removeEventListener("keydown", keys);
    delete document.body.dataset.ready;
    $("tip").className = "";
    view.close();
  };
}

/** The height under the tools, which a picture that fits leaves free. */
export const roof = () => $("tools").offsetHeight + 20;

/** A record's annotations as masks of the view. */
export function masksOf(record) {
  return record.annotations.map((row, place) => ({
    id: row.id ?? place, place, runs: runsOf(row.segmentation), area: row.area, row, label: wordOf(row),
  }));
}

/** What a mask is called: its own label, else the best label or name. */
export function wordOf(row) {
  return row.label || row.labels?.[0]?.label || row.names?.[0]?.name || "";
}

export function tip(view, mask, event) {
  const place = $("tip");
  if (!mask || !event) { place.className = ""; return; }
  const row = mask.row || {}, parts = [mask.label || wordOf(row), row.predicted_iou == null ? "" : `IoU ${score(row.predicted_iou)}`, row.stability_score == null ? "" : `stability ${score(row.stability_score)}`, row.expected_iou == null ? "" : `expected ${score(row.expected_iou)}`, `${count(mask.area)} px`];
  place.textContent = parts.filter(Boolean).join(" · ");
  const box = $("stage").getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  place.style.left = `${Math.min(x + 14, box.width - place.offsetWidth - 6)}px`;
  place.style.top = `${Math.min(y + 16, box.height - place.offsetHeight - 6)}px`;
  place.className = "shown";
}

function choose(view, state, mask) {
  state.chosen = mask && state.chosen !== mask ? mask : null;
  view.selected = new Set(state.chosen ? [state.chosen.id] : []);
  view.draw();
  side(view, state);
}

function tools(view, state) {
  const back = new URLSearchParams(state.values).toString();
  const fills = el("button", { title: "Masks filled, or outlines alone (F)", onclick: () => { view.fills = !view.fills; view.layer = null; view.draw(); fills.classList.toggle("on", view.fills); } }, "Fill ", el("kbd", {}, "F"));
  fills.className = "on";
  const bare = el("button", { title: "The picture alone (H)", onclick: () => { view.bare = !view.bare; view.draw(); bare.classList.toggle("on", view.bare); } }, "Hide ", el("kbd", {}, "H"));
  state.buttons = { f: fills, h: bare };
  const heat = heatSwitch(view, state.record.verdict, "U");
  if (heat) state.buttons.u = heat.button;
  $("tools").replaceChildren(
    el("div", { class: "group" }, el("button", { title: "Back to the grid (Esc)", onclick: () => (location.hash = `#/browse${back ? `?${back}` : ""}`) }, "‹ Back")),
    el("div", { class: "group" }, fills, bare, heat?.button || ""),
    el("div", { class: "group" }, el("button", { title: "Nearer (+)", onclick: () => view.zoom(1.4) }, "+"), el("button", { title: "Further (−)", onclick: () => view.zoom(1 / 1.4) }, "−"), el("button", { title: "The whole picture (0)", onclick: () => view.fit() }, "Fit")),
    heat?.legend || "",
  );
}

/** The button and the legend of what a verdict holds for unexplained: {button, legend}; null where it has no map. */
export function heatSwitch(view, verdict, letter) {
  const map = verdict?.unexplained;
  if (!map) return null;
  const legend = el("div", { class: "legend", hidden: true }, "explained ", el("i", {}), " something without a mask");
  const turn = () => {
    view.heat = view.heat ? null : heatOf(map);
    view.draw();
    button.classList.toggle("on", !!view.heat);
    button.setAttribute("aria-pressed", String(!!view.heat));
    legend.hidden = !view.heat;
    view.canvas.focus({ preventScroll: true });
  };
  const button = el("button", { title: `Where something may lie without a mask, by the verifier of the automatic masks (${letter})`, "aria-pressed": "false", onclick: turn }, "Unexplained ", el("kbd", {}, letter));
  return { button, legend };
}

function pressed(event, view, state) {
  if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const doers = { f: () => state.buttons.f.click(), h: () => state.buttons.h.click(), ...(state.buttons.u ? { u: () => state.buttons.u.click() } : {}), "+": () => view.zoom(1.4), "=": () => view.zoom(1.4), "-": () => view.zoom(1 / 1.4), 0: () => view.fit(), Escape: () => (state.chosen ? choose(view, state, null) : $("tools").querySelector("button").click()) };
  if (doers[event.key]) { event.preventDefault(); doers[event.key](); }
}

function side(view, state) {
  const { record, masks, chosen } = state, image = record.image;
  $("side").replaceChildren(
    el("div", {}, el("div", { class: "title" }, el("h2", { title: image.source }, shortName(image.source)), el("a", { class: "button", href: `#/review/${record.key}` }, "Review")), image.caption ? el("p", { class: "hint" }, image.caption) : ""),
    chosen ? chosenPart(view, state) : "",
    el("section", {}, el("h2", {}, plural(masks.length, "mask"), record.by === "people" ? ", as reviewed" : ""), masks.length ? list(view, masks, chosen, (mask) => choose(view, state, mask)) : el("p", { class: "hint" }, "This picture has no masks.")),
    el("section", {}, el("h2", {}, "Picture"), facts([["key", record.key], ["size", `${count(image.width)} × ${count(image.height)} px`], ["source", image.source], ...verdict(record.verdict)])),
    el("section", {}, el("h2", {}, "Columns"), ...record.columns.map(column)),
  );
}

/** What a verifier says of the picture as a whole, as facts. */
function verdict(found) {
  if (found?.share_found == null) return [];
  return [["share found", `${score(found.share_found)} of its objects, expected${found.calibrated ? "" : " (by a verifier of another model)"}`]];
}

/** Masks as rows: the largest first, parts under their wholes. */
export function list(view, masks, chosen, onchoose) {
  const byParent = new Map();
  const known = new Set(masks.map((mask) => mask.id));
  for (const mask of masks) {
    const parent = known.has(mask.row?.parent) ? mask.row.parent : null;
    if (!byParent.has(parent)) byParent.set(parent, []);
    byParent.get(parent).push(mask);
  }
  const rows = [];
  const add = (parent, depth) => {
    for (const mask of (byParent.get(parent) || []).sort((a, b) => b.area - a.area)) {
      rows.push([mask, depth]);
      if (depth < 12) add(mask.id, depth + 1);
    }
  };
  add(null, 0);
  const shown = rows.slice(0, 400).map(([mask, depth]) => {
    const dot = el("span", { class: "dot" });
    dot.style.background = `rgb(${colourOf(mask.place)})`;
    dot.style.marginLeft = `${Math.min(depth, 4) * 10}px`;
    const row = mask.row || {};
    return el("button", { class: chosen === mask ? "on" : "", onclick: () => onchoose(mask), onpointerenter: () => { view.hovered = mask; view.draw(); }, onpointerleave: () => { view.hovered = null; view.draw(); } }, dot, el("span", { class: "what" }, mask.label || wordOf(row) || (depth ? "part" : "mask")), el("span", { class: "how" }, `${score(row.predicted_iou)} · ${count(mask.area)} px`));
  });
  return el("div", { class: "masks" }, shown, rows.length > 400 ? el("p", { class: "hint" }, `and ${count(rows.length - 400)} more: point at them in the picture`) : "");
}

function chosenPart(view, state) {
  const { chosen } = state, row = chosen.row;
  const points = (row.point_coords || []).map(([x, y]) => `${x.toFixed(1)}, ${y.toFixed(1)}`).join("; ");
  const rows = [["id", row.id], ["called", chosen.label || null], ["predicted IoU", score(row.predicted_iou)], ["stability", score(row.stability_score)], ["expected IoU", row.expected_iou == null ? null : score(row.expected_iou)], ["chance that it is right", row.p_right == null ? null : score(row.p_right)], ["area", `${count(row.area)} px`], ["box", (row.bbox || []).map((one) => Math.round(one)).join(", ")], ["prompt", points], ["output", row.output_token], ["inside of", row.parent], ["made by", row.made_by], ["caption", row.caption], ["labels", (row.labels || []).map((one) => `${one.label} ${score(one.score)}`).join(", ")], ["names", (row.names || []).slice(0, 4).map((one) => `${one.name} ${score(one.score)}`).join(", ")]];
  return el("section", {}, el("h2", {}, "The chosen mask"), facts(rows.filter(([, value]) => value != null && value !== "")));
}

export function facts(rows) {
  return el("dl", { class: "facts" }, rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

function column(one) {
  const state = one.rejected ? ` — rejected: ${one.rejected.reason}` : "";
  const rows = [["made", one.made], ["fingerprint", one.fingerprint], ...Object.entries(one.models)];
  if (one.rejected?.detail) rows.push(["why", one.rejected.detail]);
  return el("details", { class: "column" }, el("summary", {}, el("b", {}, one.column), state), facts(rows), one.says ? el("pre", {}, one.says) : "");
}

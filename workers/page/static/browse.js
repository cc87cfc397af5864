// The grid: filters make the address, the address makes a search, pages come as they are scrolled to.

import { $, count, el, get, plural, post, score, shortName } from "./api.js";

const PAGE = 60;
const RANGES = [["iou", "Predicted IoU", "0.01"], ["stability", "Stability", "0.01"], ["area_px", "Area, px", "1"]];
const NUMBERS = RANGES.flatMap(([name]) => [`min_${name}`, `max_${name}`]);
const NAMES = [...NUMBERS, "level", "label", "text", "reject", "made_by", "where", "since", "change", "chosen", "sort", "seed"];

let asked = null;
let scrolled = { query: "", top: 0 };

export async function show(about, _, query) {
  const values = Object.fromEntries([...query].filter(([name]) => NAMES.includes(name)));
  draw(about, values);
  asked?.abort();
  asked = new AbortController();
  const grid = $("grid");
  grid.replaceChildren();
  const state = { about, values, offset: 0, busy: false, done: false, signal: asked.signal };
  const watch = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(state), { root: $("browse"), rootMargin: "600px" });
  state.again = () => { watch.unobserve($("more")); watch.observe($("more")); };
  await more(state);
  const key = query.toString();
  if (scrolled.query === key) {
    while (!state.done && grid.scrollHeight < scrolled.top + innerHeight) await more(state);
    $("browse").scrollTop = scrolled.top;
  }
  watch.observe($("more"));
  return () => {
    scrolled = { query: key, top: $("browse").scrollTop };
    watch.disconnect();
    asked.abort();
  };
}

/** Asks the next page, and shows how far the search is. */
async function more(state) {
  if (state.busy || state.done) return;
  state.busy = true;
  try {
    const page = await get("api/pictures", { ...state.values, offset: state.offset, limit: PAGE }, state.signal);
    const sorted = (state.values.sort || "key") !== "key";
    $("grid").append(...page.pictures.map((one) => card(one, state.values)));
    state.offset += page.pictures.length;
    state.done = page.complete && state.offset >= page.found;
    tell(page, state, sorted);
    if (page.complete && !page.found) $("grid").replaceChildren(el("p", { class: "empty" }, "No picture fits these filters."));
    if (!state.done && !page.complete && (sorted || !page.pictures.length)) setTimeout(() => refresh(state, sorted), 700);
    else if (!state.done && state.again) state.again();
  } catch (error) {
    if (error.name === "AbortError") return;
    state.done = true;
    $("found").replaceChildren(el("span", { class: "bad" }, error.message));
  } finally {
    state.busy = false;
  }
}

/** A search still runs: a sorted page is asked anew from its start, another goes on. */
function refresh(state, sorted) {
  if (state.signal.aborted) return;
  if (sorted && state.offset <= PAGE) {
    state.offset = 0;
    state.busy = true;
    get("api/pictures", { ...state.values, offset: 0, limit: PAGE }, state.signal).then((page) => {
      $("grid").replaceChildren(...page.pictures.map((one) => card(one, state.values)));
      state.offset = page.pictures.length;
      state.done = page.complete && state.offset >= page.found;
      tell(page, state, sorted);
      if (!page.complete) setTimeout(() => refresh(state, sorted), 700);
      else state.again();
    }).catch(() => {}).finally(() => (state.busy = false));
  } else more(state);
}

function tell(page, state, sorted) {
  const filtered = NAMES.some((name) => !["sort", "seed"].includes(name) && state.values[name]);
  const words = page.complete ? [el("b", {}, plural(page.found, "picture"))] : [el("b", {}, `${count(page.found)} pictures`), ` so far, ${Math.floor(page.searched * 100)} % searched`];
  const line = [el("span", {}, ...words, sorted && !page.complete ? "; the order is of these" : "")];
  if (page.found) line.push(el("a", { class: "button", href: `#/review?${new URLSearchParams(state.values)}` }, filtered ? "Review these" : "Review"), el("button", { class: "button", type: "button", onclick: () => choose(state) }, "Save as a set"));
  $("found").replaceChildren(...line);
}

/** Asks a name for what was found, keeps it, and says what can be done with it. */
function choose(state) {
  const name = el("input", { class: "field", name: "set", required: true, pattern: "[a-z0-9][a-z0-9._\\-]{0,62}", placeholder: "such as small-dogs", "aria-label": "Name of the set" });
  const told = el("p", { class: "hint" }, "All pictures that are found, by their keys: the set stays the same while masks change.");
  const keep = el("button", { class: "button main" }, "Save");
  const form = el("form", {}, el("h2", {}, "Save as a set"), told, name, el("div", { class: "buttons" }, keep, el("button", { class: "button", type: "button", onclick: () => $("ask").close() }, "Close")));
  form.onsubmit = async (event) => {
    event.preventDefault();
    keep.disabled = true;
    told.replaceChildren("saving: the whole search is waited for…");
    try {
      const filters = numbers(state.values);
      const kept = await post("api/sets", { name: name.value.trim(), who: $("person").value.trim() || "somebody", filters });
      if (!state.about.sets.includes(kept.name)) state.about.sets.push(kept.name);
      draw(state.about, state.values);
      const commands = [["export them", `maskmill export ${state.about.root} OUT --only ${kept.name}`], ["make their masks anew", `maskmill relabel ${state.about.root} --only ${kept.name}`]];
      form.replaceChildren(el("h2", {}, `${plural(kept.pictures, "picture")} in ${kept.name}`), ...commands.map(([what, command]) => el("p", { class: "hint" }, `${what}: `, el("code", {}, command))), el("div", { class: "buttons" }, el("a", { class: "button main", href: `#/review?chosen=${kept.name}` }, "Review them"), el("a", { class: "button", href: `#/browse?chosen=${kept.name}` }, "Show them"), el("button", { class: "button", type: "button", onclick: () => $("ask").close() }, "Close")));
    } catch (error) {
      keep.disabled = false;
      told.replaceChildren(el("span", { class: "bad" }, error.message));
    }
  };
  $("ask").replaceChildren(form);
  $("ask").showModal();
}

function card(one, values) {
  const query = new URLSearchParams(values).toString();
  const image = el("img", { loading: "lazy", decoding: "async", alt: "", src: `api/pictures/${one.key}/thumb.jpg?side=360` });
  image.addEventListener("error", () => image.classList.add("broken"));
  const masks = one.matching !== one.masks ? `${count(one.matching)} of ${plural(one.masks, "mask")}` : plural(one.masks, "mask");
  const state = one.reject ? el("span", { class: "bad", title: "why a column has nothing of it" }, one.reject) : one.review ? el("span", { class: "done" }, one.review) : el("span", { title: one.min_iou == null ? "" : `lowest predicted IoU ${score(one.min_iou)}, lowest stability ${score(one.min_stability)}` }, masks);
  return el("a", { class: "card", href: `#/picture/${one.key}${query ? `?${query}` : ""}`, "data-key": one.key }, el("span", { class: "picture" }, image), el("span", { class: "line" }, el("b", { title: `${one.source} · ${one.key}` }, shortName(one.source)), state));
}

/** The form of filters; every change is a new address. */
function draw(about, values) {
  const form = $("filters");
  const open = form.querySelector("details[open]")?.dataset.name;
  const focus = document.activeElement?.name;
  const go = () => {
    const found = new URLSearchParams();
    for (const name of NAMES) {
      const value = (form.elements[name]?.value ?? "").trim();
      if (value && !(name === "sort" && value === "key")) found.set(name, value);
    }
    if (found.get("sort") === "random" && !found.get("seed")) found.set("seed", String(1 + Math.floor(Math.random() * 1e6)));
    if (found.get("sort") !== "random") found.delete("seed");
    if (!found.get("since")) found.delete("change");
    location.hash = `#/browse${found.size ? `?${found}` : ""}`;
  };
  const input = (name, attributes = {}) => el("input", { class: "field", name, value: values[name] || "", onchange: go, ...attributes });
  const select = (name, options, attributes = {}) => {
    const made = el("select", { class: "field", name, onchange: go, ...attributes }, options.map(([value, words]) => el("option", { value }, words)));
    made.value = values[name] || options[0][0];
    return made;
  };
  const panel = (name, words, names, wide, ...content) => {
    const isSet = names.some((one) => values[one]);
    const made = el("details", { class: isSet ? "set" : "", "data-name": name, open: open === name }, el("summary", { class: "button" }, words), el("div", { class: wide ? "panel wide" : "panel" }, ...content));
    made.addEventListener("toggle", () => { if (made.open) for (const other of form.querySelectorAll("details[open]")) if (other !== made) other.open = false; });
    return made;
  };
  const ranges = RANGES.map(([name, words, step]) => el("label", {}, words, el("span", { class: "range" }, input(`min_${name}`, { type: "number", step, placeholder: "at least", "aria-label": `${words}, at least` }), input(`max_${name}`, { type: "number", step, placeholder: "at most", "aria-label": `${words}, at most` }))));
  const reasons = Object.keys(about.rejects || {});
  form.replaceChildren(
    input("text", { class: "field text", type: "search", placeholder: "Caption or file name", "aria-label": "Words of the caption or file name" }),
    input("label", { class: "field", type: "search", placeholder: "Label", "aria-label": "Words of a label", size: 12 }),
    panel("masks", "Masks", [...NUMBERS, "level"], false, ...ranges, el("label", {}, "Level", select("level", [["", "any"], ["whole", "whole: inside no other mask"], ["part", "part of another mask"]]))),
    panel("whom", "People and rejects", ["made_by", "reject"], false, el("label", {}, "Made by", select("made_by", [["", "anyone"], ["person", "a person"], ["oracle", "the oracle"], ["automatic", "the model alone"]])), el("label", {}, "Rejected", select("reject", [["", "or not"], ["any", "for any reason"], ...reasons.map((one) => [one, `${one} (${about.rejects[one]})`])]))),
    panel("changes", "Changes and sets", ["since", "change", "chosen"], false, el("label", {}, "Masks that differ from generation", select("since", [["", "no other"], ...Object.keys(about.tags).map((one) => [one, `${one} (${about.tags[one]})`]), ...[...about.generations].reverse().map((one) => [String(one), String(one)])])), el("label", {}, "What differs", select("change", [["", "anything"], ["new", "masks that are new"], ["gone", "masks that are gone"], ["changed", "outlines that changed"]], { disabled: !values.since })), el("label", {}, "Saved set", select("chosen", [["", "all pictures"], ...about.sets.map((one) => [one, one])]))),
    panel("sql", "SQL", ["where"], true, el("label", {}, "Pictures with a mask for which this is true", el("textarea", { class: "field", name: "where", spellcheck: false, placeholder: "area_px > 5000 and predicted_iou < 0.9", onchange: go, onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) go(); } }, values.where || "")), el("p", { class: "hint" }, "Fields: those of masks and images in ", el("code", {}, "maskmill query"), ". It reads this dataset and nothing else."), el("div", { class: "buttons" }, el("button", { class: "button main", type: "button", onclick: go }, "Search"))),
    select("sort", about.sorts.map((one) => [one, one === "key" ? "in order" : one]), { "aria-label": "Order" }),
    el("input", { type: "hidden", name: "seed", value: values.seed || "" }),
    ...(NAMES.some((name) => values[name]) ? [el("a", { class: "button", href: "#/browse" }, "Clear")] : []),
  );
  form.onsubmit = (event) => { event.preventDefault(); go(); };
  if (focus && form.elements[focus]) form.elements[focus].focus();
  document.onclick = (event) => { if (!form.contains(event.target)) for (const one of form.querySelectorAll("details[open]")) one.open = false; };
}

/** Values of the address as the server's filters: numbers as numbers. */
export function numbers(values) {
  return Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== "" && !["sort", "seed"].includes(name)).map(([name, value]) => [name, NUMBERS.includes(name) ? Number(value) : value]));
}

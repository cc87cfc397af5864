// Which page is shown: the address behind the # says it, so that every state can be reloaded, and kept as a link.

import { $, get, say } from "./api.js";
import * as browse from "./browse.js";
import * as outbox from "./outbox.js";
import * as picture from "./picture.js";
import * as review from "./review.js";
import * as summary from "./summary.js";

const PAGES = { browse: ["browse", browse], picture: ["work", picture], review: ["work", review], summary: ["summary", summary] };
let left = () => {};

/** #/browse?..., #/picture/KEY, #/review/KEY, #/summary */
async function show(about) {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, key] = path.split("/");
  const [place, page] = PAGES[name] || PAGES.browse;
  await left();
  left = () => {};
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== place;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.dataset.page === (PAGES[name] ? (name === "picture" ? "browse" : name) : "browse");
    link.classList.toggle("here", here);
    here ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  document.body.dataset.page = name || "browse";
  try {
    left = (await page.show(about, key, new URLSearchParams(query))) || (() => {});
  } catch (error) {
    say(error.message, true);
    if (error.status === undefined) throw error;
  }
}

async function start() {
  const about = await get("api/about");
  $("dataset").textContent = about.root.replace(/\/+$/, "").split("/").pop();
  $("dataset").title = about.root;
  $("generation").textContent = `generation ${about.generation}`;
  document.title = `${$("dataset").textContent} · maskmill`;
  const person = $("person");
  person.value = localStorage.getItem("person") || about.person;
  person.addEventListener("change", () => {
    person.value = person.value.trim() || about.person;
    localStorage.setItem("person", person.value);
  });
  person.addEventListener("keydown", (event) => { if (event.key === "Enter") person.blur(); });
  await outbox.deliver(about);
  let showing = Promise.resolve();
  const next = () => (showing = showing.then(() => show(about)));
  addEventListener("hashchange", next);
  next();
}

start().catch((error) => say(error.message, true));

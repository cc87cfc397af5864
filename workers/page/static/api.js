// Asking the server. Addresses are relative to the page's own, which holds the token.

export class Refused extends Error {
  constructor(words, status) { super(words); this.status = status; }
}

async function answered(response) {
  if (response.ok) return response.json();
  let words = `the server answered ${response.status}`;
  if (response.status === 403) throw new Refused("this page is of a server that has ended: open the address that `maskmill browse` printed last", 0);
  try { words = (await response.json()).error || words; } catch { /* not JSON */ }
  throw new Refused(words, response.status);
}

async function asked(path, options) {
  try {
    return await answered(await fetch(path, options));
  } catch (error) {
    if (error instanceof Refused || error.name === "AbortError") throw error;
    throw new Refused("the server does not answer: is `maskmill browse` still running?", 0);
  }
}

/** GET with what is set of `values` as query. */
export function get(path, values = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "" && value != null));
  return asked(query.size ? `${path}?${query}` : path, { signal });
}

/** POST; `alive` where the page may be gone before the answer. */
export function post(path, body, alive = false) {
  return asked(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), keepalive: alive });
}

/** An element with attributes, listeners (on...) and children; text is text, never HTML. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return made;
}

export const $ = (id) => document.getElementById(id);
export const count = (value) => Number(value).toLocaleString("en");
export const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;
export const score = (value) => (value == null ? "–" : value.toFixed(3));
export const shortName = (source) => source.replace(/\/+$/, "").split("/").pop() || source;

let timer;
/** A sentence at the foot of the page, for a while. */
export function say(words, isBad = false) {
  const place = $("said");
  place.textContent = words;
  place.className = isBad ? "shown bad" : "shown";
  clearTimeout(timer);
  timer = setTimeout(() => (place.className = ""), isBad ? 8000 : 3500);
}

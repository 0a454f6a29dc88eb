/**
 * The address is the state: `#/jobs?state=failed&as_of=281474976710700`. The part behind `#` never reaches the server,
 * so the dashboard works under any prefix, and no log contains what somebody looked at.
 */
import { computed, signal } from "../vendor/signals.js";

/**
 * @typedef {object} Route
 * @property {string[]} path
 * @property {URLSearchParams} query
 */

export const route = signal(read());
export const asOf = computed(() => route.value.query.get("as_of"));

addEventListener("hashchange", () => {
  route.value = read();
});

/** @returns {Route} */
function read() {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { path: path.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * @typedef {Record<string, string | readonly string[] | null | undefined> | URLSearchParams} Query
 */

/**
 * Return the parameters without those that are null or empty.
 * @param {Query} query
 */
export function parameters(query) {
  if (query instanceof URLSearchParams) return query;
  const made = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of typeof value === "string" ? [value] : (value ?? [])) {
      if (one !== "") made.append(name, one);
    }
  }
  return made;
}

/**
 * Return the address of a page. It shows the same time as the current one unless `query` names another.
 * @param {string} path
 * @param {Query} [query]
 */
export function link(path, query = {}) {
  const made = new URLSearchParams(parameters(query));
  if (asOf.value !== null && !("as_of" in query) && !made.has("as_of")) made.set("as_of", asOf.value);
  const text = made.toString();
  return `#/${path}${text && `?${text}`}`;
}

/**
 * Change parameters of the current page's address; null removes one.
 * @param {Record<string, string | readonly string[] | null>} changes
 * @param {{replace?: boolean}} [options] `replace`: the back button does not return to the address before
 */
export function change(changes, { replace = false } = {}) {
  const query = new URLSearchParams(route.value.query);
  for (const [name, value] of Object.entries(changes)) {
    query.delete(name);
    for (const one of typeof value === "string" ? [value] : (value ?? [])) query.append(name, one);
  }
  const text = query.toString();
  go(`#/${route.value.path.map(encodeURIComponent).join("/")}${text && `?${text}`}`, replace);
}

/**
 * Show the page at the address `to`.
 * @param {string} to
 * @param {boolean} [replace]
 */
export function go(to, replace = false) {
  if (to === location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  route.value = read();
}

/** The address that all requests and links are relative to: the page's own, without `#`. */
export const base = new URL("./", location.href.split("#")[0]);

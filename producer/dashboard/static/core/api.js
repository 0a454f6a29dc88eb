/** Requests to the REST API that serves this page. */
import { signal } from "../vendor/signals.js";
import { parse, stringify } from "./json.js";
import { base, parameters } from "./route.js";

const KEY = "jobtape.key";
const TIME_LIMIT = 30_000; // milliseconds

/** The API key, kept until the tab is closed; null when none was needed yet. */
export const apiKey = signal(sessionStorage.getItem(KEY));
/** Why the page must ask for the API key; null when it need not. */
export const keyWanted = signal(/** @type {string | null} */ (null));

/**
 * Use `key` from now on if the API accepts it, and return whether it does. Throws Problem when there is no answer.
 * @param {string} key
 */
export async function tryKey(key) {
  try {
    await request("GET", "job-types", { headers: { authorization: `Bearer ${key}` } });
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return false;
    throw error;
  }
  sessionStorage.setItem(KEY, key);
  apiKey.value = key;
  keyWanted.value = null;
  return true;
}

/** Why a request failed: a problem of the API (RFC 9457), or no answer. */
export class Problem extends Error {
  /**
   * @param {number} status 0 when no answer came
   * @param {{type?: string, title?: string, detail?: string, errors?: {pointer: string, detail: string}[]}} body
   */
  constructor(status, body) {
    super(body.detail ?? body.title ?? `the API answered with status ${status}`);
    this.status = status;
    this.kind = (body.type ?? "").replace("urn:jobtape:problem:", "");
    this.title = body.title ?? `Status ${status}`;
    this.errors = body.errors ?? [];
    /** What `GET /health/ready` says when a part is not ready. @type {import("./types.js").Readiness | null} */
    this.readiness = "parts" in body ? /** @type {any} */ (body) : null;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {any} body
 * @property {Headers} headers
 */

/**
 * Send a request. Throws Problem, also when no answer has come after `limit` milliseconds, or the reason of `signal` when
 * that was aborted.
 * @param {string} method
 * @param {string} path relative to the API's root, without a slash at its start
 * @param {{query?: import("./route.js").Query, body?: unknown, headers?: Record<string, string>, signal?: AbortSignal, limit?: number}} [options]
 * @returns {Promise<Answer>}
 */
export async function request(
  method,
  path,
  { query = {}, body, headers = {}, signal: outer, limit = TIME_LIMIT } = {},
) {
  const late = AbortSignal.timeout(limit);
  const answer = await send(method, path, {
    query,
    headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
    body: body === undefined ? undefined : typeof body === "string" ? body : stringify(body),
    signal: outer ? AbortSignal.any([outer, late]) : late,
  });
  const text = await answer.text().catch((error) => {
    throw unanswered(error, outer);
  });
  return { status: answer.status, body: isJson(answer) ? parse(text) : text, headers: answer.headers };
}

/**
 * Send a GET and return the body. See `request`.
 * @param {string} path
 * @param {import("./route.js").Query} [query]
 * @param {AbortSignal} [signal]
 */
export async function get(path, query, signal) {
  return (await request("GET", path, { query, signal })).body;
}

/**
 * Send a request and return the response when its headers are there. Throws Problem for an error.
 * @param {string} method
 * @param {string} path
 * @param {{query?: import("./route.js").Query, headers?: Record<string, string>, body?: string, signal?: AbortSignal}} options
 */
export async function send(method, path, { query = {}, headers = {}, body, signal }) {
  const url = new URL(path, base);
  url.search = parameters(query).toString();
  const own = apiKey.value === null ? headers : { authorization: `Bearer ${apiKey.value}`, ...headers };
  const answer = await fetch(url, { method, headers: own, body, signal, cache: "no-store" }).catch((error) => {
    throw unanswered(error, signal);
  });
  if (answer.ok || answer.status === 304) return answer;
  const text = await answer.text().catch(() => "");
  const problem = new Problem(answer.status, isJson(answer) ? parse(text) : {});
  if (answer.status === 401 && headers.authorization === undefined) {
    keyWanted.value = apiKey.value === null ? "This API needs its key." : "The API did not accept this key.";
  }
  throw problem;
}

/** @param {Response} answer */
function isJson(answer) {
  return /[/+]json/.test(answer.headers.get("content-type") ?? "");
}

/**
 * @param {unknown} error
 * @param {AbortSignal | undefined} signal
 */
function unanswered(error, signal) {
  if (signal?.aborted && signal.reason?.name !== "TimeoutError") return error;
  return new Problem(0, { title: "No answer", detail: "The API does not answer. It may be starting again." });
}

/** Return an idempotency key for one request. Pages over plain HTTP have no `crypto.randomUUID`. */
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

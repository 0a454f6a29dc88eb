/**
 * Receives the events of jobs as they happen, in a browser (or Node 18 and later):
 *
 *     import { events, HistoryGone } from "./events.mjs";
 *
 *     for await (const { event, cursor } of events("/jobtape", { type: ["mail.*"], key })) { … }
 *
 * It reconnects by itself and continues after the last event that it returned, so no event is missed or returned twice.
 * Unlike the browser's own EventSource it sends the API key as a header, reconnects when nothing arrives for a minute,
 * and throws an error when events that it still needs have been removed.
 *
 * Cursors are strings of digits: JavaScript's numbers are exact up to 2^53 only, cursors go up to 2^63.
 */

const SILENCE = 60_000; // ms without a byte after which the connection counts as dead; the API sends one every 15 s
const OUTAGE = 600_000; // ms without the API after which it gives up
const FIRST_PAUSE = 100; // ms between two attempts to connect, at first and at most
const LONGEST_PAUSE = 5_000;
const TRANSIENT = [429, 502, 503, 504];

/** The API refuses the request, and would refuse it again: a wrong key, or an unknown filter. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the API answers ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** Events after the position have been removed. Load again what you show, then continue with `after: error.cursor`. */
export class HistoryGone extends Error {
  constructor({ horizon, head }, cursor) {
    super(`events after this position have been removed; history continues after cursor ${cursor}`);
    Object.assign(this, { horizon, head, cursor });
  }
}

/**
 * Yields the events that match all filters, each once, in the order of the tape, without end.
 *
 * `url`: the address of the API. Filters as in `GET /events`: `event`, `type`, `label` (`name:value`), each one value or
 * an array; `job`, `correlation_id`. `after`: a cursor, or "first"; by default only new events. `key`: the API key.
 * `signal`: an AbortSignal that ends the iteration. `onState(state)` is called with "open" and "closed" when a connection
 * opens or ends. Throws HistoryGone, Refused, and the error of `fetch` when the API was unavailable for `outage` ms.
 */
export async function* events(url, { key, after, signal, onState = () => {}, outage = OUTAGE, ...filters } = {}) {
  let position = after;
  let pause = FIRST_PAUSE;
  let deadline = Date.now() + outage;
  while (!signal?.aborted) {
    try {
      for await (const message of connection(url, filters, position, key, signal)) {
        deadline = Date.now() + outage;
        if (message.event === "hello") {
          onState("open");
          position = isCursor(position) ? position : message.id;
        } else if (message.event === "reset") {
          throw new HistoryGone(JSON.parse(message.data), message.id);
        } else if (!isCursor(position) || BigInt(message.id) > BigInt(position)) {
          position = message.id; // also with a keep-alive, which has no data
          pause = FIRST_PAUSE;
          if (message.data) yield { cursor: position, event: JSON.parse(message.data) };
        }
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (error instanceof HistoryGone || error instanceof Refused || Date.now() > deadline) throw error;
    }
    onState("closed");
    // Random, so that clients that lost their connections together do not reconnect at the same moment.
    await sleep(pause * (0.6 + 0.4 * Math.random()), signal);
    pause = Math.min(pause * 1.7, LONGEST_PAUSE);
  }
}

/** Yields the messages of one connection. Returns or throws when the connection ends. */
async function* connection(url, filters, position, key, signal) {
  const abort = new AbortController();
  const stop = () => abort.abort();
  let timer = setTimeout(stop, SILENCE);
  signal?.addEventListener("abort", stop);
  try {
    const headers = { Accept: "text/event-stream", ...(key && { Authorization: `Bearer ${key}` }) };
    const answer = await fetch(address(url, filters, position), { headers, cache: "no-store", signal: abort.signal });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      if (TRANSIENT.includes(answer.status)) throw new Error(problem.detail ?? `the API answers ${answer.status}`);
      throw new Refused(answer.status, problem);
    }
    const decoder = new TextDecoder();
    const parser = new Parser();
    for await (const bytes of chunks(answer.body)) {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE);
      yield* parser.parse(decoder.decode(bytes, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    abort.abort();
  }
}

/** Parses `text/event-stream`. Yields each message with an id, also without data: that one only moves the position. */
class Parser {
  #incomplete = "";
  #message = { event: "message", data: [] };

  *parse(text) {
    const lines = (this.#incomplete + text).split("\n");
    this.#incomplete = lines.pop();
    for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
      if (line) {
        this.#field(line);
        continue;
      }
      const { event, id, data } = this.#message;
      this.#message = { event: "message", data: [] };
      if (id !== undefined) yield { event, id, data: data.join("\n") };
    }
  }

  #field(line) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "data") this.#message.data.push(value);
    else if (name === "event" || name === "id") this.#message[name] = value;
  }
}

function address(url, filters, position) {
  const query = new URLSearchParams();
  for (const [name, values] of Object.entries(filters)) {
    for (const value of [values].flat()) if (value !== undefined) query.append(name, value);
  }
  if (position !== undefined) query.append("after", position);
  return `${url.replace(/\/$/, "")}/events?${query}`;
}

// Some browsers cannot iterate over a body.
async function* chunks(body) {
  const reader = body.getReader();
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) yield chunk.value;
}

function isCursor(position) {
  return /^\d+$/.test(position ?? "");
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

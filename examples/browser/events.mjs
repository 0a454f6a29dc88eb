/**
 * What happens to jobs, as it happens, in a browser (or Node 18 and later):
 *
 *     import { events, HistoryGone } from "./events.mjs";
 *
 *     for await (const { event, cursor } of events("/jobtape", { type: ["mail.*"], key })) { … }
 *
 * It resumes by itself: after any cut it asks for what is behind the last event that it gave, so nothing is missed and
 * nothing comes twice. Unlike the browser's own EventSource it sends the API key as a header, tells a dead connection
 * by its silence, and says so when history is gone.
 *
 * Cursors are texts of digits: JavaScript's numbers are exact up to 2^53 only, cursors go up to 2^63.
 */

const SILENCE = 60_000; // ms without a byte: the connection is dead. The API says something every 15 s.
const OUTAGE = 600_000; // ms without the API until it gives up
const SHORTEST = 100;
const LONGEST = 5_000; // ms between two tries
const PASSING = [429, 502, 503, 504];

/** The API refuses, and would again: a wrong key, a filter that it does not know. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the API answers ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** Events behind the position are no longer kept: read anew what you show, then go on with `after: error.cursor`. */
export class HistoryGone extends Error {
  constructor({ horizon, head }, cursor) {
    super(`the history behind this position is gone; it goes on behind cursor ${cursor}`);
    Object.assign(this, { horizon, head, cursor });
  }
}

/**
 * The events that all filters fit, each once, in the tape's order, without end.
 *
 * `url`: where the API is. Filters as in `GET /events`: `event`, `type`, `label` (`name:value`), each one or many; `job`,
 * `correlation_id`. `after`: a cursor, or "first"; without it, from now on. `key`: the API key. `signal`: an AbortSignal
 * that ends it. `told(state)`: hears "open" and "cut". Throws HistoryGone, Refused, and what `fetch` throws when the API
 * was away for `outage` ms.
 */
export async function* events(url, { key, after, signal, told = () => {}, outage = OUTAGE, ...filters } = {}) {
  let position = after;
  let pause = SHORTEST;
  let deadline = Date.now() + outage;
  while (!signal?.aborted) {
    try {
      for await (const message of connection(url, filters, position, key, signal)) {
        deadline = Date.now() + outage;
        if (message.event === "hello") {
          told("open");
          position = isCursor(position) ? position : message.id;
        } else if (message.event === "reset") {
          throw new HistoryGone(JSON.parse(message.data), message.id);
        } else if (!isCursor(position) || BigInt(message.id) > BigInt(position)) {
          position = message.id; // a sign of life moves it too
          pause = SHORTEST;
          if (message.data) yield { cursor: position, event: JSON.parse(message.data) };
        }
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (error instanceof HistoryGone || error instanceof Refused || Date.now() > deadline) throw error;
    }
    told("cut");
    // Clients that were cut off together must not come back together.
    await sleep(pause * (0.6 + 0.4 * Math.random()), signal);
    pause = Math.min(pause * 1.7, LONGEST);
  }
}

/** The messages of one connection; ends or throws when it is cut. */
async function* connection(url, filters, position, key, signal) {
  const dead = new AbortController();
  const stop = () => dead.abort();
  let timer = setTimeout(stop, SILENCE);
  signal?.addEventListener("abort", stop);
  try {
    const headers = { Accept: "text/event-stream", ...(key && { Authorization: `Bearer ${key}` }) };
    const answer = await fetch(address(url, filters, position), { headers, cache: "no-store", signal: dead.signal });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      if (PASSING.includes(answer.status)) throw new Error(problem.detail ?? `the API answers ${answer.status}`);
      throw new Refused(answer.status, problem);
    }
    const decoder = new TextDecoder();
    const parser = new Parser();
    for await (const bytes of pieces(answer.body)) {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE);
      yield* parser.take(decoder.decode(bytes, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    dead.abort();
  }
}

/** `text/event-stream`, piece by piece: each message with its id, also one without data, which moves the position. */
class Parser {
  #rest = "";
  #message = { event: "message", data: [] };

  *take(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
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
  for (const [name, given] of Object.entries(filters)) {
    for (const value of [given].flat()) if (value !== undefined) query.append(name, value);
  }
  if (position !== undefined) query.append("after", position);
  return `${url.replace(/\/$/, "")}/events?${query}`;
}

// Not every browser can iterate over a body.
async function* pieces(body) {
  const reader = body.getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) yield piece.value;
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

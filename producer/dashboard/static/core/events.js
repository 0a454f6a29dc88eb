/** Server-sent events, read with `fetch` because `EventSource` cannot send an API key. */
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { Problem, send } from "./api.js";
import { parse } from "./json.js";
import { parameters } from "./route.js";

const SILENCE = 60_000; // milliseconds without any byte; keep-alives come every 15 s
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 5000;

/**
 * @typedef {object} Message
 * @property {string} name `hello`, `reset`, or the name of an event of a job
 * @property {string} id
 * @property {any} data
 */

/**
 * Yield the messages of one response, until it ends.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {(id: string) => void} onId called with each id, also those of keep-alives
 * @returns {AsyncGenerator<Message>}
 */
export async function* messages(body, onId) {
  let rest = "";
  let fields = { name: "", id: "", data: "" };
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line.replace(/\r$/, "")) ?? [];
      if (field === "event") fields.name = value ?? "";
      else if (field === "id") fields.id = value ?? "";
      else if (field === "data") fields.data += value;
      else if (line === "" || line === "\r") {
        if (fields.id) onId(fields.id);
        if (fields.data) yield { name: fields.name, id: fields.id, data: parse(fields.data) };
        fields = { name: "", id: "", data: "" };
      }
    }
  }
}

/**
 * Return the first message of an event in a stream, or null when none comes within `limit` milliseconds.
 * @param {import("./route.js").Query} query
 * @param {number} limit
 * @returns {Promise<import("./types.js").JobEvent | null>}
 */
export async function firstEvent(query, limit) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), limit);
  try {
    const answer = await send("GET", "events", {
      query,
      headers: { accept: "text/event-stream" },
      signal: abort.signal,
    });
    if (answer.body) {
      for await (const message of messages(answer.body, () => {})) {
        if (message.name !== "hello" && message.name !== "reset") return message.data;
      }
    }
    return null;
  } catch (error) {
    if (abort.signal.aborted) return null;
    throw error;
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

/**
 * Follow a stream while the page is visible. After a lost connection, and when the page becomes visible again, it
 * continues after the last event. Returns a function that stops it.
 * @param {string} path
 * @param {import("./route.js").Query} query
 * @param {(message: Message) => void} onMessage
 * @param {(connected: boolean) => void} onState
 */
export function follow(path, query, onMessage, onState) {
  let last = "";
  let failures = 0;
  let stopped = false;
  /** @type {AbortController | null} */
  let open = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  async function run() {
    const abort = new AbortController();
    open = abort;
    let watch = setTimeout(() => abort.abort(), SILENCE);
    try {
      const headers = { accept: "text/event-stream", ...(last && { "last-event-id": last }) };
      const answer = await send("GET", path, { query, headers, signal: abort.signal });
      if (answer.body === null) throw new Problem(0, {});
      onState(true);
      failures = 0;
      const seen = (/** @type {string} */ id) => {
        last = id;
        clearTimeout(watch);
        watch = setTimeout(() => abort.abort(), SILENCE);
      };
      for await (const message of messages(answer.body, seen)) {
        if (stopped || abort.signal.aborted) break;
        onMessage(message);
      }
    } catch (error) {
      if (error instanceof Problem && !error.passing) stopped = true;
    } finally {
      clearTimeout(watch);
      abort.abort();
    }
    if (open !== abort) return; // the page was hidden; it starts a new connection itself
    open = null;
    onState(false);
    failures += 1;
    if (!stopped) timer = setTimeout(run, Math.min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE));
  }

  function onVisibility() {
    clearTimeout(timer);
    const running = open;
    open = null;
    running?.abort();
    if (!document.hidden && !stopped) run();
  }

  document.addEventListener("visibilitychange", onVisibility);
  if (!document.hidden) run();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisibility);
    const running = open;
    open = null;
    running?.abort();
  };
}

const TICK = 1000; // milliseconds between two calls
const BUSY = 40; // events in a tick, above which polling costs less than the stream
const POLL = 10_000;
const TRY_AGAIN = 60_000; // doubled each time that there were too many again
const LONGEST_TRY = 960_000;

/**
 * Call `onChange` soon after something happened that the filter `query` of `GET /events` matches, at most once a second.
 * While there are very many events it closes the stream and calls every few seconds: fifty open pages must not cost the
 * API a copy of every event for each.
 * @param {import("./route.js").Query | null} query null: do not listen
 * @param {() => void} onChange
 * @returns {boolean} whether changes are noticed at present
 */
export function useChanges(query, onChange) {
  const latest = useRef(onChange);
  latest.current = onChange;
  const [connected, setConnected] = useState(false);
  const name = query === null ? null : parameters(query).toString();
  useEffect(() => {
    if (name === null) return;
    let count = 0;
    let busyTicks = 0;
    let polling = 0;
    let pause = TRY_AGAIN;
    let open = false;
    /** @type {(() => void) | null} */
    let stop = null;
    const start = () => {
      polling = 0;
      stop = follow(
        "events",
        new URLSearchParams(name),
        (message) => {
          if (message.name !== "hello") count += 1;
        },
        (now) => {
          open = now;
          setConnected(now);
          if (now) count += 1; // something may have happened in between
        },
      );
    };
    const timer = setInterval(() => {
      if (document.hidden) return;
      // Also while all slots of the API are taken, or it is away.
      if (stop === null || !open) {
        polling += TICK;
        if (polling % POLL === 0) latest.current();
        if (stop === null && polling >= pause) start();
        return;
      }
      busyTicks = count > BUSY ? busyTicks + 1 : 0;
      if (count > 0) latest.current();
      count = 0;
      if (busyTicks >= 2) {
        stop();
        stop = null;
        busyTicks = 0;
        pause = Math.min(pause * 2, LONGEST_TRY);
      }
    }, TICK);
    start();
    return () => {
      clearInterval(timer);
      stop?.();
    };
  }, [name]);
  return connected;
}

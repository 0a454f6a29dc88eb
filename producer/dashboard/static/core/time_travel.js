/** Which time the pages show, and how to move by one event of what is shown. */

import { useEffect, useRef } from "../vendor/hooks.js";
import { effect, signal } from "../vendor/signals.js";
import { get, request } from "./api.js";
import { firstEvent } from "./events.js";
import { asOf } from "./route.js";

/** @typedef {(by: -1 | 1) => Promise<void> | void} Stepper */

/** Moves by one event of what the page shows; null when the page shows no events. */
export const stepper = signal(/** @type {Stepper | null} */ (null));

/**
 * Let the keys and the strip move by one event of what this page shows.
 * @param {Stepper} step
 */
export function useStepper(step) {
  const latest = useRef(step);
  latest.current = step;
  useEffect(() => {
    stepper.value = (by) => latest.current(by);
    return () => {
      stepper.value = null;
    };
  }, []);
}

/**
 * The times of events between which there are equally many messages, in milliseconds since 1970, from the first event
 * of the complete history to the last; empty when there is none, or it is not known.
 */
export const positions = signal(/** @type {number[]} */ ([]));
/** When the event at `asOf` happened, in milliseconds since 1970; null when live or not known. */
export const shownTime = signal(/** @type {number | null} */ (null));

/** When the events at these cursors happened. @type {Map<string, number>} */
const times = new Map();

const ANSWER_LIMIT = 4000; // milliseconds

/** Read when how much happened. Throws Problem. */
export async function readPositions() {
  const { items } = await get("events/positions", { limit: "300" });
  let latest = 0;
  positions.value = items.map((/** @type {{cursor: import("./json.js").Numeral | number, time: string}} */ item) => {
    // Clocks differ, so times do not always grow.
    latest = Math.max(latest, Date.parse(item.time));
    times.set(String(item.cursor), Date.parse(item.time));
    return latest;
  });
}

/**
 * Return how much happened in each of `count` equal parts of the time from `begin` to `end`; together it is 1.
 * @param {number[]} known times as in `positions`
 * @param {number} begin
 * @param {number} end
 * @param {number} count
 */
export function histogram(known, begin, end, count) {
  const width = (end - begin) / count;
  let index = 0;
  /** The part of everything that happened until `time`; called with growing times. @param {number} time */
  const until = (time) => {
    while (index < known.length && (known[index] ?? 0) <= time) index += 1;
    if (index === 0) return 0;
    if (index >= known.length) return 1;
    const from = known[index - 1] ?? 0;
    const part = (time - from) / Math.max((known[index] ?? 0) - from, 1);
    return (index - 1 + part) / (known.length - 1);
  };
  let before = 0;
  return Array.from({ length: count }, (_, n) => {
    const after = n === count - 1 ? 1 : until(begin + width * (n + 1));
    const here = after - before;
    before = after;
    return here;
  });
}

/**
 * Return the cursor of the last event that is not after `time`, in milliseconds since 1970. Throws Problem.
 * @param {number} time
 */
export async function cursorAt(time) {
  const answer = await request("GET", "jobs", { query: { as_of: new Date(time).toISOString(), limit: "1" } });
  const cursor = answer.headers.get("jobtape-as-of") ?? "0";
  times.set(cursor, time);
  return cursor;
}

effect(() => {
  const at = asOf.value;
  if (at === null) {
    shownTime.value = null;
    return;
  }
  const isCursor = /^\d+$/.test(at);
  const known = isCursor ? times.get(at) : Date.parse(at);
  // What is neither a cursor nor a time is for the API to refuse.
  shownTime.value = known === undefined || Number.isNaN(known) ? null : known;
  if (!isCursor || known !== undefined) return;
  // The API has no question "when was this cursor?": the first event from there on says it.
  firstEvent({ after: String(BigInt(at) - 1n) }, ANSWER_LIMIT).then(
    (event) => {
      if (event === null) return;
      times.set(at, Date.parse(event.time));
      if (asOf.value === at) shownTime.value = Date.parse(event.time);
    },
    () => {}, // the strip then shows the cursor alone
  );
});

/**
 * Return the cursor of the next event that matches, or null when there is none yet.
 * @param {string} after a cursor
 * @param {URLSearchParams} filter parameters of `GET /events`
 */
export async function nextCursor(after, filter) {
  const query = new URLSearchParams(filter);
  query.set("after", after);
  const event = await firstEvent(query, 1500);
  if (event === null) return null;
  times.set(String(event.cursor), Date.parse(event.time));
  return String(event.cursor);
}

/**
 * Return `asOf` as a cursor.
 * @param {string} at
 */
export async function asCursor(at) {
  return /^\d+$/.test(at) ? at : cursorAt(Date.parse(at));
}

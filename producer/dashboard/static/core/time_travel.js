/** Which time the pages show, and how to move by one event of what is shown. */

import { useEffect, useRef } from "../vendor/hooks.js";
import { effect, signal } from "../vendor/signals.js";
import { request } from "./api.js";
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

/** When the first event that is kept happened, in milliseconds since 1970; null when it is not known. */
export const beginning = signal(/** @type {number | null} */ (null));
/** When the event at `asOf` happened, in milliseconds since 1970; null when live or not known. */
export const shownTime = signal(/** @type {number | null} */ (null));

const ANSWER_LIMIT = 4000; // milliseconds

/** Read when the history begins, unless it is known. */
export async function readBeginning() {
  if (beginning.value !== null) return;
  const first = await firstEvent({ after: "first" }, ANSWER_LIMIT);
  if (first !== null) beginning.value = Date.parse(first.time);
}

/** @type {Map<string, number>} */
const times = new Map();

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
  const known = /^\d+$/.test(at) ? (times.get(at) ?? null) : Date.parse(at);
  shownTime.value = known;
  if (known !== null) return;
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

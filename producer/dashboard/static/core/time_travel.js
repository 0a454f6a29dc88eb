/** Which time the pages show, and how to move by one event of what is shown. */

import { useEffect, useRef } from "../vendor/hooks.js";
import { effect, signal } from "../vendor/signals.js";
import { get, request } from "./api.js";
import { firstEvent } from "./events.js";
import { asOf, parameters } from "./route.js";

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
 * @typedef {object} Histogram
 * @property {number} since milliseconds since 1970
 * @property {number} step milliseconds
 * @property {number[]} counts events in each step
 * @property {number[]} failed
 */

/** When the complete history begins, in milliseconds since 1970; null when there is none, or it is not known. */
export const firstTime = signal(/** @type {number | null} */ (null));
/** How much happened when; null while it is not known. */
export const histogram = signal(/** @type {Histogram | null} */ (null));
/** When the event at `asOf` happened, in milliseconds since 1970; null when live or not known. */
export const shownTime = signal(/** @type {number | null} */ (null));

/** When the events at these cursors happened. @type {Map<string, number>} */
const times = new Map();

const ANSWER_LIMIT = 4000; // milliseconds

/** Read when the history begins, and how much happened when. Throws Problem. */
export async function readHistory() {
  const { items } = await get("events/positions", { limit: "2" });
  firstTime.value = items.length ? Date.parse(items[0].time) : null;
  const { since, step, counts, failed } = await get("events/histogram", { buckets: "200" });
  histogram.value = { since: Date.parse(since), step: step * 1000, counts, failed };
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

const MOST_PAGES = 20;

/**
 * Return a list of jobs of the past: a page of the API may have few of them, or none, although older ones match. `next` is
 * not null also when no older page was asked for, because there were MOST_PAGES. Throws Problem.
 * @param {import("./route.js").Query} query with `as_of` and `limit`
 * @param {AbortSignal} [abort]
 * @returns {Promise<{items: import("./types.js").Job[], next: string | null, scanned: null}>}
 */
export async function pastJobs(query, abort) {
  const wanted = new URLSearchParams(parameters(query));
  const items = [];
  for (let page = 1; ; page += 1) {
    const found = await get("jobs", wanted, abort);
    items.push(...found.items);
    if (found.next === null || page === MOST_PAGES || items.length >= Number(wanted.get("limit")))
      return { items, next: found.next, scanned: null };
    wanted.set("cursor", found.next);
  }
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

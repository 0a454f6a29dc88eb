/** Which range of time the numbers are of, and what `GET /stats` says about it. */
import { get } from "./api.js";
import { asOf, route } from "./route.js";

/**
 * @typedef {Record<string, number>} Counts by state, or by event
 * @typedef {{n: number, p50: number, p99: number}} Spread durations in seconds
 * @typedef {{jobs: Counts | null, events: Counts, wait: Spread | null, run: Spread | null}} Numbers
 * @typedef {Numbers & {type: string}} TypeNumbers
 * @typedef {Numbers & {queue: string, oldest: {job: string, since: string} | null}} QueueNumbers
 * @typedef {(number | null)[]} Values
 * @typedef {{since: string, until: string, step: number, points: number, events: Record<string, number[]>, wait_p50: Values, wait_p99: Values, run_p50: Values, run_p99: Values}} Series
 * @typedef {{at: string, jobs: Counts | null, wait: Spread | null, run: Spread | null, types: TypeNumbers[], queues: QueueNumbers[], series: Series}} Stats
 */

/** By their names in the address: their titles, their lengths in seconds, and after how many milliseconds they are read again. */
export const RANGES = /** @type {const} */ ({
  live: { title: "15 minutes", words: "in the last 15 minutes", length: 900, pause: 5000 },
  hour: { title: "Hour", words: "in the last hour", length: 3600, pause: 10_000 },
  day: { title: "Day", words: "in the last 24 hours", length: 86_400, pause: 30_000 },
  week: { title: "Week", words: "in the last 7 days", length: 604_800, pause: 60_000 },
});

/** @typedef {keyof typeof RANGES} RangeName */
/** @typedef {{name: RangeName | null, since: string | null, until: string | null, length: number, words: string, pause: number}} Range `name` null: from `since` until `until` */

/** Return the range that the address names. @returns {Range} */
export function rangeShown() {
  const { query } = route.value;
  const since = query.get("since");
  const until = query.get("until");
  if (since !== null && until !== null) {
    const length = (Date.parse(until) - Date.parse(since)) / 1000;
    return { name: null, since, until, length, words: "in this range", pause: 60_000 };
  }
  const given = query.get("range") ?? "live";
  const name = /** @type {RangeName} */ (given in RANGES ? given : "live");
  const { words, length, pause } = RANGES[name];
  return {
    name,
    since: null,
    until: null,
    length,
    words: asOf.value === null ? words : `${words.replace("in the last", "in the")} before`,
    pause,
  };
}

/**
 * Return the beginning and end of a range as query parameters. In the past, a range ends at the time that is shown.
 * @param {Range} range
 * @param {number | null} shown the time that is shown, in milliseconds since 1970; null: now
 */
export function boundsOf(range, shown) {
  if (range.name === null) return { since: range.since, until: range.until };
  return { since: new Date((shown ?? Date.now()) - range.length * 1000).toISOString() };
}

/**
 * Read the numbers of a range. Throws Problem.
 * @param {Range} range
 * @param {number | null} shown see `boundsOf`
 * @param {AbortSignal} signal
 * @returns {Promise<Stats>}
 */
export function readStats(range, shown, signal) {
  return get("stats", { ...boundsOf(range, shown), as_of: asOf.value }, signal);
}

/** Return how often an event happened, of all of the numbers. @param {Numbers[]} numbers @param {string} event */
export function total(numbers, event) {
  return numbers.reduce((sum, one) => sum + (one.events[event] ?? 0), 0);
}

/** Which range of time the numbers are of, and what `GET /stats` says about it. */
import { get } from "./api.js";
import { stale } from "./health.js";
import { asOf, route } from "./route.js";
import { local } from "./times.js";

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
/** @typedef {{name: RangeName | null, since: string | null, until: string | null, length: number, pause: number}} Range `name` null: from `since` until `until` */

/** Return the range that the address names. @returns {Range} */
export function rangeShown() {
  const { query } = route.value;
  const since = query.get("since");
  const until = query.get("until");
  if (since !== null && until !== null) {
    const length = (Date.parse(until) - Date.parse(since)) / 1000;
    return { name: null, since, until, length, pause: 60_000 };
  }
  const given = query.get("range") ?? "live";
  const name = /** @type {RangeName} */ (given in RANGES ? given : "live");
  const { length, pause } = RANGES[name];
  return { name, since: null, until: null, length, pause };
}

/**
 * Return which time the numbers of a range are of, as in "in the last hour". Those of the past are of whole steps, so
 * they may end a little after the time that is shown.
 * @param {Range} range
 * @param {Stats | null} stats null while they are not known
 */
export function wordsOf(range, stats) {
  if (range.name === null) return "in this range";
  const { words } = RANGES[range.name];
  if (asOf.value !== null)
    return stats === null ? "" : `from ${local(stats.series.since)} to ${local(stats.series.until)}`;
  const since = stale.value?.since ?? null;
  return since === null ? words : `${words.replace("in the last", "in the")} until ${local(since)}`;
}

/**
 * Return the beginning and end of a range as query parameters. In the past, a range ends at the time that is shown, and
 * while nothing newer is known, at the time until which something is: an outage must not look like a recovery.
 * @param {Range} range
 * @param {number | null} shown the time that is shown, in milliseconds since 1970; null: now
 */
export function boundsOf(range, shown) {
  if (range.name === null) return { since: range.since, until: range.until };
  const end = shown ?? stale.value?.since ?? null;
  const since = new Date((end ?? Date.now()) - range.length * 1000).toISOString();
  return end === null ? { since } : { since, until: new Date(end).toISOString() };
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

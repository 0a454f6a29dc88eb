/** Times and durations as people read them: in the viewer's zone, with UTC in a tooltip. */

/** Seconds by which the clocks of two processes may differ. */
const SKEW = 0.1;
const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const YEAR = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });

/**
 * Return the local time: with the day when it is not today, with the year when it is not this one.
 * @param {string | number | Date} time
 */
export function local(time, now = new Date()) {
  const at = new Date(time);
  const clock = CLOCK.format(at);
  if (at.toDateString() === now.toDateString()) return clock;
  return `${(at.getFullYear() === now.getFullYear() ? DAY : YEAR).format(at)}, ${clock}`;
}

/**
 * Return the local time without seconds, or the day at midnight.
 * @param {number} time milliseconds since 1970
 */
export function clock(time) {
  const at = new Date(time);
  return at.getHours() === 0 && at.getMinutes() === 0 ? DAY.format(at) : CLOCK.format(at).slice(0, 5);
}

/**
 * Return the local time with milliseconds.
 * @param {string} time
 */
export function precise(time) {
  return `${local(time)}.${String(new Date(time).getMilliseconds()).padStart(3, "0")}`;
}

/**
 * Return the duration between two times, or from the first until now, in seconds.
 * @param {string | null} from
 * @param {string | null} [to]
 */
export function seconds(from, to) {
  if (from === null) return null;
  return (new Date(to ?? Date.now()).getTime() - new Date(from).getTime()) / 1000;
}

/**
 * Return a duration in two digits or so: `3 ms`, `1.24 s`, `5 min 3 s`, `2 h 4 min`, `3 d`.
 * @param {number | null} duration in seconds
 */
export function duration(duration) {
  if (duration === null || Number.isNaN(duration)) return "";
  const sign = duration < 0 ? "−" : "";
  const s = Math.abs(duration);
  if (s < 0.9995) return `${sign}${Math.round(s * 1000)} ms`;
  if (s < 9.995) return `${sign}${s.toFixed(2)} s`;
  if (s < 59.95) return `${sign}${s.toFixed(1)} s`;
  const whole = Math.round(s);
  const [size, name, part, partName] =
    whole < 3600 ? [60, "min", 1, "s"] : whole < 86_400 ? [3600, "h", 60, "min"] : [86_400, "d", 3600, "h"];
  const rest = Math.floor((whole % Number(size)) / Number(part));
  return `${sign}${Math.floor(whole / Number(size))} ${name}${rest === 0 ? "" : ` ${rest} ${partName}`}`;
}

/**
 * Return a duration that is known to a fifth only, in two digits or one: `150 ms`, `2.4 s`, `2 min`.
 * @param {number | null} value in seconds
 */
export function roughly(value) {
  if (value === null || Number.isNaN(value)) return "";
  const [size, name] =
    value < 0.995
      ? [0.001, "ms"]
      : value < 59.5
        ? [1, "s"]
        : value < 3570
          ? [60, "min"]
          : value < 84_600
            ? [3600, "h"]
            : [86_400, "d"];
  const n = value / Number(size);
  return `${Number(n.toPrecision(n < 9.5 && value >= 59.5 ? 1 : 2))} ${name}`;
}

/**
 * Return a local time as an input of the type `datetime-local` has it, or "" for null.
 * @param {string | null} time
 */
export function toInput(time) {
  if (time === null || Number.isNaN(Date.parse(time))) return "";
  const at = new Date(time);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/**
 * Return the RFC 3339 time of such an input, or null when it is empty.
 * @param {string} text
 */
export function fromInput(text) {
  return text === "" || Number.isNaN(Date.parse(text)) ? null : new Date(text).toISOString();
}

/**
 * Return how many seconds the last execution of a job waited after it was due; null when the job has not started since.
 * @param {import("./types.js").Job} job
 */
export function waitOf(job) {
  const waited = job.started_at === null ? null : seconds(job.run_at ?? job.submitted_at, job.started_at);
  return waited === null || waited < -SKEW ? null : Math.max(0, waited);
}

/** The events of a job as a bar of what it did when, and as a list. */
import { stale } from "../core/health.js";
import { html } from "../core/html.js";
import { toNumber } from "../core/json.js";
import { duration, precise, seconds } from "../core/times.js";
import { useState } from "../vendor/hooks.js";
import { Foreign } from "./basics.js";

/** @typedef {import("../core/types.js").JobEvent} JobEvent */

/** @param {JobEvent} event */
export function nameOf(event) {
  return event.type.replace("jobtape.job.", "");
}

const MOST_REPORTS = 6;

/** What a job does after an event, until the next one. @type {Record<string, string>} */
const AFTER = {
  submitted: "queued",
  placed: "queued",
  started: "running",
  progressed: "running",
  retrying: "retrying",
  deferred: "scheduled",
  continued: "held",
  redriven: "queued",
  succeeded: "idle",
  failed: "idle",
  cancelled: "idle",
};

/**
 * @typedef {object} Segment
 * @property {string} kind
 * @property {number} from milliseconds since 1970
 * @property {number} to
 */

/**
 * Return what the job did from its first event until `end`. An outcome says when its execution began. `lost`: it ran
 * until its worker disappeared, nobody knows when, and then waited for another one.
 * @param {JobEvent[]} events
 * @param {number} end milliseconds since 1970
 * @returns {Segment[]}
 */
export function segments(events, end) {
  /** @type {Segment[]} */
  const found = [];
  let kind = "idle";
  let gated = false;
  let from = 0;
  /** The execution that has started last, in its attempt. @type {string | null} */
  let execution = null;
  const add = (/** @type {number} */ to) => {
    if (kind !== "idle" && to > from) found.push({ kind, from, to });
  };
  for (const event of events) {
    if (event.accepted === false) continue;
    const name = nameOf(event);
    const at = Date.parse(event.time);
    const begun = event.data.started_at ? Date.parse(event.data.started_at) : null;
    const { execution: named } = event.data;
    if (kind === "running" && execution !== null && named && named !== execution) kind = "lost";
    if (named) execution = named;
    if (begun !== null && begun > from && (kind === "queued" || kind === "lost")) {
      add(begun);
      kind = "running";
      from = begun;
    }
    add(at);
    kind = AFTER[name] ?? kind;
    const due = event.data.order?.run_at;
    if (name === "submitted") gated = Boolean(event.data.order?.gates);
    if (gated && (name === "submitted" || name === "redriven")) kind = "held";
    if (name === "submitted" && due && Date.parse(due) > at) kind = "scheduled";
    from = Math.max(at, from);
  }
  add(end);
  return found;
}

/**
 * @param {{events: JobEvent[], open: boolean, lost: boolean, selected: string | null, onSelect: (event: JobEvent) => void}} props
 * `lost`: whether the worker is gone that runs the job
 */
export function Timeline({ events, open, lost, selected, onSelect }) {
  const [unfolded, setUnfolded] = useState(false);
  const first = events[0];
  const last = events.at(-1);
  if (first === undefined || last === undefined) return null;
  const begin = Date.parse(first.time);
  const now = stale.value === null ? Date.now() : (stale.value.since ?? 0);
  const end = open ? Math.max(now, Date.parse(last.time)) : Date.parse(last.time);
  const span = Math.max(end - begin, 1);
  const x = (/** @type {number} */ at) => `${(((at - begin) / span) * 100).toFixed(3)}%`;
  const bar = segments(events, end);
  const current = bar.at(-1);
  if (lost && current?.kind === "running") current.kind = "lost";
  const held = released(events);
  const before = lostExecutions(events);
  let previous = begin;
  return html`<div class="timeline">
    <svg class="bar" role="img" aria-label=${`From ${precise(first.time)}, ${duration(span / 1000)}`} width="100%" height="26">
      <rect class="ground" x="0" y="12" width="100%" height="2" />
      ${bar.map(
        ({ kind, from, to }) =>
          html`<rect class=${`segment ${kind}`} x=${x(from)} width=${`${Math.max(((to - from) / span) * 100, 0.2)}%`} y="8" height="10" rx="1"><title>${`${kind} ${duration((to - from) / 1000)}`}</title></rect>`,
      )}
      ${events.map((event) => html`<circle class=${`dot ${nameOf(event)} ${String(event.cursor) === selected ? "selected" : ""}`} cx=${x(Date.parse(event.time))} cy="13" r="4" onClick=${() => onSelect(event)}><title>${nameOf(event)}</title></circle>`)}
    </svg>
    <p class="scale"><span>${precise(first.time)}</span><span>${duration(span / 1000)}</span></p>
    <ol class="events" aria-label="Events of the job">${listed(events, unfolded).map((event) => {
      if (typeof event === "number")
        return html`<li key="folded"><button type="button" class="folded" onClick=${() => setUnfolded(true)}>${event.toLocaleString("en")} more reports of progress: show all</button></li>`;
      const at = Date.parse(event.time);
      const gap = at - previous;
      previous = Math.max(previous, at);
      const name = nameOf(event);
      const chosen = String(event.cursor) === selected;
      return html`<li key=${String(event.cursor)} class=${event.accepted === false ? "ignored" : ""}>
        <button type="button" data-row aria-pressed=${chosen} onClick=${() => onSelect(event)}>
          <span class=${`mark ${name}`} aria-hidden="true"></span>
          <span class="gap">${gap > 0 ? `+${duration(gap / 1000)}` : ""}</span>
          <time datetime=${event.time} title=${`${new Date(event.time).toISOString()} (UTC)`}>${precise(event.time)}</time>
          <strong>${name}</strong>
          <span class="what"><${What} event=${event} name=${name} held=${held.has(event)} lost=${before.get(event) ?? null} /></span>
        </button>
      </li>`;
    })}</ol>
  </div>`;
}

/**
 * Return the events with a number in place of the middle of each long row of reports of progress.
 * @param {JobEvent[]} events
 * @param {boolean} all whether to leave out nothing
 * @returns {(JobEvent | number)[]}
 */
export function listed(events, all) {
  if (all) return events;
  /** @type {(JobEvent | number)[]} */
  const found = [];
  /** @type {JobEvent[]} */
  let reports = [];
  const end = () => {
    const [first, last] = [reports[0], reports.at(-1)];
    if (reports.length > MOST_REPORTS && first !== undefined && last !== undefined)
      found.push(first, reports.length - 2, last);
    else found.push(...reports);
    reports = [];
  };
  for (const event of events) {
    if (nameOf(event) === "progressed") reports.push(event);
    else {
      end();
      found.push(event);
    }
  }
  end();
  return found;
}

/**
 * Return the placements of a job that was held until its gates were open, such as a limit or a job before it.
 * @param {JobEvent[]} events
 */
export function released(events) {
  /** @type {Set<JobEvent>} */
  const found = new Set();
  let gated = false;
  let held = false;
  for (const event of events) {
    const name = nameOf(event);
    if (event.accepted === false || name === "progressed") continue;
    if (name === "submitted") gated = Boolean(event.data.order?.gates);
    if (name === "placed" && held) found.add(event);
    held = gated && (name === "submitted" || name === "redriven");
  }
  return found;
}

/**
 * Return the starts of attempts that another worker had begun, each with the number of its delivery and that worker.
 * @param {JobEvent[]} events
 */
export function lostExecutions(events) {
  /** @type {Map<JobEvent, {delivery: number, worker: string}>} */
  const found = new Map();
  /** @type {JobEvent | null} */
  let previous = null;
  let delivery = 1;
  for (const event of events) {
    if (event.accepted === false || nameOf(event) !== "started") continue;
    const again = previous?.data.run === event.data.run && previous?.data.attempt === event.data.attempt;
    delivery = again ? delivery + 1 : 1;
    if (again && previous !== null) found.set(event, { delivery, worker: previous.data.worker });
    previous = event;
  }
  return found;
}

/**
 * What an event says, in half a line.
 * @param {{event: JobEvent, name: string, held: boolean, lost: {delivery: number, worker: string} | null}} props
 */
function What({ event, name, held, lost }) {
  const { data } = event;
  const parts = [];
  if (event.accepted === false) parts.push("changed nothing: it came late, or was repeated");
  if (data.run > 1 && (name === "redriven" || name === "placed")) parts.push(`run ${data.run}`);
  if (data.attempt > 1 && name !== "progressed") parts.push(`attempt ${data.attempt}`);
  if (name === "submitted") {
    parts.push(`to the queue ${data.order.queue}`);
    if (data.order.run_at) parts.push(`due ${precise(data.order.run_at)}`);
  }
  if (name === "placed")
    parts.push(
      {
        due: held ? "on its queue: nothing holds it any more" : "on its queue: it was due",
        lost: "on its queue again: the work was lost",
        given_up: "on its queue again: the broker gave it up",
      }[/** @type {"due"} */ (data.why)] ?? data.why,
    );
  if (name === "signalled") parts.push(data.timed_out ? `${data.signal} did not come in time` : data.signal);
  if (["started", "continued", "succeeded", "failed"].includes(name)) {
    if (data.worker) parts.push(`worker ${data.worker}`);
    if (lost !== null) parts.push(`delivery ${lost.delivery}: worker ${lost.worker} disappeared, or gave the job back`);
  }
  const took = toNumber(data.duration);
  if (took !== null) parts.push(`ran ${duration(took)}`);
  if (name === "progressed") {
    const fraction = toNumber(data.fraction);
    if (fraction !== null) parts.push(`${Math.round(fraction * 100)} %`);
    if (data.message) parts.push(data.message);
  }
  if (data.reason && data.reason !== "error") parts.push(`reason ${data.reason}`);
  if (data.error) parts.push(`${data.error.type}: ${data.error.message}`);
  if (data.next_at)
    parts.push(`next attempt ${precise(data.next_at)}, after ${duration(seconds(event.time, data.next_at))}`);
  if (name === "deferred" && data.until) parts.push(`until ${precise(data.until)}`);
  return html`<${Foreign} text=${parts.join(" · ")} limit=${300} />`;
}

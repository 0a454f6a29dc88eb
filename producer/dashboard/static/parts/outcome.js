/** The outcome or the progress of a job in one line. */
import { knownUntil } from "../core/health.js";
import { html } from "../core/html.js";
import { stringify, toNumber } from "../core/json.js";
import { Foreign, Time } from "./basics.js";
import { summaryOf, TASKS } from "./tasks.js";

/** @typedef {import("../core/types.js").Job} Job */

/** Why a job was cancelled that nobody asked to cancel. @type {Record<string, string>} */
const DUPLICATE = {
  duplicate: "a job with its unique key was open",
  replaced: "replaced by a later job with its unique key",
  debounced: "a later job with its debounce key came",
};

/** What one wants to know of a job in half a line. @param {{job: Job}} props */
export function Outcome({ job }) {
  if (job.state === "failed" || job.state === "retrying") {
    const error = job.error;
    if (error)
      return html`<span class="fault"><${Foreign} text=${`${error.type}: ${error.message}`} limit=${160} /></span>`;
    return html`<span class="fault">${job.reason}</span>`;
  }
  if (job.state === "cancelled" && job.duplicate_of)
    return html`<span class="quiet">${DUPLICATE[job.reason ?? ""] ?? job.reason}</span>`;
  if (job.state === "succeeded")
    return html`<span class="quiet"><${Foreign} text=${job.type in TASKS ? summaryOf(job) : brief(job.result)} limit=${120} /></span>`;
  if (job.progress && job.state === "running") {
    const fraction = toNumber(job.progress.fraction);
    return html`${fraction !== null && html`<progress value=${fraction} aria-label="Progress"></progress> `}<${Foreign} text=${job.progress.message ?? ""} limit=${80} />`;
  }
  if (job.state === "held" && job.type === "jobtape.pause") {
    const { queue, type } = /** @type {{queue?: string | null, type?: string | null}} */ (job.payload);
    return html`<span class="quiet">${queue ? `the queue ${queue}` : `the job type ${type}`} is paused</span>`;
  }
  if (job.state === "held" && job.type === "jobtape.schedule")
    return html`<span class="quiet">the schedule <${Foreign} text=${String(/** @type {any} */ (job.payload)?.name)} limit=${80} />, in force</span>`;
  // A job that is not due yet waits for nothing else.
  if (job.state === "held" && isLater(job.run_at)) return html`due <${Time} at=${job.run_at} />`;
  if (job.state === "held" && job.waits_for.length > 0)
    return html`<span class="quiet">waits for <${Foreign} text=${job.waits_for.join(", ")} limit=${120} /></span>`;
  if (job.state === "scheduled" && job.run_at)
    return html`due <${Time} at=${job.run_at} />${job.reason && ` (${job.reason})`}`;
  return null;
}

/** Whether a job is a rule, which is held while it is in force and waits for nothing. @param {Job} job */
export function isRule(job) {
  return ["jobtape.limit", "jobtape.pause", "jobtape.schedule"].includes(job.type);
}

/** Whether a time is later than what the pages know. @param {string | null} time */
export function isLater(time) {
  return time !== null && Date.parse(time) > (knownUntil() ?? Date.now());
}

/** @param {unknown} value */
function brief(value) {
  if (typeof value === "string") return value.slice(0, 200);
  return stringify(value).slice(0, 200);
}

/** The workers that are alive, their slots, and what they run. */
import { get } from "../core/api.js";
import { brokerReady, passed, projectorReady, stale } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { asOf, link } from "../core/route.js";
import { duration, local, seconds } from "../core/times.js";
import { commas, Empty, Foreign, ProblemBox, Time } from "./basics.js";

/** @typedef {{job_id: string, job_type: string, since: string, settled: boolean}} Execution */
/** @typedef {{items: Worker[], collected: boolean}} Found */
/** @typedef {{id: string, name: string, host: string, pid: number, version: string, state: "alive" | "draining" | "silent", fault: string | null, started_at: string, last_seen: string, queues: string[], job_types: string[], slots: number, running: number, executions: Execution[]}} Worker */

const PAUSE = 4000; // milliseconds; signs of life come every two seconds at most
const SHOWN = 4;
const LATEST_SIGN = 20; // seconds after which a sign of life has named what runs
/** @type {Record<Worker["state"], string>} */
const MEANING = {
  alive: "",
  draining: "It ends what it runs and takes no more jobs.",
  silent: "No sign of life: it was killed, or cannot reach the broker.",
};

/** Load the workers. `wanted` false: load nothing. */
export function useWorkers(wanted = true) {
  return useLoad(wanted ? "workers" : null, (signal) => /** @type {Promise<Found>} */ (get("workers", {}, signal)));
}

/**
 * Return why the list of workers says nothing about them, or "".
 * @param {Found | null} found
 */
function blindness(found) {
  if (!brokerReady()) return "Which workers are alive is not known while the broker does not answer.";
  return found?.collected === false || !projectorReady() || stale.value !== null
    ? "Which workers are alive is not known while no projector collects their signs of life."
    : "";
}

/**
 * Whether a job's state is running, but no worker that is alive runs it. False also when that is not known: signs of
 * life come every ten seconds, and each names the oldest executions only. A flow runs without a worker.
 * @param {import("../core/types.js").Job} job
 * @param {Found | null} found
 */
export function lostItsWorker(job, found) {
  if (found === null || job.state !== "running" || job.type === "jobtape.flow" || blindness(found) !== "") return false;
  if ((seconds(job.started_at) ?? 0) < LATEST_SIGN) return false;
  const living = found.items.filter((worker) => worker.state !== "silent");
  if (living.some((worker) => worker.running > worker.executions.length)) return false;
  return !living.some((worker) => worker.executions.some((one) => one.job_id === job.id));
}

/**
 * Return how long a job ran or runs, in seconds; null when that is not known. When its worker is gone, up to the last
 * sign of life that named it, or else null.
 * @param {import("../core/types.js").Job} job
 * @param {Found | null} found
 */
export function ranOf(job, found) {
  if (job.state !== "running")
    return job.started_at === null || job.finished_at === null
      ? null
      : Math.max(0, seconds(job.started_at, job.finished_at) ?? 0);
  if (asOf.value !== null || !lostItsWorker(job, found)) return passed(job.started_at);
  const worker = found?.items.find((one) => one.executions.some(({ job_id }) => job_id === job.id));
  return worker === undefined ? null : Math.max(0, seconds(job.started_at, worker.last_seen) ?? 0);
}

export function Workers() {
  const loaded = useWorkers();
  useEvery(loaded.reload, PAUSE);
  const { data } = loaded;
  // Then an old or empty list says nothing about the workers.
  const blind = blindness(data);
  return html`
    <${ProblemBox} problem=${loaded.problem?.passing ? null : loaded.problem} onRetry=${loaded.reload} />
    ${data !== null && blind !== "" && html`<p class="warning">${blind}</p>`}
    ${
      data === null
        ? !loaded.problem && html`<p class="loading">Loading …</p>`
        : data.items.length === 0
          ? blind === "" &&
            html`<${Empty} title="No worker is alive"><p>Start one: <code>jobtape worker</code>.</p><//>`
          : html`<table class="rows workers">
            <thead><tr><th>State</th><th>Worker</th><th>Queues</th><th>Slots in use</th><th>Runs</th><th class="num">Last sign</th></tr></thead>
            <tbody>${data.items.map((worker) => html`<${Row} key=${worker.id} worker=${worker} blind=${blind !== ""} />`)}</tbody>
          </table>`
    }
  `;
}

/** @param {{worker: Worker, blind: boolean}} props `blind`: whether signs of life do not arrive at all */
function Row({ worker, blind }) {
  const meaning = blind ? "" : MEANING[worker.state];
  const state = blind ? "not known" : worker.state;
  const about = `${worker.host}, process ${worker.pid}, Jobtape ${worker.version}, since ${local(worker.started_at)}`;
  return html`<tr>
    <td><span class=${`state ${blind ? "" : worker.state}`} title=${meaning}>${state}</span></td>
    <td class="name" title=${about}><${Foreign} text=${worker.name} />
      ${meaning && html`<p class="warning">${meaning}</p>`}
      ${!blind && worker.fault !== null && html`<p class="warning"><${Foreign} text=${worker.fault} limit=${300} /></p>`}</td>
    <td data-column="queues">${commas(worker.queues.map((queue) => html`<a href=${link("jobs", { queue })}>${queue}</a>`))}</td>
    <td class="slots" data-column="slots">${blind ? NOT_KNOWN : html`<meter min="0" max=${worker.slots} value=${worker.running} aria-label="Slots in use"></meter> <span data-name="slots">${worker.running} of ${worker.slots}</span>`}</td>
    <td data-column="runs">${blind ? NOT_KNOWN : html`<${Executions} worker=${worker} />`}</td>
    <td class="num" data-column="last sign"><${Time} at=${worker.last_seen} text=${ago(worker.last_seen)} /></td>
  </tr>`;
}

const NOT_KNOWN = html`<span class="quiet">not known</span>`;

/** Return how long ago a time was, in whole seconds where it is less than a minute. @param {string} time */
function ago(time) {
  const passed = Math.max(0, Math.round(seconds(time) ?? 0));
  return `${passed < 60 ? `${passed} s` : duration(passed)} ago`;
}

/** @param {{worker: Worker}} props */
function Executions({ worker }) {
  const { executions, running } = worker;
  if (executions.length === 0) return html`<span class="quiet">${running > 0 ? "" : "nothing"}</span>`;
  // What a silent worker has done since its last sign is not known.
  const ran = (/** @type {Execution} */ one) =>
    worker.state === "silent" ? Math.max(0, seconds(one.since, worker.last_seen) ?? 0) : passed(one.since);
  const item = (/** @type {Execution} */ one) => html`<li key=${one.job_id}>
    <a href=${link(`jobs/${one.job_id}`)} title=${one.job_id}>${one.job_type}</a> <span class="quiet">for ${duration(ran(one))}</span>
    ${one.settled && html` <span class="warning" title="Its job has ended, by a timeout or a cancellation, but the handler has not.">still busy</span>`}</li>`;
  const hidden = running - executions.length;
  return html`<ul class="plain">${executions.slice(0, SHOWN).map(item)}</ul>
    ${
      executions.length > SHOWN &&
      html`<details><summary class="quiet">${running - SHOWN} more</summary><ul class="plain">${executions.slice(SHOWN).map(item)}</ul>
        ${hidden > 0 && html`<p class="quiet">and ${hidden} newer ones</p>`}</details>`
    }`;
}

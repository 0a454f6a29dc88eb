/** The workers that are alive, their slots, and what they run. */
import { get } from "../core/api.js";
import { health } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { duration, local, seconds } from "../core/times.js";
import { Empty, Foreign, ProblemBox } from "./basics.js";

/** @typedef {{job_id: string, job_type: string, since: string, settled: boolean}} Execution */
/** @typedef {{id: string, name: string, host: string, pid: number, version: string, state: "alive" | "draining" | "silent", fault: string | null, started_at: string, last_seen: string, queues: string[], job_types: string[], slots: number, running: number, executions: Execution[]}} Worker */

const PAUSE = 4000; // milliseconds; signs of life come every two seconds at most
const SHOWN = 4;
/** @type {Record<Worker["state"], string>} */
const MEANING = {
  alive: "",
  draining: "It ends what it runs and takes no more jobs.",
  silent: "No sign of life: it was killed, or cannot reach the broker.",
};

export function Workers() {
  const loaded = useLoad(
    "workers",
    (signal) => /** @type {Promise<{items: Worker[], collected: boolean}>} */ (get("workers", {}, signal)),
  );
  useEvery(loaded.reload, PAUSE);
  const { data } = loaded;
  const broker = health.value?.parts.broker?.ready ?? true;
  // Then an old or empty list says nothing about the workers.
  const blind = !broker
    ? "Which workers are alive is not known while the broker does not answer."
    : data?.collected === false
      ? "Which workers are alive is not known while no projector is active: it collects their signs of life."
      : "";
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
            <thead><tr><th>State</th><th>Worker</th><th>Queues</th><th>Slots in use</th><th>Runs</th></tr></thead>
            <tbody>${data.items.map((worker) => html`<${Row} key=${worker.id} worker=${worker} />`)}</tbody>
          </table>`
    }
  `;
}

/** @param {{worker: Worker}} props */
function Row({ worker }) {
  const about = `${worker.host}, process ${worker.pid}, Jobtape ${worker.version}, since ${local(worker.started_at)}`;
  return html`<tr>
    <td><span class=${`state ${worker.state}`} title=${MEANING[worker.state]}>${worker.state}</span></td>
    <td class="name" title=${about}><${Foreign} text=${worker.name} />
      ${worker.state !== "alive" && html`<p class="warning">${MEANING[worker.state]}</p>`}
      ${worker.fault !== null && html`<p class="warning"><${Foreign} text=${worker.fault} limit=${300} /></p>`}</td>
    <td>${worker.queues.map((queue) => html`<a href=${link("jobs", { queue })}>${queue}</a> `)}</td>
    <td class="slots"><meter min="0" max=${worker.slots} value=${worker.running} aria-label="Slots in use"></meter> <span data-name="slots">${worker.running} of ${worker.slots}</span></td>
    <td><${Executions} worker=${worker} /></td>
  </tr>`;
}

/** @param {{worker: Worker}} props */
function Executions({ worker }) {
  const { executions, running } = worker;
  if (executions.length === 0) return html`<span class="quiet">${running > 0 ? "" : "nothing"}</span>`;
  const item = (/** @type {Execution} */ one) => html`<li key=${one.job_id}>
    <a href=${link(`jobs/${one.job_id}`)} title=${one.job_id}>${one.job_type}</a> <span class="quiet">for ${duration(Math.max(0, seconds(one.since) ?? 0))}</span>
    ${one.settled && html` <span class="warning" title="Its job has ended, by a timeout or a cancellation, but the handler has not.">still busy</span>`}</li>`;
  const hidden = running - executions.length;
  return html`<ul class="plain">${executions.slice(0, SHOWN).map(item)}</ul>
    ${
      executions.length > SHOWN &&
      html`<details><summary class="quiet">${running - SHOWN} more</summary><ul class="plain">${executions.slice(SHOWN).map(item)}</ul>
        ${hidden > 0 && html`<p class="quiet">and ${hidden} newer ones</p>`}</details>`
    }`;
}

/** Work queues: how many jobs wait; and the workers that take them. */
import { get } from "../core/api.js";
import { health, projectorReady, readiness } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { STATES } from "../core/types.js";
import { commas, Empty, Message, ProblemBox } from "../parts/basics.js";
import { JobTypes } from "../parts/job_types.js";
import { QueuePause, usePauses } from "../parts/pauses.js";
import { counted } from "../parts/tasks.js";
import { Workers } from "../parts/workers.js";

/** @typedef {import("../core/types.js").Readiness} Readiness */
/** @typedef {{name: string, waiting: number | null, consumers: number | null, warning: string | null, types: string[]}} Queue */

const PAUSE = 5000; // milliseconds
/** Flows are jobs of this type and queue. No worker runs them, and their type is not listed. */
const FLOW = "jobtape.flow";
const FLOWS_QUEUE = "jobtape";

export function Page() {
  const types = useLoad("job-types", (signal) => get("job-types", {}, signal));
  const loaded = useLoad("queues", readiness);
  const stats = useLoad(
    "queues stats",
    (signal) => /** @type {Promise<import("../core/stats.js").Stats>} */ (get("stats", {}, signal)),
  );
  const pauses = usePauses();
  const counts = stats.data && new Map(stats.data.queues.map((one) => [one.queue, one.jobs]));
  const flows = stats.data?.types.find(({ type }) => type === FLOW)?.jobs?.running ?? 0;
  const list = loaded.data && types.data ? queues(loaded.data, types.data.items) : null;
  const reload = () => {
    types.reload();
    loaded.reload();
  };
  useEvery(() => {
    loaded.reload();
    stats.reload();
    pauses.reload();
  }, PAUSE);
  const common = sharedWarning(list ?? []);
  const brokerReady = (loaded.data ?? health.value)?.parts.broker?.ready ?? true;
  return html`
    <header class="title"><h1>Queues and workers</h1></header>
    <${ProblemBox} problem=${types.problem ?? loaded.problem} onRetry=${reload} />
    ${!brokerReady && html`<p class="warning">How many messages wait on the queues, and how many consumers they have, is not known.</p>`}
    ${brokerReady && common !== null && html`<p class="warning"><${Message} text=${common} /></p>`}
    ${brokerReady && !projectorReady() && html`<p class="warning">Jobs that wait for a projector are on no queue yet, and are not counted here.</p>`}
    ${
      list === null
        ? !(types.problem ?? loaded.problem) && html`<p class="loading">Loading …</p>`
        : list.length === 0
          ? html`<${Empty} title="There is no queue yet"><p>Start a worker: <code>jobtape worker</code>.</p><//>`
          : html`<table class="rows queues">
            <thead><tr><th>Queue</th><th class="num">Waiting for a worker</th><th class="num">Consumers</th><th>Job types</th><th>Jobs</th><th></th></tr></thead>
            <tbody>${list.map(
              (queue) => html`<tr>
                <td class="name"><a data-row href=${link("jobs", { queue: queue.name })}>${queue.name}</a></td>
                <td class="num" data-name="waiting" data-column="waiting">${queue.waiting?.toLocaleString("en") ?? "not known"}</td>
                <td class="num" data-name="consumers" data-column="consumers">${queue.consumers?.toLocaleString("en") ?? "not known"}</td>
                <td>${queue.types.length === 0 || isOurs(queue) ? commas(queue.types.map((type) => html`<a href=${link("jobs", { type })}>${type}</a>`)) : html`<span class="quiet">built into Jobtape: ${queue.types.map((type) => type.replace("jobtape.", "")).join(", ")}</span>`}${queue.warning && common === null && brokerReady && html`<p class="warning"><${Message} text=${queue.warning} /></p>`}</td>
                <td>${STATES.filter((state) => counts?.get(queue.name)?.[state]).map((state) => html`<a class=${`state ${state}`} href=${link("jobs", { queue: queue.name, state })}>${Number(counts?.get(queue.name)?.[state]).toLocaleString("en")} ${state}</a> `)}${queue.name === FLOWS_QUEUE && flows > 0 && html`<span class="quiet">running: ${counted(flows, "flow")}, which no worker runs</span>`}</td>
                <td class="num">${isOurs(queue) && html`<${QueuePause} queue=${queue.name} pauses=${pauses.data} onDone=${pauses.reload} />`}</td>
              </tr>`,
            )}</tbody>
          </table>`
    }
    ${types.data && html`<${JobTypes} types=${ours(types.data.items)} pauses=${pauses.data} onDone=${pauses.reload} />`}
    <h2 class="between">Workers</h2>
    <${Workers} />
  `;
}

/** Return the warning that all of several queues have, as when the broker answers late; null if there is none. @param {Queue[]} list */
function sharedWarning(list) {
  const first = list[0]?.warning ?? null;
  return list.length > 1 && list.every(({ warning }) => warning === first) ? first : null;
}

/** Whether job types of the application have it. @param {Queue} queue */
function isOurs({ types }) {
  return types.some((type) => !type.startsWith("jobtape."));
}

/** The job types of the application. @param {import("../core/types.js").JobType[]} types */
function ours(types) {
  return types.filter((type) => !type.name.startsWith("jobtape."));
}

/**
 * @param {Readiness} now
 * @param {{name: string, queue: string}[]} types
 * @returns {Queue[]}
 */
function queues(now, types) {
  return Object.entries(now.workers)
    .map(([name, found]) => ({
      name,
      ...found,
      types: [
        ...types.filter((type) => type.queue === name.split(".")[0]).map((type) => type.name),
        ...(name === FLOWS_QUEUE ? [FLOW] : []),
      ].sort(),
    }))
    .sort((one, other) => one.name.localeCompare(other.name));
}

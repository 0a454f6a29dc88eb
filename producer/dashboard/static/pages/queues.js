/** Work queues: how many jobs wait; and the workers that take them. */
import { get } from "../core/api.js";
import { health } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { samples } from "../core/metrics.js";
import { link } from "../core/route.js";
import { Empty, ProblemBox } from "../parts/basics.js";
import { Workers } from "../parts/workers.js";

/** @typedef {import("../core/types.js").Readiness} Readiness */
/** @typedef {{name: string, ready: number | null, consumers: number | null, warning: string | null, types: string[]}} Queue */

const PAUSE = 5000; // milliseconds

export function Page() {
  const types = useLoad("job-types", (signal) => get("job-types", {}, signal));
  const metrics = useLoad("queues", (signal) => /** @type {Promise<string>} */ (get("metrics", {}, signal)));
  const now = health.value;
  const list = now && types.data && metrics.data !== null ? queues(now, types.data.items, metrics.data) : null;
  const reload = () => {
    types.reload();
    metrics.reload();
  };
  useEvery(metrics.reload, PAUSE);
  return html`
    <header class="title"><h1>Queues and workers</h1></header>
    <${ProblemBox} problem=${types.problem ?? metrics.problem} onRetry=${reload} />
    ${
      list === null
        ? !(types.problem ?? metrics.problem) && html`<p class="loading">Loading …</p>`
        : list.length === 0
          ? html`<${Empty} title="There is no queue yet"><p>Start a worker: <code>jobtape worker</code>.</p><//>`
          : html`<table class="rows queues">
            <thead><tr><th>Queue</th><th class="num">Waiting for a worker</th><th class="num">Consumers</th><th>Job types</th><th>Jobs</th></tr></thead>
            <tbody>${list.map(
              (queue) => html`<tr>
                <td class="name"><a data-row href=${link("jobs", { queue: queue.name })}>${queue.name}</a></td>
                <td class="num" data-name="waiting" data-column="waiting">${queue.ready ?? "not known"}</td>
                <td class="num" data-name="consumers" data-column="consumers">${queue.consumers ?? "not known"}</td>
                <td>${queue.types.map((type) => html`<a href=${link("jobs", { type })}>${type}</a> `)}${queue.warning && html`<p class="warning">${queue.warning}</p>`}</td>
                <td>${["queued", "running", "retrying", "scheduled", "failed"].map((state) => html`<a href=${link("jobs", { queue: queue.name, state })}>${state}</a> `)}</td>
              </tr>`,
            )}</tbody>
          </table>`
    }
    <h2 class="between">Workers</h2>
    <${Workers} />
  `;
}

/**
 * @param {Readiness} now
 * @param {{name: string, queue: string}[]} types
 * @param {string} metrics
 * @returns {Queue[]}
 */
function queues(now, types, metrics) {
  const depths = new Map(samples(metrics, "jobtape_queue_depth").map(({ labels, value }) => [labels.queue, value]));
  return Object.entries(now.workers)
    .map(([name, { consumers, warning }]) => ({
      name,
      ready: depths.get(name) ?? null,
      consumers,
      warning,
      types: types.filter((type) => type.queue === name).map((type) => type.name),
    }))
    .sort((one, other) => one.name.localeCompare(other.name));
}

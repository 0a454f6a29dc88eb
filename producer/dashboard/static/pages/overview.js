/** Whether all is well: what comes in, ends and fails at present, what runs, and what failed last. */
import { get } from "../core/api.js";
import { useChanges } from "../core/events.js";
import { faultsOf, health } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { samples } from "../core/metrics.js";
import { link } from "../core/route.js";
import { duration, local } from "../core/times.js";
import { Empty, ProblemBox, Section, State, Time } from "../parts/basics.js";
import { Outcome } from "../parts/outcome.js";
import { useEffect } from "../vendor/hooks.js";
import { signal } from "../vendor/signals.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {{at: number, submitted: number, succeeded: number, failed: number}} Sample */
/** @typedef {"submitted" | "succeeded" | "failed"} Counter */

const PAUSE = 5000; // milliseconds
const WINDOW = 60_000;
const KEPT = 15 * 60_000;
const LISTED = 8;

/** The counters as this tab has read them, also while another page was shown. */
const read = signal(/** @type {Sample[]} */ ([]));

/** @param {{id: string | null}} _ */
export function Page(_) {
  const loaded = useLoad("overview", async (signal) => {
    return { metrics: /** @type {string} */ (await get("metrics", {}, signal)), at: Date.now() };
  });
  useEvery(loaded.reload, PAUSE);
  const running = useLoad("overview running", (signal) => newest("running", signal));
  const failed = useLoad("overview failed", (signal) => newest("failed", signal));
  useChanges({ event: ["started", "progressed", "retrying", "succeeded", "failed", "cancelled"] }, () => {
    running.reload();
    failed.reload();
  });
  const { data } = loaded;
  useEffect(() => {
    if (data === null) return;
    const sample = sampleOf(data.metrics, data.at);
    read.value = [...read.value.filter((one) => one.at > data.at - KEPT && one.at < data.at), sample];
  }, [data]);

  return html`
    <header class="title"><h1>Overview</h1></header>
    ${health.value !== null && html`<${Verdict} now=${health.value} />`}
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${data === null && !loaded.problem && html`<p class="loading">Loading …</p>`}
    ${
      data !== null &&
      html`<div class="tiles">
          <${Rate} title="Submitted" counter="submitted" href=${link("jobs")} />
          <${Rate} title="Succeeded" counter="succeeded" href=${link("jobs", { state: "succeeded" })} />
          <${Rate} title="Failed" counter="failed" href=${link("jobs", { state: "failed" })} />
          <${Waiting} metrics=${data.metrics} />
          <${Delays} metrics=${data.metrics} />
        </div>`
    }
    <div class="columns">
      <${Jobs} title="Running now" jobs=${running.data} empty="No job runs" all=${link("jobs", { state: "running" })} />
      <${Jobs} title="Newest failed jobs" jobs=${failed.data} empty="No job has failed" all=${link("jobs", { state: "failed" })} />
    </div>
    ${data !== null && html`<${Types} metrics=${data.metrics} />`}
  `;
}

/**
 * @param {string} state
 * @param {AbortSignal} signal
 * @returns {Promise<Job[]>}
 */
async function newest(state, signal) {
  return (await get("jobs", { state, limit: String(LISTED) }, signal)).items;
}

/**
 * @param {string} metrics
 * @param {number} at
 * @returns {Sample}
 */
function sampleOf(metrics, at) {
  const sample = { at, submitted: 0, succeeded: 0, failed: 0 };
  for (const { labels, value } of samples(metrics, "jobtape_events_total")) {
    if (labels.event === "submitted" || labels.event === "succeeded" || labels.event === "failed") {
      sample[labels.event] += value;
    }
  }
  return sample;
}

/** @param {{now: import("../core/types.js").Readiness}} props */
function Verdict({ now }) {
  const faults = faultsOf(now);
  if (!faults.length)
    return html`<p class="verdict good">All is well: every part is ready, every queue has a worker.</p>`;
  return html`<div class=${`verdict ${now.ready ? "warn" : "bad"}`}>
    <strong>${now.ready ? "Jobs are accepted, but look at this:" : "Not ready:"}</strong>
    <ul>${faults.map((fault) => html`<li>${fault}</li>`)}</ul>
  </div>`;
}

/** How often something happened in the last minute, and when. @param {{title: string, counter: Counter, href: string}} props */
function Rate({ title, counter, href }) {
  const known = read.value;
  const last = known.at(-1);
  if (last === undefined) return null;
  const first = known.find((one) => one.at >= last.at - WINDOW) ?? last;
  const count = last[counter] - first[counter];
  const whole = last.at - first.at >= WINDOW - 2 * PAUSE;
  return html`<div class=${`tile ${counter === "failed" && count > 0 ? "failed" : ""}`}>
    <h2><a href=${href}>${title}</a></h2>
    <p class="count" data-name=${counter}>${count}</p>
    <p class="quiet">${whole ? "in the last minute" : `since ${local(first.at)}`}</p>
    <${Spark} known=${known} counter=${counter} />
    <p class="quiet">${last[counter]} in all</p>
  </div>`;
}

/** A line of the rate over the time that this tab has seen. @param {{known: Sample[], counter: Counter}} props */
function Spark({ known, counter }) {
  const first = known[0];
  const last = known.at(-1);
  if (first === undefined || last === undefined || known.length < 3)
    return html`<svg class="spark" aria-hidden="true"></svg>`;
  const rates = known.slice(1).map((one, n) => {
    const before = known[n] ?? one;
    return { at: one.at, rate: Math.max(0, one[counter] - before[counter]) / Math.max(one.at - before.at, 1) };
  });
  const highest = Math.max(...rates.map(({ rate }) => rate), 1e-9);
  const points = rates.map(({ at, rate }) => {
    const x = ((at - first.at) / (last.at - first.at)) * 100;
    return `${x.toFixed(1)},${(27 - (rate / highest) * 24).toFixed(1)}`;
  });
  const most = highest * 1000;
  return html`<svg class="spark" viewBox="0 0 100 28" preserveAspectRatio="none" role="img" aria-label=${`Highest rate ${most.toFixed(1)} a second`}>
    <title>${`highest: ${most.toFixed(1)} a second`}</title><polyline points=${points.join(" ")} /></svg>`;
}

/** @param {{metrics: string}} props */
function Waiting({ metrics }) {
  const depths = samples(metrics, "jobtape_queue_depth");
  const total = depths.reduce((sum, { value }) => sum + value, 0);
  const longest = depths.reduce((one, other) => (other.value > one.value ? other : one), { labels: {}, value: 0 });
  return html`<div class="tile">
    <h2><a href=${link("queues")}>Waiting on queues</a></h2>
    <p class="count" data-name="waiting">${depths.length ? total : "not known"}</p>
    <p class="quiet">${longest.value > 0 ? `most on ${longest.labels.queue}: ${longest.value}` : depths.length ? "nothing waits" : ""}</p>
  </div>`;
}

/** @param {{metrics: string}} props */
function Delays({ metrics }) {
  const parts = /** @type {const} */ ([
    ["Projector", "jobtape_projector_lag_seconds"],
    ["Timers", "jobtape_timers_behind_seconds"],
    ["Relay", "jobtape_relay_lag_seconds"],
  ]);
  return html`<div class="tile">
    <h2>Behind</h2>
    <dl class="delays">${parts.map(([title, name]) => {
      const value = samples(metrics, name)[0]?.value;
      return html`<dt>${title}</dt><dd>${value === undefined ? "not known" : duration(value)}</dd>`;
    })}</dl>
  </div>`;
}

/** @param {{title: string, jobs: Job[] | null, empty: string, all: string}} props */
function Jobs({ title, jobs, empty, all }) {
  return html`<${Section} title=${title} tools=${html`<a href=${all}>All</a>`}>
    ${
      jobs === null
        ? html`<p class="quiet">Loading …</p>`
        : jobs.length === 0
          ? html`<p class="quiet">${empty}.</p>`
          : html`<ul class="brief">${jobs.map(
              (
                job,
              ) => html`<li key=${job.id}><${State} state=${job.state} /> <a data-row href=${link(`jobs/${job.id}`)}>${job.type}</a>
                <span class="outcome"><${Outcome} job=${job} /></span> <${Time} at=${job.finished_at ?? job.started_at} /></li>`,
            )}</ul>`
    }
  <//>`;
}

/** @param {{metrics: string}} props */
function Types({ metrics }) {
  /** @type {Map<string, Record<string, number>>} */
  const types = new Map();
  for (const { labels, value } of samples(metrics, "jobtape_events_total")) {
    const counts = types.get(labels.job_type ?? "") ?? {};
    counts[labels.event ?? ""] = value;
    types.set(labels.job_type ?? "", counts);
  }
  if (types.size === 0) {
    return html`<${Empty} title="There is no job yet"><p><a href=${link("submit")}>Submit one here</a>, or over the API: <code>POST /jobs</code>.</p><//>`;
  }
  const columns = /** @type {const} */ (["submitted", "succeeded", "failed", "retrying", "cancelled", "redriven"]);
  return html`<table class="rows">
    <thead><tr><th>Job type</th>${columns.map((name) => html`<th class="num">${name}</th>`)}</tr></thead>
    <tbody>${[...types]
      .sort(([one], [other]) => one.localeCompare(other))
      .map(
        ([type, counts]) => html`<tr><td class="name"><a data-row href=${link("jobs", { type })}>${type}</a></td>
          ${columns.map((name) => html`<td class="num" data-name=${name} data-column=${name}>${counts[name] ?? 0}</td>`)}</tr>`,
      )}</tbody>
  </table>`;
}

/** Reads history again: rebuilds, replays and shadow runs, which are jobs with progress and a result, as bulk actions are. */
import { get } from "../core/api.js";
import { useChanges } from "../core/events.js";
import { brokerReady, projectorReady } from "../core/health.js";
import { html } from "../core/html.js";
import { useEvery, useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { duration, seconds } from "../core/times.js";
import { Empty, Foreign, ProblemBox, Section, State, Time } from "../parts/basics.js";
import { LongTask } from "../parts/long_task.js";
import { Outcome } from "../parts/outcome.js";
import { StartForm } from "../parts/start_form.js";
import { summaryOf, TASKS, titleOf } from "../parts/tasks.js";

/** @typedef {import("../core/types.js").Job} Job */

const LISTED = 30;
const POLL = 5000; // milliseconds

/** @param {{id: string | null}} props */
export function Page({ id }) {
  return id === null ? html`<${Tape} />` : html`<${LongTask} id=${id} />`;
}

function Tape() {
  const query = { type: Object.keys(TASKS), limit: String(LISTED) };
  const loaded = useLoad("tape", (signal) => /** @type {Promise<{items: Job[]}>} */ (get("jobs", query, signal)));
  const live = useChanges({ type: query.type }, loaded.reload);
  useEvery(loaded.reload, live ? null : POLL);
  const jobs = loaded.data?.items ?? null;
  return html`
    <header class="title"><h1>Tape</h1></header>
    <p class="quiet">All events of all jobs are on the tape. Read them again: into a new view, to a queue, or with today's handlers. No job changes its state; a shadow run does call handlers.</p>
    ${!projectorReady() && html`<p class="warning" role="status">Nothing of this runs now: it runs beside an active projector.${brokerReady() && " What you start waits until there is one."}</p>`}
    <div class="columns aside">
      <${StartForm} />
      <${Section} title="Rebuilds, replays, shadow runs and bulk actions">
        <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
        ${
          jobs === null
            ? !loaded.problem && html`<p class="quiet">Loading …</p>`
            : jobs.length === 0
              ? html`<${Empty} title="Nothing was started yet"><p>Begin with the dry run of a rebuild: it changes nothing.</p><//>`
              : html`<ul class="brief tasks">${jobs.map((job) => html`<${Row} key=${job.id} job=${job} />`)}</ul>`
        }
      <//>
    </div>
  `;
}

/** @param {{job: Job}} props */
function Row({ job }) {
  const ran = job.started_at === null ? null : seconds(job.started_at, job.finished_at);
  return html`<li>
    <${State} state=${job.state} />
    <a data-row href=${link(`tape/${job.id}`)}>${titleOf(job)}</a>
    <span class="outcome">${
      job.state === "succeeded" ? html`<${Foreign} text=${summaryOf(job)} />` : html`<${Outcome} job=${job} />`
    }</span>
    <span class="when">${job.finished_at !== null && ran !== null && html`<span class="quiet">ran ${duration(Math.max(0, ran))}</span>`} <${Time} at=${job.submitted_at} /></span>
  </li>`;
}

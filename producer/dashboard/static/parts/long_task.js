/** One rebuild, replay, shadow run or bulk action: its progress, and what it found. */
import { get, Problem, request } from "../core/api.js";
import { useChanges } from "../core/events.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { toNumber } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { asOf, link } from "../core/route.js";
import { duration, seconds } from "../core/times.js";
import { ENDED, OPEN } from "../core/types.js";
import { useState } from "../vendor/hooks.js";
import { Empty, Foreign, Json, ProblemBox, Section, State, Time } from "./basics.js";
import { RebuildFound } from "./rebuild_found.js";
import { ShadowFound } from "./shadow_found.js";
import { affected, summaryOf, TASKS, titleOf } from "./tasks.js";

/** @typedef {import("../core/types.js").Job} Job */

const POLL = 3000; // milliseconds

/** @type {Record<string, (props: {job: Job}) => any>} */
const FOUND = { "jobtape.rebuild": RebuildFound, "jobtape.shadow": ShadowFound };

/** @param {{id: string}} props */
export function LongTask({ id }) {
  const loaded = useLoad(`job ${id}`, (signal) => /** @type {Promise<Job>} */ (get(`jobs/${id}`, {}, signal)));
  const job = loaded.data;
  const open = job !== null && !ENDED.has(job.state);
  const live = useChanges(open ? { job: id } : null, loaded.reload);
  useEvery(loaded.reload, open && !live ? POLL : null);
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));

  async function cancel() {
    setProblem(null);
    try {
      loaded.set((await request("POST", `jobs/${id}/cancel`)).body);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
    }
  }

  if (loaded.problem?.kind === "job-not-found")
    return html`<${Empty} title="There is no such job"><p><a href=${link("tape")}>To the tape</a></p><//>`;
  if (job === null)
    return html`<${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />${!loaded.problem && html`<p class="loading">Loading …</p>`}`;
  const Found = FOUND[job.type];
  const taken = affected(job);
  return html`
    <header class="title">
      <h1><${State} state=${job.state} /> ${titleOf(job)}</h1>
      <div class="tools">
        ${open && asOf.value === null && html`<button type="button" disabled=${obstacle() !== null} title=${obstacle()} onClick=${cancel}>Cancel</button>`}
        <a href=${link(`jobs/${id}`)}>All events</a> <a href=${link("tape")}>All on the tape page</a>
      </div>
    </header>
    <${ProblemBox} problem=${problem ?? loaded.problem} onRetry=${loaded.reload} />
    <${Progress} job=${job} />
    ${
      job.error !== null &&
      html`<p class="fault" role="status"><strong>${job.error.type}</strong>: <${Foreign} text=${job.error.message} limit=${2000} /></p>`
    }
    ${
      job.state === "succeeded" &&
      html`<p role="status"><strong>${summaryOf(job)}</strong>. ${taken && !taken.failures && html`<a href=${link("jobs", taken.query)}>See these jobs</a>`}</p>
        ${job.type === "jobtape.redrive" && html`<${Redriven} id=${job.id} failed=${taken === null ? null : link("jobs", { ...taken.query, state: "failed" })} />`}
        ${Found ? html`<${Found} job=${job} />` : TASKS[job.type] === undefined && html`<${Section} title="Result"><${Json} value=${job.result} name="Result" /><//>`}`
    }
  `;
}

/** What became of the jobs that a redrive has run again. `failed`: where those are that failed. @param {{id: string, failed: string | null}} props */
function Redriven({ id, failed: to }) {
  const loaded = useLoad(
    `redrive ${id}`,
    (signal) =>
      /** @type {Promise<{jobs: Partial<Record<import("../core/types.js").State, number>>, later: number}>} */ (
        get(`redrives/${id}`, {}, signal)
      ),
  );
  const { data } = loaded;
  const open = data !== null && OPEN.some((state) => data.jobs[state]);
  useEvery(loaded.reload, open ? POLL : null);
  if (data === null) return html`<${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />`;
  const { succeeded = 0, failed = 0, ...others } = data.jobs;
  const rest = Object.entries(others).map(([state, n]) => `, ${n.toLocaleString("en")} ${state}`);
  return html`<p role="status" data-name="redriven"><strong>${succeeded.toLocaleString("en")} succeeded</strong>, <strong class=${failed > 0 ? "fault" : ""}>${failed.toLocaleString("en")} failed again</strong>${failed > 0 && to !== null && html` (<a href=${to}>see them</a>)`}${rest}${data.later > 0 && `, ${data.later.toLocaleString("en")} run again later`}.</p>`;
}

/** @param {{job: Job}} props */
function Progress({ job }) {
  const ran = seconds(job.started_at, job.finished_at);
  if (ENDED.has(job.state))
    return html`<p class="quiet">Submitted <${Time} at=${job.submitted_at} />${ran !== null && `, ran ${duration(Math.max(0, ran))}`}</p>`;
  const fraction = toNumber(job.progress?.fraction) ?? 0;
  return html`<div class="wide" role="status">
    <progress value=${fraction} aria-label="Progress"></progress>
    <p>${Math.round(fraction * 100)} % <span class="quiet"><${Foreign} text=${job.progress?.message ?? (job.state === "queued" ? "It starts when the projector's process has a free slot." : "")} /></span></p>
  </div>`;
}

/** One job: what happened to it, what it got and gave, and how it was at each of its events. */
import { apiKey, get, Problem, request } from "../core/api.js";
import { follow } from "../core/events.js";
import { health, obstacle, stale } from "../core/health.js";
import { html } from "../core/html.js";
import { same, stringify, toNumber } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { asOf, change, go, link } from "../core/route.js";
import { curl, python, submissionOf } from "../core/snippets.js";
import { useStepper } from "../core/time_travel.js";
import { duration, precise, seconds, waitOf } from "../core/times.js";
import { ENDED, UNLIMITED } from "../core/types.js";
import {
  CopyButton,
  Empty,
  Foreign,
  Json,
  Labels,
  Message,
  ProblemBox,
  Section,
  State,
  Time,
} from "../parts/basics.js";
import { Nodes } from "../parts/nodes.js";
import { isLater } from "../parts/outcome.js";
import { pauseOf, QueuePause, usePauses } from "../parts/pauses.js";
import { nameOf, Timeline } from "../parts/timeline.js";
import { Traceback } from "../parts/traceback.js";
import { lostItsWorker, ranOf, useWorkers } from "../parts/workers.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {import("../core/types.js").JobEvent} JobEvent */
/** @typedef {import("../parts/workers.js").Found} Workers */

const POLL = 3000; // milliseconds
const PAGE = 1000;
const SKEW = 0.1; // seconds by which two times of one start may differ
const MOST = 5000; // events of one job that are shown

/** @param {{id: string}} props */
export function JobPage({ id }) {
  const now = useLoad(`job ${id}`, (signal) => /** @type {Promise<Job>} */ (get(`jobs/${id}`, {}, signal)));
  const { events, more, live } = useEvents(id, now.data, now.reload);
  // Without a stream, as while all slots of the API are taken, the state is asked for.
  useEvery(now.reload, now.data === null || live ? null : POLL);
  const at = asOf.value;
  const past = useLoad(
    at === null ? null : `job ${id} at ${at}`,
    (signal) => /** @type {Promise<Job>} */ (get(`jobs/${id}`, { as_of: at }, signal)),
  );
  const before = previousCursor(events, at);
  const prior = useLoad(
    before === null ? null : `job ${id} at ${before}`,
    (signal) => /** @type {Promise<Job>} */ (get(`jobs/${id}`, { as_of: before }, signal)),
  );
  useStepper((by) => step(events, at, by));

  const problem = at === null ? now.problem : past.problem;
  const job = at === null ? now.data : past.data;
  const shown = useRef(/** @type {Job | null} */ (null));
  if (job !== null) shown.current = job;
  const one = job ?? (problem === null ? shown.current : null);
  const running = at === null && one?.state === "running";
  const workers = useWorkers(running);
  useEvery(workers.reload, running ? POLL : null);

  if (problem?.kind === "job-not-found" && at === null) {
    return html`<${Empty} title="There is no such job"><p class="id">${id}</p><p><a href=${link("jobs")}>To the jobs</a></p><//>`;
  }
  return html`
    ${one !== null && html`<${Head} job=${one} events=${events} workers=${workers.data} onChanged=${now.set} />`}
    ${one !== null && at === null && html`<${WhyNot} job=${one} workers=${workers.data} />`}
    <${ProblemBox} problem=${problem} onRetry=${at === null ? now.reload : past.reload} />
    ${one === null && problem === null && html`<p class="loading">Loading …</p>`}
    ${one !== null && (one.type === "jobtape.flow" || one.follow_up_jobs !== null) && problem === null && html`<${Nodes} flow=${one} onChanged=${now.set} />`}
    <div class="columns job">
      <div>
        ${
          events.length === 0
            ? now.data !== null && html`<${Section} title="Time line"><p class="loading">Loading …</p><//>`
            : html`<${Section} title="Time line" tools=${html`<${EventSlider} events=${events} at=${at} />`}>
          <${Timeline} events=${events} open=${now.data !== null && !ENDED.has(now.data.state)} lost=${running && one !== null && lostItsWorker(one, workers.data)} selected=${selectedCursor(events, at)} onSelect=${(/** @type {JobEvent} */ event) => change({ as_of: String(event.cursor) }, { replace: at !== null })} />
          ${more && html`<p class="quiet">Only the first ${MOST} events are shown.</p>`}
        <//>`
        }
      </div>
      <div>
        ${one !== null && at !== null && html`<${Changes} job=${one} before=${prior.data} first=${before === null} />`}
        ${one !== null && html`<${Content} job=${one} />`}
      </div>
    </div>
  `;
}

/**
 * Read all events of the job, and follow it.
 * @param {string} id
 * @param {Job | null} job null while it is not known
 * @param {() => void} onChange called when the job has changed since then
 */
function useEvents(id, job, onChange) {
  const [state, setState] = useState({ id, events: /** @type {JobEvent[]} */ ([]), more: false });
  const [live, setLive] = useState(false);
  const latest = useRef(onChange);
  latest.current = onChange;
  const known = job !== null;
  const seen = useRef(/** @type {string | null} */ (null));
  seen.current = String(job?.cursor);
  useEffect(() => {
    if (!known) return;
    /** @type {(() => void) | null} */
    let stop = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    let ended = false;
    /** @type {Map<string, JobEvent>} */
    const found = new Map();
    const show = () => {
      timer = undefined;
      setState({ id, events: [...found.values()], more: found.size >= MOST });
    };
    async function read() {
      let after = "first";
      for (;;) {
        const page = await get(`jobs/${id}/events`, { after, limit: String(PAGE) });
        for (const event of page.items) found.set(String(event.cursor), event);
        if (page.next === null || found.size >= MOST) break;
        after = String(page.next);
      }
      if (ended) return;
      show();
      const last = [...found.keys()].at(-1) ?? "first";
      if (last !== seen.current) latest.current();
      stop = follow(
        `jobs/${id}/events`,
        { after: last },
        (message) => {
          if (message.name === "hello") return;
          if (message.data.cursor === undefined) return latest.current();
          if (found.size < MOST) found.set(String(message.data.cursor), { accepted: true, ...message.data });
          timer ??= setTimeout(() => {
            show();
            latest.current();
          }, 250);
        },
        setLive,
      );
    }
    const attempt = () => {
      read().catch((error) => {
        if (!ended && error instanceof Problem && error.passing) timer = setTimeout(attempt, 3000);
      });
    };
    attempt();
    return () => {
      ended = true;
      stop?.();
      clearTimeout(timer);
    };
  }, [id, known]);
  return state.id === id ? { ...state, live } : { events: [], more: false, live };
}

/**
 * Return the position in `events` of the last one that is not after `at`; -1 when all are, or `at` is no cursor.
 * @param {JobEvent[]} events
 * @param {string | null} at
 */
function indexAt(events, at) {
  if (at === null || !/^\d+$/.test(at)) return -1;
  const cursor = BigInt(at);
  return events.findLastIndex((event) => BigInt(String(event.cursor)) <= cursor);
}

/** @param {JobEvent[]} events @param {string | null} at */
function selectedCursor(events, at) {
  const event = events[indexAt(events, at)];
  return event === undefined ? null : String(event.cursor);
}

/** @param {JobEvent[]} events @param {string | null} at */
function previousCursor(events, at) {
  const event = events[indexAt(events, at) - 1];
  return event === undefined ? null : String(event.cursor);
}

/** @param {JobEvent[]} events @param {string | null} at @param {number} by */
function step(events, at, by) {
  const index = (at === null ? events.length : indexAt(events, at)) + by;
  const next = events[Math.max(index, 0)];
  if (index >= events.length || next === undefined) change({ as_of: null }, { replace: true });
  else change({ as_of: String(next.cursor) }, { replace: at !== null });
}

/** @param {{events: JobEvent[], at: string | null}} props */
function EventSlider({ events, at }) {
  const index = at === null ? events.length : indexAt(events, at);
  const event = events[index];
  return html`<label class="slider"><span class="quiet">${event === undefined ? "now" : `after event ${index + 1} of ${events.length}`}</span>
    <input type="range" min="0" max=${events.length} value=${Math.max(index, 0)} aria-label="Show the job after this event" aria-valuetext=${event === undefined ? "now" : nameOf(event)}
      onInput=${(/** @type {any} */ input) => step(events, at, Number(input.currentTarget.value) - (at === null ? events.length : index))} /></label>`;
}

/** Why a job does not go on. @param {{job: Job, workers: Workers | null}} props */
function WhyNot({ job, workers }) {
  if (job.state === "queued") return html`<${WhyQueued} job=${job} />`;
  if (job.state === "held" && job.ordering_key !== null && !isLater(job.run_at))
    return html`<${WhyHeld} job=${job} name=${job.ordering_key} />`;
  return job.state === "running" ? html`<${WhyRunning} job=${job} workers=${workers} />` : null;
}

/** @param {{job: Job}} props */
function WhyQueued({ job }) {
  const pauses = usePauses();
  useEvery(pauses.reload, POLL);
  const queue = job.queue ?? "";
  if (pauseOf(pauses.data, { queue }) !== undefined)
    return html`<p class="warning">It waits: the queue ${queue} is <${QueuePause} queue=${queue} pauses=${pauses.data} onDone=${pauses.reload} /></p>`;
  const workers = health.value?.workers[queue];
  if (workers?.consumers === 0)
    return html`<p class="warning">It waits on the queue ${queue}: <${Message} text=${workers.warning ?? "no worker takes jobs from it"} /></p>`;
  return null;
}

/** Which job has the ordering key that another waits for. @param {{job: Job, name: string}} props */
function WhyHeld({ job, name }) {
  const query = { ordering_key: name, has_slots: "true", limit: "1" };
  const loaded = useLoad(
    `holder of ${name}`,
    (signal) => /** @type {Promise<{items: Job[]}>} */ (get("jobs", query, signal)),
  );
  useEvery(loaded.reload, POLL);
  const holder = loaded.data?.items[0];
  if (holder === undefined || holder.id === job.id) return null;
  const keeps = holder.holds_key ? "It keeps the key until it is run again or released." : "";
  return html`<p class="warning">It waits: <a href=${link(`jobs/${holder.id}`)}>${holder.type} …${holder.id.slice(-12)}</a> (${holder.state}) has the ordering key <${Foreign} text=${name} />. ${keeps}</p>`;
}

/** @param {{job: Job, workers: Workers | null}} props */
function WhyRunning({ job, workers }) {
  if (!lostItsWorker(job, workers)) return null;
  const next =
    health.value?.workers[job.queue ?? ""]?.consumers === 0
      ? `Start \`jobtape worker --queues ${job.queue}\`: the job then runs again from the beginning.`
      : "RabbitMQ gives the job to another worker when it notices that, and the job runs again from the beginning.";
  return html`<p class="warning">Its worker is gone. <${Message} text=${next} /></p>`;
}

/** @param {{job: Job, events: JobEvent[], workers: Workers | null, onChanged: (job: Job) => void}} props */
function Head({ job, events, workers, onChanged }) {
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState("");
  const past = asOf.value !== null;
  const redrives = ENDED.has(job.state);
  const withKey = apiKey.value !== null;
  const reason = obstacle();

  /** @param {string} action */
  async function act(action) {
    setBusy(action);
    setProblem(null);
    try {
      onChanged((await request("POST", `jobs/${job.id}/${action}`)).body);
    } catch (error) {
      if (error instanceof Problem) setProblem(error);
      else throw error;
    } finally {
      setBusy("");
    }
  }

  return html`<header class="title">
    <h1><${State} state=${job.state} /> ${job.type}</h1>
    <div class="tools">
      ${
        !past &&
        html`<button type="button" disabled=${busy !== "" || reason !== null} title=${reason ?? (redrives ? "Redrive: start the next run of this job" : "Interrupts it if it runs")} onClick=${() => act(redrives ? "redrive" : "cancel")}>${redrives ? "Run again" : "Cancel"}</button>`
      }
      ${!past && job.holds_key && html`<button type="button" disabled=${busy !== "" || reason !== null} title=${reason ?? "Let the next job with the same ordering key run"} onClick=${() => act("release")}>Release its key</button>`}
      ${!past && html`<button type="button" onClick=${() => go(link("submit", { from: job.id }))}>Submit a copy …</button>`}
      <${CopyButton} big text=${() => curl(submissionOf(job), withKey)} title="Copy a command that submits such a job">Copy as curl<//>
      <${CopyButton} big text=${() => python(submissionOf(job), withKey)} title="Copy a program that submits such a job">Copy as Python<//>
    </div>
  </header>
  <p class="subtitle"><span class="id">${job.id}</span> <${CopyButton} text=${() => job.id}>Copy<//> <${Labels} labels=${job.labels} /></p>
  <${ProblemBox} problem=${problem} />
  <${Progress} job=${job} />
  <${Facts} job=${job} events=${events} workers=${workers} />`;
}

/** @param {{job: Job}} props */
function Progress({ job }) {
  const fraction = toNumber(job.progress?.fraction);
  if (job.state !== "running" || fraction === null) return null;
  return html`<p class="progress"><progress value=${fraction} aria-label="Progress"></progress> ${Math.round(fraction * 100)} %${job.progress?.message && html` · <${Foreign} text=${job.progress.message} />`}</p>`;
}

/** @param {{job: Job, events: JobEvent[], workers: Workers | null}} props */
function Facts({ job, events, workers }) {
  const running = job.state === "running";
  const [, tick] = useState(0);
  useEvery(() => tick((n) => n + 1), running && asOf.value === null && stale.value === null ? 1000 : null);
  const due = job.run_at !== null && job.run_at !== job.submitted_at ? job.run_at : null;
  const first = firstStart(job, events);
  const again = first !== null && (seconds(first, job.started_at) ?? 0) > SKEW;
  const waited = waitOf({ ...job, started_at: first });
  const lost = asOf.value === null && lostItsWorker(job, workers);
  const ran = ranOf(job, workers);
  const worker = workerOf(job, events);
  /** @type {[string, any][]} */
  const facts = [
    ["Queue", job.queue && html`<a href=${link("jobs", { queue: job.queue })}>${job.queue}</a>`],
    ["Lane", job.lane !== "normal" && job.lane],
    ["Run", job.run],
    [
      "Attempt",
      job.max_attempts === null || job.max_attempts >= UNLIMITED
        ? job.attempt
        : `${job.attempt} of ${job.max_attempts}`,
    ],
    ["Submitted", job.submitted_at && html`<${Time} at=${job.submitted_at} />`],
    ["Due", due && html`<${Time} at=${due} />`],
    [
      "Worker",
      worker &&
        (running && asOf.value === null
          ? html`<a href=${link("queues")}><${Foreign} text=${worker} /></a>`
          : html`<${Foreign} text=${worker} />`),
    ],
    ["First started", again && html`<${Time} at=${first} />`],
    [again ? "Started again" : "Started", job.started_at && html`<${Time} at=${job.started_at} />`],
    ["Finished", job.finished_at && html`<${Time} at=${job.finished_at} />`],
    [again ? "Waited for the first start" : "Waited", waited !== null && duration(waited)],
    [lost ? "Ran, until the last sign of its worker" : "Ran", ran === null ? lost && "not known" : duration(ran)],
    ["Reason", job.reason],
    [
      "Runs instead",
      job.duplicate_of && html`<a href=${link(`jobs/${job.duplicate_of}`)} class="id">${job.duplicate_of}</a>`,
    ],
    [
      "Flow",
      job.flow &&
        html`<a href=${link(`jobs/${job.flow}`)} class="id">${job.flow}</a>, node ${job.node}${job.item !== null && `, item ${job.item}`}`,
    ],
    [
      "Ordering key",
      job.ordering_key &&
        html`<a href=${link("jobs", { ordering_key: job.ordering_key })}><${Foreign} text=${job.ordering_key} /></a>`,
    ],
    [
      "Waits for",
      job.waits_for.length > 0 && !isLater(job.run_at) && html`<${Foreign} text=${job.waits_for.join(", ")} />`,
    ],
    ["Holds", job.holds_key && "its ordering key, until it is redriven or released"],
    ["Correlation id", job.correlation_id && html`<${Foreign} text=${job.correlation_id} />`],
    ["Reply to", job.reply_to && html`<${Foreign} text=${job.reply_to} />`],
    ["Imported", job.imported && "yes"],
    ["Cursor", job.cursor !== null && html`<span class="id">${String(job.cursor)}</span>`],
  ];
  return html`<dl class="facts">${facts.filter(([, value]) => value).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/**
 * Return when the first execution of the job's attempt began: it is executed again if its worker dies.
 * @param {Job} job
 * @param {JobEvent[]} events
 */
function firstStart(job, events) {
  const first = events.find(
    ({ type, data }) =>
      type === "jobtape.job.started" && Number(data.run) === job.run && Number(data.attempt) === job.attempt,
  );
  if (job.started_at === null || first === undefined) return job.started_at;
  return Date.parse(first.time) < Date.parse(job.started_at) ? first.time : job.started_at;
}

/**
 * Return the name of the worker that had the job's attempt last, at the time that is shown; null if none had it.
 * @param {Job} job
 * @param {JobEvent[]} events
 * @returns {string | null}
 */
function workerOf(job, events) {
  const cursor = BigInt(String(job.cursor ?? 0));
  const found = events.findLast(
    ({ accepted, cursor: at, data }) =>
      accepted !== false &&
      data.worker &&
      Number(data.run) === job.run &&
      Number(data.attempt) === job.attempt &&
      BigInt(String(at)) <= cursor,
  );
  return found?.data.worker ?? null;
}

/** @param {{job: Job}} props */
function Content({ job }) {
  return html`
    ${
      job.error !== null &&
      html`<${Section} title="Error" class="error" tools=${job.failure && html`<a href=${link("jobs", { failure: job.failure })}>Jobs with this failure</a>`}><p class="fault"><strong>${job.error.type}</strong>: <${Foreign} text=${job.error.message} limit=${2000} /></p>
      ${job.error.traceback && html`<${Traceback} text=${job.error.traceback} />`}<//>`
    }
    ${Object.entries(job.signals ?? {}).map(([name, one]) => html`<${Section} key=${name} title=${`Signal ${name}`}>${one.timed_out ? html`<p class="quiet">It did not come in time.</p>` : html`<${Json} value=${one.payload} name=${`Payload of the signal ${name}`} />`}<//>`)}
    ${job.state === "succeeded" && html`<${Section} title="Result"><${Json} value=${job.result} name="Result" /><//>`}
    <${Section} title=${`Payload${toNumber(job.payload_version) === 1 ? "" : `, version ${job.payload_version}`}`}><${Json} value=${job.payload} name="Payload" /><//>`;
}

/** Changes that say nothing to people: the failure is the hash of the error. @type {(keyof Job)[]} */
const UNSHOWN = ["cursor", "failure"];

/** What the event before this time changed. @param {{job: Job, before: Job | null, first: boolean}} props */
function Changes({ job, before, first }) {
  if (before === null || first) return null;
  const fields = /** @type {(keyof Job)[]} */ (Object.keys(job));
  const changed = fields.filter((name) => !UNSHOWN.includes(name) && !same(job[name], before[name]));
  return html`<${Section} title="What this event changed" class="changes">
    ${changed.length === 0 ? html`<p class="quiet">Nothing.</p>` : html`<dl>${changed.map((name) => html`<div><dt>${name === "run_at" ? "due" : name.replaceAll("_", " ")}</dt><dd><del><${Foreign} text=${brief(name, before[name])} /></del> → <ins><${Foreign} text=${brief(name, job[name])} /></ins></dd></div>`)}</dl>`}
  <//>`;
}

/** @param {keyof Job} name @param {any} value */
function brief(name, value) {
  if (value === null || value === undefined) return "nothing";
  if (name === "error") return `${value.type}: ${value.message}`;
  if (name.endsWith("_at")) return precise(value);
  return typeof value === "string" ? value : stringify(value);
}

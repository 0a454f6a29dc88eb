/** The list of jobs: filters, pages, and changes that do not move what somebody reads. */
import { get } from "../core/api.js";
import { useChanges } from "../core/events.js";
import { health, passed } from "../core/health.js";
import { html } from "../core/html.js";
import { Numeral, stringify } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { asOf, change, go, link, route } from "../core/route.js";
import { asCursor, nextCursor, pastJobs, useStepper } from "../core/time_travel.js";
import { duration, fromInput, toInput, waitOf } from "../core/times.js";
import { STATES, UNLIMITED } from "../core/types.js";
import { Empty, Foreign, Labels, ProblemBox, State, Time } from "../parts/basics.js";
import { BulkButton } from "../parts/bulk.js";
import { FailureName } from "../parts/failure_name.js";
import { Live } from "../parts/live.js";
import { isLater, isRule, Outcome } from "../parts/outcome.js";
import { pauseOf, usePauses } from "../parts/pauses.js";
import { lostItsWorker, ranOf, useWorkers } from "../parts/workers.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { JobPage } from "./job.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {{items: Job[], next: string | null, scanned: number | null}} Listed */

const PAGE = 50;
const WORKERS_PAUSE = 10_000; // milliseconds
const REFRESHED = 20; // jobs that left the page's filter and are read one by one
const FILTERS = [
  "type",
  "state",
  "queue",
  "label",
  "reason",
  "failure",
  "ordering_key",
  "flow",
  "node",
  "error",
  "since",
  "until",
];
/** A value in the payload or the result of a job: `payload.customer.id`. */
const VALUE = /^(payload|result)(\..+)?$/;
const SUGGESTED = 60;
const REASONS = [
  "error",
  "timeout",
  "crashed",
  "crash_loop",
  "unknown_type",
  "payload_invalid",
  "result_invalid",
  "result_too_large",
  "lost",
  "node_failed",
  "duplicate",
  "replaced",
  "debounced",
];
const NAMES = ["type", "state", "queue", "label", "reason", "failure", "ordering_key", "flow", "node", "error"];
/** @type {Record<string, string>} */
const TITLES = { ordering_key: "ordering key" };
const SINGLE = ["ordering_key", "flow", "node", "error"];
const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;

/** @param {{id: string | null}} props */
export function Page({ id }) {
  return id === null ? html`<${Jobs} />` : html`<${JobPage} id=${id} />`;
}

function Jobs() {
  const query = route.value.query;
  const filters = new URLSearchParams([...query].filter(([name]) => FILTERS.includes(name) || VALUE.test(name)));
  const cursor = query.get("cursor");
  const request = new URLSearchParams(filters);
  request.set("limit", String(PAGE));
  if (asOf.value !== null) request.set("as_of", asOf.value);
  const first = new URLSearchParams(request);
  if (cursor !== null) request.set("cursor", cursor);

  // A search reads many jobs, so it is not repeated at each change.
  const searched = [...filters.keys()].some((one) => one === "error" || VALUE.test(one));
  const name = `jobs?${request}`;
  const loaded = useLoad(
    name,
    (signal) =>
      /** @type {Promise<Listed>} */ (asOf.value === null ? get("jobs", request, signal) : pastJobs(request, signal)),
  );
  const [arrived, setArrived] = useState({ name, count: 0, more: false });
  const items = useRef(/** @type {Job[]} */ ([]));
  items.current = loaded.data?.items ?? [];
  const refreshing = useRef(false);
  const current = useRef(name);
  current.current = name;

  const live = useChanges(asOf.value === null && !searched ? eventFilter(filters) : null, async () => {
    if (refreshing.current || loaded.data === null) return;
    refreshing.current = true;
    try {
      const [mine, newest] = await Promise.all([
        /** @type {Promise<Listed>} */ (get("jobs", request)),
        cursor === null ? null : /** @type {Promise<Listed>} */ (get("jobs", first)),
      ]);
      const shown = items.current;
      const fresh = await refreshed(shown, mine.items);
      if (current.current !== name) return;
      const known = new Set(shown.map((job) => job.id));
      const top = (newest ?? mine).items;
      const added = top.filter((job) => !known.has(job.id) && job.id > (shown[0]?.id ?? ""));
      if (cursor === null && (shown.length === 0 || (added.length > 0 && shown.length < 5 && !focusedRow()))) {
        loaded.set(mine); // nothing that anybody reads is moved
        setArrived({ name, count: 0, more: false });
      } else {
        loaded.set({ ...mine, next: loaded.data?.next ?? mine.next, items: fresh });
        setArrived({ name, count: added.length, more: added.length >= PAGE });
      }
    } catch {
      // The next change, or the stream's next connection, tries again.
    } finally {
      refreshing.current = false;
    }
  });

  useStepper(async (by) => {
    const at = asOf.value;
    if (by === 1) {
      if (at !== null) change({ as_of: await nextCursor(await asCursor(at), eventFilter(filters)) }, { replace: true });
      return;
    }
    // The newest of the last events of the jobs that are shown: just before it, the list was another one.
    const cursors = items.current.flatMap((job) => (job.cursor === null ? [] : [BigInt(String(job.cursor))]));
    const newest = cursors.sort((one, other) => Number(other - one))[0];
    if (newest === undefined) return;
    change({ as_of: String(newest - 1n) }, { replace: at !== null });
  });

  const count = arrived.name === name ? arrived.count : 0;
  const list = loaded.data?.items ?? null;
  const none = list?.length === 0 && filters.size === 0 && cursor === null;
  return html`
    <header class="title"><h1>Jobs</h1>
      <div class="tools">
        ${asOf.value === null && html`<${Live} on=${live} />`}
        ${asOf.value === null && !filters.has("flow") && !none && html`<${BulkButton} action="redrive" filters=${filters} /><${BulkButton} action="cancel" filters=${filters} /><${BulkButton} action="shadow" filters=${filters} />`}
      </div>
    </header>
    <${Filters} filters=${filters} jobs=${list ?? []} />
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${
      count > 0 &&
      html`<button type="button" class="arrived" onClick=${() => showNewest(cursor, loaded.reload, () => setArrived({ name, count: 0, more: false }))}>
      ${count}${arrived.more ? " or more" : ""} new — show</button>`
    }
    ${list === null ? !loaded.problem && html`<p class="loading">Loading …</p>` : list.length ? html`<${Table} jobs=${list} />` : html`<${Nothing} filtered=${filters.size > 0} past=${asOf.value !== null} scanned=${loaded.data?.scanned ?? null} older=${loaded.data?.next ? link("jobs", withCursor(filters, loaded.data.next)) : null} />`}
    <nav class="pages" aria-label="Pages of the list">
      ${cursor !== null && html`<a href=${link("jobs", filters)}>Newest</a>`}
      ${list !== null && list.length > 0 && searched && loaded.data?.scanned != null && html`<span class="quiet">${Number(loaded.data.scanned).toLocaleString("en")} jobs searched</span>`}
      ${asOf.value !== null && list !== null && list.length > 0 && list.length < PAGE && loaded.data?.next && html`<span class="quiet">Not all older jobs were examined.</span>`}
      ${list !== null && list.length > 0 && loaded.data?.next && html`<a href=${link("jobs", withCursor(filters, loaded.data.next))}>${searched ? "Search older jobs" : "Older"}</a>`}
    </nav>
  `;
}

/**
 * @param {string | null} cursor
 * @param {() => void} reload
 * @param {() => void} forget
 */
function showNewest(cursor, reload, forget) {
  forget();
  if (cursor === null) reload();
  else change({ cursor: null });
  scrollTo({ top: 0 });
}

function focusedRow() {
  return document.activeElement?.closest("[data-row]") != null;
}

/**
 * Return the jobs that are shown, in their order, as they are now. Those that do not match the filter any more are read
 * one by one.
 * @param {Job[]} shown
 * @param {Job[]} found
 */
async function refreshed(shown, found) {
  const fresh = new Map(found.map((job) => [job.id, job]));
  const missing = shown.filter((job) => !fresh.has(job.id)).slice(0, REFRESHED);
  const read = await Promise.all(missing.map((job) => get(`jobs/${job.id}`).catch(() => job)));
  for (const job of read) fresh.set(job.id, job);
  return shown.map((job) => fresh.get(job.id) ?? job);
}

/** @param {URLSearchParams} filters */
function eventFilter(filters) {
  return new URLSearchParams([...filters].filter(([name]) => name === "type" || name === "label"));
}

/**
 * @param {URLSearchParams} filters
 * @param {string} cursor
 */
function withCursor(filters, cursor) {
  const query = new URLSearchParams(filters);
  query.set("cursor", cursor);
  return query;
}

/** @param {{filtered: boolean, past: boolean, scanned: number | null, older: string | null}} props */
function Nothing({ filtered, past, scanned, older }) {
  if (older !== null) {
    const searched = scanned === null ? "these jobs" : `${Number(scanned).toLocaleString("en")} jobs`;
    return html`<${Empty} title=${`No match among ${searched}`}><p><a href=${older}>Search older jobs</a></p><//>`;
  }
  if (filtered) return html`<${Empty} title="No job matches"><p><a href=${link("jobs")}>Remove all filters</a></p><//>`;
  if (past) return html`<${Empty} title="There was no job yet" />`;
  return html`<${Empty} title="There is no job yet">
    <p><a href=${link("submit")}>Submit one here</a>, or over the API: <code>POST /jobs</code>.</p>
  <//>`;
}

/** @param {{jobs: Job[]}} props */
function Table({ jobs }) {
  const workers = useWorkers();
  const pauses = usePauses(jobs.some((job) => job.state === "queued"));
  // Each answer shows also how long jobs have waited by now.
  const ticking = jobs.some((job) => ["running", "queued", "held"].includes(job.state));
  useEvery(workers.reload, ticking ? WORKERS_PAUSE : null);
  return html`<table class="rows jobs">
    <thead><tr><th>State</th><th>Type</th><th>Outcome</th><th>Labels</th><th>Queue</th><th class="num">Attempt</th><th class="num">Submitted</th><th class="num">Waited</th><th class="num">Ran</th></tr></thead>
    <tbody>${jobs.map((job) => html`<${Row} key=${job.id} job=${job} lost=${asOf.value === null && lostItsWorker(job, workers.data)} ran=${ranOf(job, workers.data)} paused=${asOf.value === null && pauseOf(pauses.data, { queue: job.queue ?? "" }) !== undefined} />`)}</tbody>
  </table>`;
}

/**
 * @param {{job: Job, lost: boolean, ran: number | null, paused: boolean}} props `lost`: whether the worker is gone that ran it;
 * `ran`: for how many seconds; `paused`: whether its queue is
 */
function Row({ job, lost, ran, paused }) {
  const open = (/** @type {MouseEvent} */ event) => {
    if (event.target instanceof Element && !event.target.closest("a") && !getSelection()?.toString())
      go(link(`jobs/${job.id}`));
  };
  const begun = job.started_at ?? job.finished_at;
  const unserved =
    asOf.value === null && job.state === "queued" && health.value?.workers[job.queue ?? ""]?.consumers === 0;
  const waits =
    asOf.value === null && (job.state === "queued" || (job.state === "held" && !isRule(job))) && !isLater(job.run_at);
  const waited = waits ? passed(job.run_at ?? job.submitted_at) : waitOf(job);
  return html`<tr onClick=${open}>
    <td><${State} state=${job.state} /></td>
    <td class="name"><a data-row href=${link(`jobs/${job.id}`)} title=${job.id}>${job.type}</a></td>
    <td class="outcome">${lost ? html`<span class="warning">its worker is gone</span>` : paused && job.state === "queued" ? html`<span class="warning">its queue is paused</span>` : unserved ? html`<span class="warning">no worker takes it</span>` : html`<${Outcome} job=${job} />`}</td>
    <td><${Labels} labels=${job.labels} /></td>
    <td class="queue">${job.queue}</td>
    <td class="num">${attempt(job)}</td>
    <td class="num"><${Time} at=${job.submitted_at ?? begun} /></td>
    <td class="num">${waited === null ? "" : duration(Math.max(0, waited))}</td>
    <td class="num">${ran === null ? "" : duration(ran)}</td>
  </tr>`;
}

/** @param {Job} job */
function attempt(job) {
  const run = job.run > 1 ? `run ${job.run}, ` : "";
  return job.max_attempts !== null && job.max_attempts > 1 && job.max_attempts < UNLIMITED
    ? `${run}${job.attempt} of ${job.max_attempts}`
    : `${run}${job.attempt}`;
}

/** @param {{filters: URLSearchParams, jobs: Job[]}} props */
function Filters({ filters, jobs }) {
  const [text, setText] = useState("");
  const [fault, setFault] = useState("");
  const types = useLoad("job-types", (signal) => get("job-types", {}, signal)).data?.items ?? [];
  const chosen = [...filters].filter(([name]) => name !== "since" && name !== "until");
  const states = filters.getAll("state");

  /** @param {string} name @param {string[]} values */
  const set = (name, values) => change({ [name]: values, cursor: null });

  /** @param {string} given */
  function add(given) {
    const token = given.trim();
    if (UUID.test(token)) return go(link(`jobs/${token}`));
    const [name = "", value = ""] = split(token, types);
    if (!(NAMES.includes(name) || VALUE.test(name)) || value === "") {
      return setFault(
        "Write a job's id, or type:…, state:…, queue:…, label:name:value, reason:…, ordering_key:…, error:…, payload.path:value or result.path:value",
      );
    }
    if (name === "label" && !/^[^:]+:/.test(value)) return setFault("Write a label as label:name:value.");
    setText("");
    setFault("");
    const single = SINGLE.includes(name) || VALUE.test(name);
    if (!filters.getAll(name).includes(value)) set(name, single ? [value] : [...filters.getAll(name), value]);
  }

  return html`<form class="filters" role="search" aria-label="Filter the jobs" onSubmit=${(
    /** @type {Event} */ event,
  ) => {
    event.preventDefault();
    if (text.trim()) add(text);
  }}>
    <div class="states" role="group" aria-label="States">${STATES.map((state) => {
      const on = states.includes(state);
      return html`<button type="button" class=${`chip ${state}`} aria-pressed=${on} onClick=${() => set("state", on ? states.filter((one) => one !== state) : [...states, state])}>${state}</button>`;
    })}</div>
    <input data-filter type="search" list="suggestions" placeholder="type:… label:… payload.path:… or an id" aria-label="Add a filter" autocomplete="off" spellcheck=${false}
      value=${text} onInput=${(/** @type {any} */ event) => {
        const given = event.currentTarget.value;
        setText(given);
        setFault("");
        // A choice from the list comes as an input without a key.
        if (event.inputType === undefined || event.inputType === "insertReplacementText") if (given) add(given);
      }} />
    <datalist id="suggestions">${suggestions(types, jobs).map((one) => html`<option value=${one}></option>`)}</datalist>
    <${Period} filters=${filters} />
    ${fault && html`<p class="fault" role="alert">${fault}</p>`}
    ${
      chosen.some(([name]) => name !== "state") &&
      html`<ul class="chosen" aria-label="Filters">${chosen
        .filter(([name]) => name !== "state")
        .map(
          ([name, value]) =>
            html`<li><span>${TITLES[name] ?? name} ${name === "failure" ? html`<${FailureName} id=${value} />` : html`<${Foreign} text=${value} limit=${60} />`}</span><button type="button" aria-label=${`Remove the filter ${name} ${value}`} onClick=${() =>
              set(
                name,
                filters.getAll(name).filter((one) => one !== value),
              )}>×</button></li>`,
        )}</ul>`
    }
  </form>`;
}

/**
 * Return the name and value of a filter that somebody typed. A text without a name is a type.
 * @param {string} token
 * @param {{name: string}[]} types
 */
function split(token, types) {
  const equals = /^(?:payload|result)[^:=]*=/.exec(token)?.[0].length ?? 0;
  const colon = equals > 0 ? equals - 1 : token.indexOf(":");
  if (colon > 0) return [token.slice(0, colon), token.slice(colon + 1).trim()];
  if (/** @type {readonly string[]} */ (STATES).includes(token)) return ["state", token];
  return types.some((type) => type.name === token) ? ["type", token] : [];
}

/**
 * @param {{name: string, queue: string}[]} types
 * @param {Job[]} jobs
 */
function suggestions(types, jobs) {
  const labels = jobs.flatMap((job) =>
    Object.entries(job.labels ?? {}).map(([name, value]) => `label:${name}:${value}`),
  );
  return [
    ...types.map((type) => `type:${type.name}`),
    ...new Set(types.map((type) => `queue:${type.queue}`)),
    ...new Set(labels.filter((label) => label.length < 100)),
    ...REASONS.map((reason) => `reason:${reason}`),
    ...new Set(jobs.flatMap((job) => (job.ordering_key === null ? [] : [`ordering_key:${job.ordering_key}`]))),
    ...new Set(jobs.flatMap((job) => (job.error === null ? [] : [`error:${job.error.type}`]))),
    ...[...new Set(jobs.flatMap((job) => values("payload", job.payload)))].slice(0, SUGGESTED),
  ];
}

/** Return searches for the values in a payload. @param {string} path @param {unknown} value @returns {string[]} */
function values(path, value) {
  if (Array.isArray(value)) return [];
  if (value !== null && typeof value === "object" && !(value instanceof Numeral))
    return Object.entries(value).flatMap(([name, one]) => (/[.:=]/.test(name) ? [] : values(`${path}.${name}`, one)));
  const text = typeof value === "string" ? value : stringify(value);
  return text.length > 0 && text.length < 60 ? [`${path}:${text}`] : [];
}

const PERIODS = /** @type {const} */ ([
  ["", "Any time"],
  ["3600", "Last hour"],
  ["86400", "Last 24 hours"],
  ["604800", "Last 7 days"],
  ["own", "From … to …"],
]);

/** When the jobs were submitted. @param {{filters: URLSearchParams}} props */
function Period({ filters }) {
  const since = filters.get("since");
  const until = filters.get("until");
  const [own, setOwn] = useState(since !== null || until !== null);
  useEffect(() => {
    if (since !== null || until !== null) setOwn(true);
  }, [since, until]);
  /** @param {string} choice */
  function choose(choice) {
    setOwn(choice !== "");
    if (choice === "own") return;
    change({
      since: choice === "" ? null : new Date(Date.now() - Number(choice) * 1000).toISOString(),
      until: null,
      cursor: null,
    });
  }
  return html`<select aria-label="Submitted" value=${own ? "own" : ""} onChange=${(/** @type {any} */ event) => choose(event.currentTarget.value)}>
      ${PERIODS.map(([value, title]) => html`<option value=${value}>${title}</option>`)}
    </select>
    ${
      own &&
      html`<span class="period">
      <input type="datetime-local" step="1" aria-label="Submitted at or after" value=${toInput(since)} onChange=${(/** @type {any} */ event) => change({ since: fromInput(event.currentTarget.value), cursor: null })} />
      <input type="datetime-local" step="1" aria-label="Submitted before" value=${toInput(until)} onChange=${(/** @type {any} */ event) => change({ until: fromInput(event.currentTarget.value), cursor: null })} />
    </span>`
    }`;
}

/** Whether all is well: what comes in, ends and fails, what waits and runs, how long that takes, and what failed last. */
import { get } from "../core/api.js";
import { useChanges } from "../core/events.js";
import { answers, faultsOf, health, outage, passed, projectorReady, stale } from "../core/health.js";
import { html } from "../core/html.js";
import { toNumber } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { asOf, change, link } from "../core/route.js";
import { boundsOf, RANGES, rangeShown, readStats, total, wordsOf } from "../core/stats.js";
import { pastJobs, shownTime } from "../core/time_travel.js";
import { duration, local, roughly } from "../core/times.js";
import { Empty, Foreign, Message, ProblemBox, Section, State, Time } from "../parts/basics.js";
import { linkOf } from "../parts/failure_name.js";
import { Outcome } from "../parts/outcome.js";
import { Plot } from "../parts/plot.js";
import { counted } from "../parts/tasks.js";
import { lostItsWorker, ranOf, useWorkers } from "../parts/workers.js";
import { useEffect, useMemo } from "../vendor/hooks.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {import("../core/stats.js").Stats} Stats */
/** @typedef {import("../core/types.js").Failure} Failure */
/** @typedef {import("../core/stats.js").Spread} Spread */

/** How many jobs of a type must fail, and which share of those that end, before the page warns. */
const MANY_FAILED = 5;
const SHARE_FAILED = 0.2;
const DEAD_READ = 100;
const DEAD_PAUSE = 15_000; // milliseconds
const WORKERS_PAUSE = 10_000;
const LISTED = 8;

/** @param {{id: string | null}} _ */
export function Page(_) {
  const at = asOf.value;
  const range = rangeShown();
  const shown = shownTime.value;
  const name = `stats ${range.name} ${range.since} ${range.until} ${at === null ? "" : `${at} ${shown}`}`;
  // A cursor's time is looked up first.
  const ready = at === null || shown !== null;
  const stats = useLoad(ready ? name : null, (signal) => readStats(range, at === null ? null : shown, signal));
  const running = useLoad(`overview running ${at}`, (signal) => newest("running", signal));
  const failed = useLoad(at === null ? null : `overview failed ${at}`, (signal) => newest("failed", signal));
  const groups = useLoad(
    at === null ? `overview failures ${range.name} ${range.since} ${range.until}` : null,
    (signal) =>
      /** @type {Promise<{items: Failure[]}>} */ (
        get("failures", { ...boundsOf(range, null), limit: String(LISTED) }, signal)
      ),
  );
  const changed = { event: ["started", "progressed", "retrying", "succeeded", "failed", "cancelled"] };
  useChanges(at === null ? changed : null, () => {
    running.reload();
    groups.reload();
  });
  // The groups too: an answer may be a second older than the event for which it was asked.
  const again = () => {
    stats.reload();
    groups.reload();
  };
  useEvery(again, at === null ? range.pause : null);
  const stopped = stale.value !== null;
  // The range ends when the news ends.
  useEffect(() => {
    if (at === null) again();
  }, [stopped]);
  const { data } = stats;
  const words = wordsOf(range, data);
  const empty = data !== null && data.types.length === 0 && Object.keys(data.jobs ?? {}).length === 0 && at === null;
  return html`
    <header class="title"><h1>Overview</h1><${Ranges} range=${range} /></header>
    ${at === null && data !== null && html`<${Warnings} stats=${data} words=${words} />`}
    ${at === null && health.value !== null && html`<${Verdict} now=${health.value} />`}
    <${ProblemBox} problem=${answers.value ? stats.problem : null} onRetry=${stats.reload} />
    ${data === null && !stats.problem && html`<p class="loading">Loading …</p>`}
    ${at !== null && data !== null && html`<p class="quiet">Events are counted by the ${data.series.step % 3600 === 0 ? "hour" : "minute"}: the numbers are up to ${local(data.series.until)}.</p>`}
    ${data !== null && !empty && html`<${Tiles} stats=${data} words=${words} /><${Plots} stats=${data} />`}
    ${
      empty
        ? html`<${Empty} title="There is no job yet"><p><a href=${link("submit")}>Submit one here</a>, or over the API: <code>POST /jobs</code>.</p><//>`
        : html`<div class="columns">
      <${Jobs} title=${at === null ? `Running ${moment()}` : `Running then${numberOf(running.data)}`} jobs=${running.data?.items ?? null} empty=${at === null ? "No job runs" : "No job ran"} all=${link("jobs", { state: "running" })} />
      ${
        at === null
          ? html`<${Failures} groups=${groups.data?.items ?? null} words=${words} />`
          : html`<${Jobs} title=${`Failed jobs${numberOf(failed.data)}`} jobs=${failed.data?.items ?? null} empty="No job had failed" all=${link("jobs", { state: "failed" })} />`
      }
    </div>`
    }
    ${data !== null && !empty && html`<${Queues} stats=${data} /><${Types} stats=${data} words=${words} />`}
  `;
}

/**
 * Return the jobs in a state that were submitted last, and whether there may be more.
 * @param {string} state
 * @param {AbortSignal} signal
 * @returns {Promise<{items: Job[], more: boolean}>}
 */
async function newest(state, signal) {
  const query = { state, limit: String(LISTED + 1), as_of: asOf.value };
  const { items, next } = await (asOf.value === null ? get("jobs", query, signal) : pastJobs(query, signal));
  return { items: items.slice(0, LISTED), more: items.length > LISTED || next !== null };
}

/** Return how many jobs there are, or how many of them are shown, for a title. @param {{items: Job[], more: boolean} | null} found */
function numberOf(found) {
  if (found === null) return "";
  const { items, more } = found;
  return more ? `: the newest ${items.length || ""}` : `: ${items.length}`;
}

/** @param {{range: import("../core/stats.js").Range}} props */
function Ranges({ range }) {
  return html`<div class="tools">
    ${range.name === null && html`<span class="quiet">${local(range.since ?? 0)} to ${local(range.until ?? 0)}</span>`}
    <div class="switch flat" role="group" aria-label="Range">${Object.entries(RANGES).map(
      ([name, { title }]) =>
        html`<button type="button" aria-pressed=${name === range.name} onClick=${() => change({ range: name, since: null, until: null })}>${title}</button>`,
    )}</div>
  </div>`;
}

/** @param {{now: import("../core/types.js").Readiness}} props */
function Verdict({ now }) {
  const faults = faultsOf(now);
  const away = outage() !== null;
  if (!answers.value || (away && !faults.length)) return null;
  if (!faults.length) return html`<p class="verdict good">Every part is ready, and every queue has a worker.</p>`;
  return html`<div class="verdict warn">
    <strong>${away ? "Look at this too:" : "Jobs are accepted, but look at this:"}</strong>
    <ul>${faults.map((fault) => html`<li><${Message} text=${fault} /></li>`)}</ul>
  </div>`;
}

/** Types of which many jobs fail, new dead letters, and webhooks that do not work. @param {{stats: Stats, words: string}} props */
function Warnings({ stats, words }) {
  const dead = useLoad(
    "new dead letters",
    (signal) => /** @type {Promise<{items: {at: string}[]}>} */ (get("dead", { limit: String(DEAD_READ) }, signal)),
  );
  const hooks = useLoad(
    "webhooks that fail",
    (signal) => /** @type {Promise<{items: import("./webhooks.js").Webhook[]}>} */ (get("webhooks", {}, signal)),
  );
  useEvery(() => {
    dead.reload();
    hooks.reload();
  }, DEAD_PAUSE);
  const since = Date.parse(stats.series.since);
  const fresh = dead.data?.items.filter((one) => Date.parse(one.at) >= since).length ?? 0;
  const failing = stats.types
    .map(({ type, events: { failed = 0, succeeded = 0 } }) => ({ type, failed, ended: failed + succeeded }))
    .filter(({ failed, ended }) => failed >= MANY_FAILED && failed >= SHARE_FAILED * ended)
    .sort((one, other) => other.failed - one.failed);
  const broken = hooks.data?.items.filter(({ state }) => state === "failing") ?? [];
  if (fresh === 0 && failing.length === 0 && broken.length === 0) return null;
  return html`<div class="verdict warn"><strong>Look at this:</strong><ul>
    ${failing.map(({ type, failed, ended }) => html`<li><a href=${link("failures", { type })}>${type}</a>: ${failed === ended ? `${counted(failed, "job")} failed and none succeeded` : `${failed.toLocaleString("en")} of ${counted(ended, "job")} failed`} ${words}.</li>`)}
    ${fresh > 0 && html`<li><a href=${link("dead")}>${counted(fresh, "new dead letter")}${fresh === DEAD_READ ? " or more" : ""}</a> ${words}: ${fresh === 1 ? "a message on a work queue that is no job" : "messages on a work queue that are no jobs"}.</li>`}
    ${broken.map(({ id, url, failing_since, last_error }) => html`<li key=${id}><a href=${link("webhooks")}>The webhook to <${Foreign} text=${url} limit=${80} /></a> has failed since <${Time} at=${failing_since} />: <${Foreign} text=${last_error ?? ""} />.</li>`)}
  </ul></div>`;
}

/** @param {{stats: Stats, words: string}} props */
function Tiles({ stats, words }) {
  const count = (/** @type {string} */ event) => total(stats.types, event);
  const { jobs } = stats;
  // A rule, such as a pause or a schedule, is a job that is held while it is in force.
  const waits = stats.types.filter(({ type }) => !RULES.includes(type)).map((one) => one.jobs ?? {});
  const rules = stats.types
    .filter(({ type }) => RULES.includes(type))
    .reduce((sum, one) => sum + (one.jobs?.held ?? 0), 0);
  const besides = rules === 0 ? "" : `, besides ${counted(rules, "rule")} in force`;
  const waiting = WAITING.map((state) => [state, waits.reduce((sum, one) => sum + (one[state] ?? 0), 0)]).filter(
    ([, n]) => n !== 0,
  );
  const deliveries = stats.types.find(({ type }) => type === DELIVERY);
  const delivered = deliveries?.events.submitted ?? 0;
  const undelivered = WAITING.reduce((sum, state) => sum + (deliveries?.jobs?.[state] ?? 0), 0);
  const ofThem = (/** @type {number} */ n) => (n === 0 ? "" : `, ${n.toLocaleString("en")} of them to webhooks`);
  return html`<div class="tiles">
    <${Tile} name="submitted" title="Submitted" count=${count("submitted")} note=${words + ofThem(delivered)} href=${link("jobs")} />
    <${Tile} name="succeeded" title="Succeeded" count=${count("succeeded")} note=${words} href=${link("jobs", { state: "succeeded" })} />
    <${Tile} name="failed" title="Failed" count=${count("failed")} note=${words} href=${link("failures")} />
    ${count("cancelled") > 0 && html`<${Tile} name="cancelled" title="Cancelled" count=${count("cancelled")} note=${words} href=${link("jobs", { state: "cancelled" })} />`}
    ${
      jobs !== null &&
      html`<${Tile} name="waiting" title=${`Waiting ${moment()}`} count=${waiting.reduce((sum, [, n]) => sum + Number(n), 0)} note=${`${waiting.map(([state, n]) => `${Number(n).toLocaleString("en")} ${state}`).join(", ") || "nothing waits"}${ofThem(undelivered)}${besides}`} href=${link("jobs", { state: WAITING })} />
        <${Tile} name="running" title=${`Running ${moment()}`} count=${jobs.running ?? 0} note="" href=${link("jobs", { state: "running" })} />
        <${Delays} />`
    }
  </div>`;
}

/** Return of when the numbers are that the view has as of now. */
function moment() {
  if (stale.value === null) return "now";
  return stale.value.since === null ? "before that" : `at ${local(stale.value.since)}`;
}

const DELIVERY = "jobtape.webhook";
const RULES = ["jobtape.pause", "jobtape.limit", "jobtape.schedule"];
const WAITING = ["queued", "retrying", "scheduled", "held"];

/** @param {{name: string, title: string, count: number, note: string, href: string}} props */
function Tile({ name, title, count, note, href }) {
  return html`<div class=${`tile ${name === "failed" && count > 0 ? "failed" : ""}`}>
    <h2><a href=${href}>${title}</a></h2>
    <p class="count" data-name=${name}>${count.toLocaleString("en")}</p>
    <p class="quiet">${note}</p>
  </div>`;
}

/** How far the parts are behind. */
function Delays() {
  const now = health.value;
  // The projector moves the relay, over the broker: without them its last value says nothing.
  const active = projectorReady();
  const parts = /** @type {[string, unknown][]} */ ([
    ["Projector", now?.lag],
    // A view without news from the tape does not know which timers were set.
    ["Timers", active ? now?.timers.behind : null],
    ["Relay", active ? now?.relay.behind : null],
  ]);
  return html`<div class="tile">
    <h2>Behind</h2>
    <dl class="delays">${parts.map(([title, value]) => {
      const behind = toNumber(value);
      return html`<dt>${title}</dt><dd>${behind === null ? (now === null ? "…" : "not known") : duration(behind)}</dd>`;
    })}</dl>
  </div>`;
}

/** @param {{stats: Stats}} props */
function Plots({ stats }) {
  const { series } = stats;
  const current = Date.parse(stats.at) / 1000;
  const until = asOf.value !== null ? null : stale.value === null ? current : (stale.value.since ?? 0) / 1000;
  // The numbers of the past are those of whole steps.
  const known = until ?? Number.POSITIVE_INFINITY;
  const unfinished = stale.value === null ? `this ${span(series.step)} is not over` : "not known yet";
  const times = useMemo(
    () => Array.from({ length: series.points }, (_, n) => Date.parse(series.since) / 1000 + n * series.step),
    [series],
  );
  const counts = useMemo(
    () => EVENTS.map(({ name, tone }) => ({ name, tone, values: series.events[name] ?? times.map(() => 0) })),
    [series],
  );
  const delays = useMemo(
    // 431.0 arrives as a Numeral, which the plot takes for no value.
    () => DURATIONS.map(({ name, from, tone, dashed }) => ({ name, tone, dashed, values: series[from].map(toNumber) })),
    [series],
  );
  // The legend says something about the whole range, as the sums beside it do.
  const spreads = new Map(
    DURATIONS.map(({ name, of, share }) => [name, roughly(toNumber(stats[of]?.[share] ?? null))]),
  );
  const onRange = (/** @type {number} */ since, /** @type {number} */ until) =>
    change({ range: null, since: instant(since, series.step), until: instant(until + series.step, series.step) });
  return html`<div class="columns plots">
    <${Plot} title=${`Jobs per ${span(series.step)}`} steps times=${times} known=${known} unfinished=${unfinished} lines=${counts} onRange=${onRange}
      format=${(/** @type {number} */ value) => value.toLocaleString("en")} summary=${(/** @type {any} */ line) => line.values.reduce((/** @type {number} */ sum, /** @type {number} */ one) => sum + one, 0).toLocaleString("en")} />
    <${Plot} title="About how long jobs waited and ran" times=${times} known=${known} unfinished=${unfinished} lines=${delays} onRange=${onRange} format=${roughly}
      summary=${(/** @type {any} */ line) => spreads.get(line.name) || "none"} />
  </div>`;
}

const EVENTS = /** @type {const} */ ([
  { name: "submitted", tone: "blue" },
  { name: "succeeded", tone: "green" },
  { name: "failed", tone: "red" },
]);
const DURATIONS = /** @type {const} */ ([
  { name: "wait p50", from: "wait_p50", of: "wait", share: "p50", tone: "violet", dashed: true },
  { name: "wait p99", from: "wait_p99", of: "wait", share: "p99", tone: "violet", dashed: false },
  { name: "run p50", from: "run_p50", of: "run", share: "p50", tone: "blue", dashed: true },
  { name: "run p99", from: "run_p99", of: "run", share: "p99", tone: "blue", dashed: false },
]);

/** Return a time that begins a step, in RFC 3339. @param {number} time seconds since 1970 @param {number} step */
function instant(time, step) {
  return new Date(Math.floor(time / step) * step * 1000).toISOString();
}

/** @param {{title: string, jobs: Job[] | null, empty: string, all: string}} props */
function Jobs({ title, jobs, empty, all }) {
  const now = asOf.value === null;
  const workers = useWorkers(now && jobs !== null && jobs.length > 0);
  useEvery(workers.reload, now ? WORKERS_PAUSE : null);
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
                <span class="outcome">${now && lostItsWorker(job, workers.data) ? html`<span class="warning">its worker is gone</span>` : html`<${Outcome} job=${job} />`}</span> <${Time} at=${job.finished_at ?? job.started_at} text=${runs(job, workers.data)} /></li>`,
            )}</ul>`
    }
  <//>`;
}

/**
 * Return how long a running job runs; undefined when it does not, or that is not known.
 * @param {Job} job
 * @param {import("../parts/workers.js").Found | null} workers
 */
function runs(job, workers) {
  const ran = job.state === "running" ? ranOf(job, workers) : null;
  return ran === null ? undefined : `for ${duration(ran)}`;
}

/** Groups of failures of the range, that with the newest failure first. @param {{groups: Failure[] | null, words: string}} props */
function Failures({ groups, words }) {
  return html`<${Section} title=${`Newest failures ${words}`} tools=${html`<a href=${link("failures")}>All</a>`}>
    ${
      groups === null
        ? html`<p class="quiet">Loading …</p>`
        : groups.length === 0
          ? html`<p class="quiet">Nothing has failed ${words}.</p>`
          : html`<ul class="brief">${groups.map(
              (one) => html`<li key=${one.id}><a data-row href=${linkOf(one)}>${one.type}</a>
                <span class="outcome fault"><${Foreign} text=${one.message ? `${one.error}: ${one.message}` : one.error} limit=${160} /></span>
                <span class="quiet">${one.failed > 0 ? `${counted(one.failed, "failure")}` : counted(one.retrying, "failed attempt")}</span> <${Time} at=${one.last} /></li>`,
            )}</ul>`
    }
  <//>`;
}

/** The queues on which jobs are due that are not held, that with the longest wait first. @param {{stats: Stats}} props */
function Queues({ stats }) {
  const waiting = stats.queues
    .map((queue) => ({ ...queue, wait: passed(queue.oldest?.since ?? null) ?? 0 }))
    // As it is shown, 0 ms is no wait.
    .filter(({ wait }) => wait >= 0.001)
    .sort((one, other) => other.wait - one.wait);
  if (!waiting.length) return null;
  return html`<h2 class="between">Oldest queued jobs</h2>
    <table class="rows">
      <thead><tr><th>Queue</th><th>Longest wait</th><th>Waiting</th><th class="num">Running</th></tr></thead>
      <tbody>${waiting.map(
        ({ queue, oldest, jobs, wait }) => html`<tr>
          <td class="name"><a data-row href=${link("jobs", { queue, state: WAITING })}>${queue}</a></td>
          <td>${oldest && html`<a href=${link(`jobs/${oldest.job}`)}>${duration(wait)}</a>`}</td>
          <td>${WAITING.filter((state) => jobs?.[state]).map((state) => html`<a class=${`state ${state}`} href=${link("jobs", { queue, state })}>${jobs?.[state]?.toLocaleString("en")} ${state}</a> `)}</td>
          <td class="num" data-column="running">${(jobs?.running ?? 0).toLocaleString("en")}</td></tr>`,
      )}</tbody>
    </table>`;
}

/** @type {Record<string, string>} */
const COLUMNS = { retrying: "Retries" };

/** @param {{stats: Stats, words: string}} props */
function Types({ stats, words }) {
  if (stats.types.length === 0) {
    return html`<${Empty} title=${`There was no job ${words}`}><p>Choose a longer range, or <a href=${link("submit")}>submit one</a>.</p><//>`;
  }
  const columns = /** @type {const} */ (["submitted", "succeeded", "failed", "retrying"]);
  return html`<h2 class="between">Job types ${words}</h2>
    <table class="rows">
      <thead><tr><th>Job type</th>${columns.map((name) => html`<th class="num">${COLUMNS[name] ?? title(name)}</th>`)}<th class="num">Wait, about (p50, p99)</th><th class="num">Run, about (p50, p99)</th></tr></thead>
      <tbody>${oursFirst(stats.types).map(
        ({
          type,
          events,
          wait,
          run,
        }) => html`<tr><td class="name"><a data-row href=${link("jobs", { type })}>${type}</a></td>
          ${columns.map((name) => html`<td class="num" data-name=${name} data-column=${(COLUMNS[name] ?? name).toLowerCase()}>${(events[name] ?? 0).toLocaleString("en")}</td>`)}
          <td class="num" data-column="wait about">${spread(wait)}</td><td class="num" data-column="run about">${spread(run)}</td></tr>`,
      )}</tbody>
    </table>`;
}

/** Return the types of the application, then those that are built into Jobtape. @param {import("../core/stats.js").TypeNumbers[]} types */
function oursFirst(types) {
  const builtIn = (/** @type {{type: string}} */ one) => one.type.startsWith("jobtape.");
  return [...types.filter((one) => !builtIn(one)), ...types.filter(builtIn)];
}

/** @param {string} name */
function title(name) {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** Return the length of a step: `minute`, `15 minutes`, `hour`. @param {number} step in seconds */
function span(step) {
  const [size, name] = step % 86_400 === 0 ? [86_400, "day"] : step % 3600 === 0 ? [3600, "hour"] : [60, "minute"];
  return step === size ? name : `${step / Number(size)} ${name}s`;
}

/** @param {Spread | null} one */
function spread(one) {
  return one === null ? "" : `${roughly(toNumber(one.p50))}, ${roughly(toNumber(one.p99))}`;
}

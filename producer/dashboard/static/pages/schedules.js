/** Schedules: when each submits its next job, what became of the last one, and a form for new ones. */
import { get } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { useRules } from "../core/rules.js";
import { duration } from "../core/times.js";
import { Dialog, Empty, ProblemBox, State, Time } from "../parts/basics.js";
import { Change } from "../parts/change.js";
import { ScheduleForm } from "../parts/schedule_form.js";
import { useState } from "../vendor/hooks.js";

/**
 * @typedef {object} Schedule
 * @property {string} id the job that is the rule
 * @property {string} name
 * @property {string} type
 * @property {string | null} cron
 * @property {import("../core/types.js").Num | null} every
 * @property {string} tz
 * @property {string} overlap
 * @property {boolean} paused
 * @property {string | null} origin
 * @property {string | null} next
 * @property {{id: string, state: string, submitted_at: string | null} | null} latest
 */

const TICKS = 20;
/** The zone in which the table shows times. */
const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

export function Page() {
  const loaded = useRules("schedules");
  const [shown, setShown] = useState(/** @type {string | null} */ (null));
  const [creating, setCreating] = useState(false);
  const items = /** @type {Schedule[] | null} */ (loaded.data?.items ?? null);
  const open = items?.find((one) => one.name === shown);
  return html`
    <header class="title"><h1>Schedules</h1><button type="button" class="primary" disabled=${obstacle() !== null} title=${obstacle()} onClick=${() => setCreating(true)}>New schedule</button></header>
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${
      items === null
        ? !loaded.problem && html`<p class="loading">Loading …</p>`
        : items.length === 0
          ? html`<${Empty} title="There is no schedule yet"><p>Create one here, or in the code: <code>@job(…, schedule=Cron(…))</code> and <code>jobtape schedules sync</code>.</p><//>`
          : html`<table class="rows schedules">
            <thead><tr><th>Schedule</th><th>When</th><th>Job type</th><th title="In your time zone">Next tick, ${ZONE}</th><th>Newest job</th><th></th></tr></thead>
            <tbody>${items.map((one) => html`<${ScheduleRow} key=${one.name} schedule=${one} onShow=${() => setShown(one.name)} onDone=${loaded.onChanged} />`)}</tbody>
          </table>`
    }
    ${open !== undefined && html`<${Ticks} schedule=${open} onClose=${() => setShown(null)} />`}
    ${
      creating &&
      html`<${Dialog} title="New schedule" onClose=${() => setCreating(false)}>
      <${ScheduleForm} names=${(items ?? []).map((one) => one.name)} onDone=${() => {
        setCreating(false);
        loaded.onChanged();
      }} />
    <//>`
    }
  `;
}

/** @param {{schedule: Schedule, onShow: () => void, onDone: () => void}} props */
function ScheduleRow({ schedule, onShow, onDone }) {
  const { name, type, latest, paused, origin } = schedule;
  const path = `schedules/${encodeURIComponent(name)}`;
  return html`<tr>
    <td class="name"><a data-row href=${link("jobs", { label: `schedule:${name}` })}>${name}</a>${origin !== null && html` <span class="quiet" title="It came from this code, by jobtape schedules sync">${origin}</span>`}</td>
    <td data-column="when">${whenOf(schedule)}</td>
    <td><a href=${link("jobs", { type })}>${type}</a></td>
    <td data-column=${`next, ${ZONE}`}>${paused ? html`<a class="state held" href=${link(`jobs/${schedule.id}`)}>paused</a>` : schedule.next === null ? "over" : html`<${Time} at=${schedule.next} />`}
      <button type="button" class="small" aria-label=${`Next ticks of ${name}`} onClick=${onShow}>More</button></td>
    <td data-column="newest job">${latest === null ? html`<span class="quiet">none yet</span>` : html`<a href=${link(`jobs/${latest.id}`)}><${State} state=${latest.state} /></a> <${Time} at=${latest.submitted_at} />`}</td>
    <td class="actions">
      <${Change} method="POST" path=${`${path}/${paused ? "resume" : "pause"}`} onDone=${onDone}>${paused ? "Resume" : "Pause"}<//>
      <${Change} method="POST" path=${`${path}/trigger`} onDone=${onDone} ask=${`Submit a job of ${name} now?`}>Trigger<//>
      <${Change} method="DELETE" path=${path} onDone=${onDone} ask=${`Delete the schedule ${name}? Jobs that it has submitted go on.${origin === null ? "" : ` It is in the code ${origin} and comes back at the next sync.`}`}>Delete<//>
    </td>
  </tr>`;
}

/** @param {{schedule: Schedule, onClose: () => void}} props */
function Ticks({ schedule, onClose }) {
  const { data, problem, reload } = useLoad(`ticks ${schedule.name}`, (signal) =>
    get(`schedules/${encodeURIComponent(schedule.name)}/ticks`, { n: String(TICKS) }, signal),
  );
  return html`<${Dialog} title=${`Next ticks of ${schedule.name}`} onClose=${onClose}>
    <${ProblemBox} problem=${problem} onRetry=${reload} />
    <p class="quiet">${whenOf(schedule)}. Times of the zone ${schedule.tz}.</p>
    <ol class="ticks">${(data?.items ?? []).map(
      (/** @type {{local: string, at: string, clock_change: boolean}} */ one) =>
        html`<li><time datetime=${one.at} title=${`${one.at} (UTC)`}>${one.local.slice(0, 19).replace("T", " ")}</time>${one.clock_change && html` <span class="warning">clocks change on this day</span>`}</li>`,
    )}</ol>
  <//>`;
}

/** @param {Schedule} schedule */
function whenOf({ cron, every, tz }) {
  return cron === null
    ? `every ${duration(Number(every))
        .replace(/ 0 (h|min|s)$/, "")
        .replace(/^1 h$/, "hour")
        .replace(/^1 d$/, "day")}`
    : html`<code>${cron}</code> ${tz}`;
}

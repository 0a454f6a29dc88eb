/** What a rebuild found: which jobs have which state in the old and in the new view; and the switch to the new one. */
import { get, Problem, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { stringify } from "../core/json.js";
import { useEvery, useLoad } from "../core/load.js";
import { go, link } from "../core/route.js";
import { STATES } from "../core/types.js";
import { useState } from "../vendor/hooks.js";
import { Foreign, ProblemBox, Section, State, Time } from "./basics.js";
import { counted } from "./tasks.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {{serving: string | null, rebuilt: string | null}} Pair */
/** @typedef {Pair & {jobs: number, changed: number}} Cell */
/** @typedef {Pair & {job: string, fields: Record<string, [unknown, unknown]>}} Example */

const WORD = "switch";
const POLL = 5000; // milliseconds
/** A dry run is old when there are more jobs than it has compared, by this part of them, and by so many. */
const NEWER = { part: 0.1, least: 10 };

/**
 * What the columns are called while a dry run says what a switch would do, once the view was replaced, and for a rebuild
 * that has switched itself.
 */
const NAMES = {
  open: { old: "In the view that serves", fresh: "In the new view" },
  outdated: { old: "In the view that served then", fresh: "In the new view of then" },
  switched: { old: "Before the switch", fresh: "Since the switch" },
};

/** @param {{job: Job}} props */
export function RebuildFound({ job }) {
  const result = /** @type {{compared: number, states: Cell[], examples: Example[], switched: boolean}} */ (job.result);
  const replaced = useReplaced(job, result.switched);
  const both = (/** @type {Cell} */ cell) => Number(cell.serving !== null && cell.rebuilt !== null);
  const differing = result.states
    .filter((cell) => Number(cell.changed) > 0)
    .sort((one, other) => both(other) - both(one));
  const [chosen, setChosen] = useState(/** @type {Pair | null} */ (differing[0] ?? null));
  const shown = result.examples.filter((one) => chosen !== null && samePair(one, chosen));
  const cell = differing.find((one) => chosen !== null && samePair(one, chosen));
  const wrong = differing.reduce((sum, one) => sum + Number(one.changed), 0);
  const names = NAMES[result.switched ? "switched" : typeof replaced.data === "string" ? "outdated" : "open"];
  return html`
    <${ProblemBox} problem=${replaced.problem} onRetry=${replaced.reload} />
    ${result.switched && wrong > 0 && html`<p>The view that served before was wrong in ${counted(wrong, "job")}. The new view, which is what the tape says, has replaced it.</p>`}
    ${typeof replaced.data === "string" && html`<p class="warning" role="status">Outdated: the view was replaced at <${Time} at=${replaced.data} />.</p>`}
    <${Section} title="States of the jobs">
      ${
        result.states.length === 0
          ? html`<p class="quiet">There was no job.</p>`
          : html`<${Matrix} cells=${result.states} names=${names} chosen=${chosen} onChoose=${setChosen} />
            <p class="hint">${differing.length ? "Choose a marked number to see jobs that differ." : "Each job is the same in both views."}</p>`
      }
    <//>
    ${
      cell !== undefined &&
      html`<${Section} title=${titleOf(cell)}>
        ${shown.map((one) => html`<${Fields} key=${one.job} example=${one} names=${names} />`)}
        ${shown.length < Number(cell.changed) && html`<p class="quiet">${shown.length ? `Only ${shown.length} are shown.` : "No example was kept."}</p>`}
      <//>`
    }
    ${!result.switched && replaced.data === false && html`<${AfterDryRun} job=${job} compared=${Number(result.compared)} wrong=${wrong} />`}
  `;
}

/**
 * Load when another rebuild has replaced the view after a dry run has ended; false when none has.
 * @param {Job} job @param {boolean} switched whether `job` is no dry run; then nothing is loaded
 */
function useReplaced(job, switched) {
  const query = { type: job.type, "result.switched": "true", limit: "1" };
  const loaded = useLoad(switched ? null : `replaced after ${job.id}`, async (signal) => {
    const last = /** @type {{items: Job[]}} */ (await get("jobs", query, signal)).items[0]?.finished_at ?? null;
    return last !== null && job.finished_at !== null && Date.parse(last) > Date.parse(job.finished_at) ? last : false;
  });
  useEvery(loaded.reload, switched ? null : POLL);
  return loaded;
}

/** @param {Cell} cell */
function titleOf(cell) {
  return `${nameOf(cell.serving)} → ${nameOf(cell.rebuilt)}: ${counted(cell.changed, "job")}`;
}

/** @param {Pair} one @param {Pair} other */
function samePair(one, other) {
  return one.serving === other.serving && one.rebuilt === other.rebuilt;
}

/** @param {string | null} state */
function nameOf(state) {
  return state ?? "none";
}

/** @typedef {{old: string, fresh: string}} Names how the two views are called */

/** @param {{cells: Cell[], names: Names, chosen: Pair | null, onChoose: (pair: Pair) => void}} props */
function Matrix({ cells, names, chosen, onChoose }) {
  const order = [...STATES, null];
  const sorted = (/** @type {(string | null)[]} */ states) =>
    [...new Set(states)].sort(
      (one, other) => order.indexOf(/** @type {any} */ (one)) - order.indexOf(/** @type {any} */ (other)),
    );
  const rows = sorted(cells.map((cell) => cell.serving));
  const columns = sorted(cells.map((cell) => cell.rebuilt));
  const head = (/** @type {string | null} */ state) =>
    state === null ? html`<span class="quiet">none</span>` : html`<${State} state=${state} />`;
  const number = (/** @type {Cell} */ cell) => {
    const jobs = Number(cell.jobs).toLocaleString("en");
    if (Number(cell.changed) === 0) return jobs;
    const { serving, rebuilt } = cell;
    const text = serving === rebuilt ? `${jobs}, ${Number(cell.changed).toLocaleString("en")} changed` : jobs;
    return html`<button type="button" class="differs" aria-pressed=${chosen !== null && samePair(cell, chosen)} aria-label=${`${nameOf(serving)} to ${nameOf(rebuilt)}: ${text}`} onClick=${() => onChoose({ serving, rebuilt })}>${text}</button>`;
  };
  // On a small screen the cells are a list: in a table that is scrolled, a number is out of sight or its column's name.
  return html`<div class="scroll matrix-table"><table class="matrix">
    <thead>
      <tr><td></td><th colspan=${columns.length} scope="colgroup">${names.fresh}</th></tr>
      <tr><th scope="col">${names.old}</th>${columns.map((state) => html`<th scope="col">${head(state)}</th>`)}</tr>
    </thead>
    <tbody>${rows.map(
      (serving) =>
        html`<tr><th scope="row">${head(serving)}</th>${columns.map((rebuilt) => {
          const cell = cells.find((one) => samePair(one, { serving, rebuilt }));
          return html`<td>${cell !== undefined && number(cell)}</td>`;
        })}</tr>`,
    )}</tbody>
  </table></div>
  <div class="matrix-list">
    <p class="quiet">${names.old} → ${names.fresh.toLowerCase()}</p>
    <ul class="plain">${rows.flatMap((serving) =>
      columns.map((rebuilt) => {
        const cell = cells.find((one) => samePair(one, { serving, rebuilt }));
        return cell && html`<li>${head(serving)} → ${head(rebuilt)}: ${number(cell)}</li>`;
      }),
    )}</ul>
  </div>`;
}

/** The fields of a job that differ, side by side. @param {{example: Example, names: Names}} props */
function Fields({ example, names }) {
  return html`<div class="pair"><p><a class="id" href=${link(`jobs/${example.job}`)}>${example.job}</a></p>
    <div class="scroll"><table class="fields">
      <thead><tr><th>Field</th><th>${names.old}</th><th>${names.fresh}</th></tr></thead>
      <tbody>${Object.entries(example.fields).map(
        ([name, [old, fresh]]) =>
          html`<tr><th scope="row">${name}</th><td data-column=${names.old}><${Foreign} text=${textOf(old)} limit=${400} /></td><td data-column=${names.fresh}><${Foreign} text=${textOf(fresh)} limit=${400} /></td></tr>`,
      )}</tbody>
    </table></div>
  </div>`;
}

/** @param {unknown} value */
function textOf(value) {
  if (value === null || value === undefined) return "nothing";
  return typeof value === "string" ? value : stringify(value);
}

/** What to do after a dry run. @param {{job: Job, compared: number, wrong: number}} props */
function AfterDryRun({ job, compared, wrong }) {
  const loaded = useLoad("jobs of now", async (signal) => {
    const { jobs } = /** @type {import("../core/stats.js").Stats} */ (await get("stats", {}, signal));
    return Object.values(jobs ?? {}).reduce((sum, one) => sum + Number(one), 0);
  });
  useEvery(loaded.reload, POLL);
  const now = loaded.data;
  if (wrong === 0)
    return html`<p role="status">There is nothing to switch: both views are the same<${Compared} job=${job} compared=${compared} now=${now} />.</p>`;
  const old = now !== null && now - compared > Math.max(NEWER.least, compared * NEWER.part);
  return html`<${Section} title="Switch to the new view">
    <p>The new view is what the tape says; the one that serves is wrong in ${counted(wrong, "job")}<${Compared} job=${job} compared=${compared} now=${now} />. The dry run changed nothing.</p>
    <${ProblemBox} problem=${loaded.problem} onRetry=${loaded.reload} />
    ${
      now !== null &&
      (old
        ? html`<p class="warning">Many jobs were not compared: do the dry run again first.</p><${Start} key="dry" job=${job} dry />`
        : html`<p>Rebuild again and let the new view replace the one that serves, in one transaction. There is no way back but another rebuild.</p><${Start} key="switch" job=${job} />`)
    }
  <//>`;
}

/** When how many jobs were compared. @param {{job: Job, compared: number, now: number | null}} props `now`: how many jobs there are now */
function Compared({ job, compared, now }) {
  return html` (${counted(compared, "job")} compared at <${Time} at=${job.finished_at} />${now !== null && `; there are ${now.toLocaleString("en")} now`})`;
}

/**
 * Starts the same rebuild again: as a dry run, or, when the viewer has typed a word, as one that switches.
 * @param {{job: Job, dry?: boolean}} props
 */
function Start({ job, dry = false }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);
  const payload = /** @type {Record<string, unknown>} */ (job.payload);
  /** @param {Event} event */
  async function onSubmit(event) {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      const answer = await request("POST", "jobs", {
        body: { type: job.type, payload: { ...payload, dry_run: dry } },
      });
      go(link(`tape/${answer.body.id}`));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
      setBusy(false);
    }
  }
  const title = dry ? "Do the dry run again" : "Rebuild and switch";
  const missing = !dry && text.trim() !== WORD;
  return html`<${ProblemBox} problem=${problem} />
    <form class="confirm" onSubmit=${onSubmit}>
      ${!dry && html`<label>Type <code>${WORD}</code> to confirm <input type="text" autocomplete="off" spellcheck=${false} value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} /></label>`}
      <button type="submit" class="primary" disabled=${busy || obstacle() !== null || missing} title=${obstacle()}>${busy ? "Starting …" : title}</button>
    </form>`;
}

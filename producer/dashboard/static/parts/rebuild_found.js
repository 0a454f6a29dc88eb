/** What a rebuild found: which jobs have which state in the old and in the new view; and the switch to the new one. */
import { Problem, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { stringify } from "../core/json.js";
import { go, link } from "../core/route.js";
import { STATES } from "../core/types.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { Foreign, ProblemBox, Section, State } from "./basics.js";
import { counted } from "./tasks.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {{serving: string | null, rebuilt: string | null}} Pair */
/** @typedef {Pair & {jobs: number, changed: number}} Cell */
/** @typedef {Pair & {job: string, fields: Record<string, [unknown, unknown]>}} Example */

const WORD = "switch";

/** @param {{job: Job}} props */
export function RebuildFound({ job }) {
  const result = /** @type {{states: Cell[], examples: Example[], switched: boolean}} */ (job.result);
  const both = (/** @type {Cell} */ cell) => Number(cell.serving !== null && cell.rebuilt !== null);
  const differing = result.states
    .filter((cell) => Number(cell.changed) > 0)
    .sort((one, other) => both(other) - both(one));
  const [chosen, setChosen] = useState(/** @type {Pair | null} */ (differing[0] ?? null));
  const shown = result.examples.filter((one) => chosen !== null && samePair(one, chosen));
  const cell = differing.find((one) => chosen !== null && samePair(one, chosen));
  return html`
    <${Section} title="States of the jobs">
      ${
        result.states.length === 0
          ? html`<p class="quiet">There was no job.</p>`
          : html`<${Matrix} cells=${result.states} chosen=${chosen} onChoose=${setChosen} />
            <p class="hint">${differing.length ? "Choose a marked number to see jobs that differ." : "Each job is the same in both views."}</p>`
      }
    <//>
    ${
      cell !== undefined &&
      html`<${Section} title=${`${nameOf(cell.serving)} → ${nameOf(cell.rebuilt)}: ${counted(cell.changed, "job")}`}>
        ${shown.map((one) => html`<${Fields} key=${one.job} example=${one} />`)}
        ${shown.length < Number(cell.changed) && html`<p class="quiet">${shown.length ? `Only ${shown.length} are shown.` : "No example was kept."}</p>`}
      <//>`
    }
    ${!result.switched && html`<${Switch} job=${job} />`}
  `;
}

/** @param {Pair} one @param {Pair} other */
function samePair(one, other) {
  return one.serving === other.serving && one.rebuilt === other.rebuilt;
}

/** @param {string | null} state */
function nameOf(state) {
  return state ?? "none";
}

/** @param {{cells: Cell[], chosen: Pair | null, onChoose: (pair: Pair) => void}} props */
function Matrix({ cells, chosen, onChoose }) {
  const order = [...STATES, null];
  const sorted = (/** @type {(string | null)[]} */ names) =>
    [...new Set(names)].sort(
      (one, other) => order.indexOf(/** @type {any} */ (one)) - order.indexOf(/** @type {any} */ (other)),
    );
  const rows = sorted(cells.map((cell) => cell.serving));
  const columns = sorted(cells.map((cell) => cell.rebuilt));
  const place = useRef(/** @type {HTMLDivElement | null} */ (null));
  // On a small screen the number that is chosen may be out of sight.
  useEffect(() => {
    const shown = place.current?.querySelector("[aria-pressed=true]")?.closest("td");
    if (place.current && shown)
      place.current.scrollLeft = shown.offsetLeft + shown.offsetWidth - place.current.clientWidth;
  }, []);
  const head = (/** @type {string | null} */ state) =>
    state === null ? html`<span class="quiet">none</span>` : html`<${State} state=${state} />`;
  return html`<div class="scroll" ref=${place}><table class="matrix">
    <thead>
      <tr><td></td><th colspan=${columns.length} scope="colgroup">In the new view</th></tr>
      <tr><th scope="col">In the view that serves</th>${columns.map((state) => html`<th scope="col">${head(state)}</th>`)}</tr>
    </thead>
    <tbody>${rows.map(
      (serving) =>
        html`<tr><th scope="row">${head(serving)}</th>${columns.map((rebuilt) => {
          const cell = cells.find((one) => samePair(one, { serving, rebuilt }));
          if (cell === undefined) return html`<td></td>`;
          const jobs = Number(cell.jobs).toLocaleString("en");
          if (Number(cell.changed) === 0) return html`<td>${jobs}</td>`;
          const text = serving === rebuilt ? `${jobs}, ${Number(cell.changed).toLocaleString("en")} changed` : jobs;
          return html`<td class="differs"><button type="button" aria-pressed=${chosen !== null && samePair(cell, chosen)} aria-label=${`${nameOf(serving)} to ${nameOf(rebuilt)}: ${text}`} onClick=${() => onChoose({ serving, rebuilt })}>${text}</button></td>`;
        })}</tr>`,
    )}</tbody>
  </table></div>`;
}

/** The fields of a job that differ, side by side. @param {{example: Example}} props */
function Fields({ example }) {
  return html`<div class="pair"><p><a class="id" href=${link(`jobs/${example.job}`)}>${example.job}</a></p>
    <div class="scroll"><table class="fields">
      <thead><tr><th>Field</th><th>Serving</th><th>New</th></tr></thead>
      <tbody>${Object.entries(example.fields).map(
        ([name, [old, fresh]]) =>
          html`<tr><th scope="row">${name}</th><td data-column="serving"><${Foreign} text=${textOf(old)} limit=${400} /></td><td data-column="new"><${Foreign} text=${textOf(fresh)} limit=${400} /></td></tr>`,
      )}</tbody>
    </table></div>
  </div>`;
}

/** @param {unknown} value */
function textOf(value) {
  if (value === null || value === undefined) return "nothing";
  return typeof value === "string" ? value : stringify(value);
}

/** Starts the rebuild that switches, when the viewer has typed a word. @param {{job: Job}} props */
function Switch({ job }) {
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
        body: { type: "jobtape.rebuild", payload: { ...payload, dry_run: false } },
      });
      go(link(`tape/${answer.body.id}`));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
      setBusy(false);
    }
  }
  return html`<${Section} title="Switch to the new view">
    <p>The dry run changed nothing. Rebuild again and let the new view replace the one that serves, in one transaction. There is no way back but another rebuild.</p>
    <${ProblemBox} problem=${problem} />
    <form class="confirm" onSubmit=${onSubmit}>
      <label>Type <code>${WORD}</code> to confirm <input type="text" autocomplete="off" spellcheck=${false} value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} /></label>
      <button type="submit" class="primary" disabled=${busy || obstacle() !== null || text.trim() !== WORD} title=${obstacle()}>${busy ? "Starting …" : "Rebuild and switch"}</button>
    </form>
  <//>`;
}

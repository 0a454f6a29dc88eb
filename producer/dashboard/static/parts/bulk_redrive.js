/** Runs all ended jobs again that a filter matches, after a preview that counts them. */
import { Problem, request } from "../core/api.js";
import { html } from "../core/html.js";
import { link } from "../core/route.js";
import { ENDED } from "../core/types.js";
import { useState } from "../vendor/hooks.js";
import { Dialog, ProblemBox } from "./basics.js";

/** @typedef {{matched: number, more: boolean, ids: string[]}} Result */

/** @param {{filters: URLSearchParams, onDone: () => void}} props */
export function BulkRedrive({ filters, onDone }) {
  const [open, setOpen] = useState(false);
  return html`<button type="button" onClick=${() => setOpen(true)}>Run again …</button>
    ${open && html`<${Preview} filters=${filters} onClose=${() => setOpen(false)} onDone=${onDone} />`}`;
}

/** @param {{filters: URLSearchParams, onClose: () => void, onDone: () => void}} props */
function Preview({ filters, onClose, onDone }) {
  const [result, setResult] = useState(/** @type {Result | null} */ (null));
  const [task, setTask] = useState(/** @type {string | null} */ (null));
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);
  const body = redriveFilter(filters);

  /** @param {boolean} dry */
  async function send(dry) {
    setBusy(true);
    setProblem(null);
    try {
      const answer = await request("POST", "redrives", { body: { ...body, dry_run: dry } });
      if (dry) setResult(answer.body);
      else setTask(answer.body.id);
      if (!dry) onDone();
    } catch (error) {
      if (error instanceof Problem) setProblem(error);
      else throw error;
    } finally {
      setBusy(false);
    }
  }

  const states = /** @type {string[]} */ (body.state).join(", ");
  const others = Object.entries(body).filter(([name]) => name !== "state");
  return html`<${Dialog} title="Run jobs again" onClose=${onClose}>
    <p>Jobs that have ended and match the filter of the list start again, each in its next run.</p>
    <dl class="facts"><dt>state</dt><dd>${states}</dd>${others.map(([name, value]) => html`<dt>${name}</dt><dd><bdi>${typeof value === "object" && !Array.isArray(value) ? JSON.stringify(value) : [value].flat().join(", ")}</bdi></dd>`)}</dl>
    <${ProblemBox} problem=${problem} />
    ${
      task !== null
        ? html`<p role="status"><strong>They start again.</strong> <a href=${link(`jobs/${task}`)}>The job that does it</a> shows its progress.</p>
          <button type="button" class="primary" onClick=${onClose}>Close</button>`
        : result === null
          ? html`<button type="button" class="primary" disabled=${busy} onClick=${() => send(true)}>${busy ? "Counting …" : "Count them"}</button>`
          : html`<p role="status"><strong>${result.matched}${result.more ? " or more" : ""} jobs match.</strong></p>
            ${result.ids.length > 0 && html`<p class="quiet">Newest: ${result.ids.slice(0, 3).map((id) => html`<a href=${link(`jobs/${id}`)} class="id">${id.slice(-12)}</a> `)}</p>`}
            <button type="button" class="primary" disabled=${busy || result.matched === 0} onClick=${() => send(false)}>${busy ? "Starting …" : result.more ? "Run all again" : `Run ${result.matched} again`}</button>`
    }
  <//>`;
}

/**
 * Return the body of `POST /redrives` for the filters of the list. Without an ended state in them: the failed jobs.
 * @param {URLSearchParams} filters
 * @returns {Record<string, unknown>}
 */
function redriveFilter(filters) {
  /** @type {Record<string, unknown>} */
  const body = { state: filters.getAll("state").filter((state) => ENDED.has(state)) };
  if (!(/** @type {string[]} */ (body.state).length)) body.state = ["failed"];
  for (const name of ["type", "queue", "reason"]) {
    if (filters.has(name)) body[name] = filters.getAll(name);
  }
  const labels = filters.getAll("label").map((label) => label.split(/:(.*)/s).slice(0, 2));
  if (labels.length) body.labels = Object.fromEntries(labels);
  for (const name of ["since", "until"]) {
    if (filters.has(name)) body[name] = filters.get(name);
  }
  return body;
}

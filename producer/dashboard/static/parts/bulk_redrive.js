/** Runs all ended jobs again that a filter matches, after a preview that counts them. */
import { Problem, request } from "../core/api.js";
import { html } from "../core/html.js";
import { link } from "../core/route.js";
import { ENDED } from "../core/types.js";
import { useState } from "../vendor/hooks.js";
import { Dialog, ProblemBox } from "./basics.js";

/** @typedef {{matched: number, accepted: number, refused: number, unknown: number, ids: string[], next: string | null}} Result */

/** @param {{filters: URLSearchParams, onDone: () => void}} props */
export function BulkRedrive({ filters, onDone }) {
  const [open, setOpen] = useState(false);
  return html`<button type="button" onClick=${() => setOpen(true)}>Run again …</button>
    ${open && html`<${Preview} filters=${filters} onClose=${() => setOpen(false)} onDone=${onDone} />`}`;
}

/** @param {{filters: URLSearchParams, onClose: () => void, onDone: () => void}} props */
function Preview({ filters, onClose, onDone }) {
  const [result, setResult] = useState(/** @type {Result | null} */ (null));
  const [done, setDone] = useState(/** @type {Result | null} */ (null));
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
      else setDone(answer.body);
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
    <dl class="facts"><dt>state</dt><dd>${states}</dd>${others.map(([name, value]) => html`<dt>${name}</dt><dd><bdi>${[value].flat().join(", ")}</bdi></dd>`)}</dl>
    <${ProblemBox} problem=${problem} />
    ${
      done !== null
        ? html`<p role="status"><strong>${done.accepted} started again</strong>${done.refused > 0 && `, ${done.refused} refused`}${done.unknown > 0 && `, ${done.unknown} not confirmed`}.${done.next && " There are more: repeat it for the next 10,000."}</p>
          <button type="button" class="primary" onClick=${onClose}>Close</button>`
        : result === null
          ? html`<button type="button" class="primary" disabled=${busy} onClick=${() => send(true)}>${busy ? "Counting …" : "Count them"}</button>`
          : html`<p role="status"><strong>${result.matched}${result.next ? " or more" : ""} jobs match.</strong></p>
            ${result.ids.length > 0 && html`<p class="quiet">Newest: ${result.ids.slice(0, 3).map((id) => html`<a href=${link(`jobs/${id}`)} class="id">${id.slice(-12)}</a> `)}</p>`}
            <button type="button" class="primary" disabled=${busy || result.matched === 0} onClick=${() => send(false)}>${busy ? "Starting …" : `Run ${result.matched} again`}</button>`
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
  for (const name of ["type", "queue", "label", "reason"]) {
    if (filters.has(name)) body[name] = filters.getAll(name);
  }
  for (const name of ["since", "until"]) {
    if (filters.has(name)) body[name] = filters.get(name);
  }
  return body;
}

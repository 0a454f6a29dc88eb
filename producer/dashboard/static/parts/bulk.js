/** Acts on all jobs that a filter matches, after a preview that counts them, as a job that can be watched. */
import { Problem, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { useLoad } from "../core/load.js";
import { go, link } from "../core/route.js";
import { ENDED, OPEN } from "../core/types.js";
import { useState } from "../vendor/hooks.js";
import { Dialog, ProblemBox } from "./basics.js";
import { FailureName } from "./failure_name.js";
import { counted } from "./tasks.js";

/** @typedef {{matched: number, more: boolean, ids: string[]}} Preview */
/** @typedef {{path: string, title: string, does: string, button: string, states: readonly string[], unasked: readonly string[]}} Action */

/** `states`: those it can take; `unasked`: those it takes when the filter names none of them. */
const ACTIONS = /** @type {const} */ ({
  redrive: {
    path: "redrives",
    title: "Run jobs again",
    does: "These jobs start again, each in its next run (redrive).",
    button: "Run again",
    states: [...ENDED],
    unasked: ["failed"],
  },
  cancel: {
    path: "cancels",
    title: "Cancel jobs",
    does: "These jobs are cancelled. A handler that runs is interrupted.",
    button: "Cancel",
    states: OPEN,
    unasked: OPEN,
  },
  shadow: {
    path: "jobs",
    title: "Compare with today's handlers",
    does: "Today's handlers get the payloads of these jobs, and the outcomes are compared. Nothing is published, but a handler should check ctx.shadow before it acts on anything outside of Jobtape.",
    button: "Shadow run",
    states: ["succeeded", "failed"],
    unasked: ["succeeded"],
  },
});

/**
 * A button that opens the preview. `filters`: as in the address of the list of jobs. `ids`: only these jobs.
 * @param {{action: keyof typeof ACTIONS, filters?: URLSearchParams, ids?: string[], title?: string, small?: boolean, disabled?: boolean}} props
 */
export function BulkButton({ action, filters = new URLSearchParams(), ids, title, small = false, disabled = false }) {
  const [open, setOpen] = useState(false);
  const one = ACTIONS[action];
  return html`<button type="button" class=${small ? "small" : ""} disabled=${disabled || obstacle() !== null} title=${obstacle()} onClick=${() => setOpen(true)}>${title ?? `${one.button} …`}</button>
    ${open && html`<${Question} action=${one} body=${bodyOf(one, filters, ids)} onClose=${() => setOpen(false)} />`}`;
}

/** @param {{action: Action, body: Record<string, any>, onClose: () => void}} props */
function Question({ action, body, onClose }) {
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);
  // A shadow run takes the jobs that a redrive would take.
  const counting = action.path === "cancels" ? "cancels" : "redrives";
  const preview = useLoad("preview", async (signal) => {
    const answer = await request("POST", counting, { body: { ...body, dry_run: true }, signal });
    return /** @type {Preview} */ (answer.body);
  });
  const found = preview.data;

  async function start() {
    setBusy(true);
    setProblem(null);
    try {
      const limit = { limit: Math.max(Number(found?.matched), 1) };
      const sent = action.path === "jobs" ? { type: "jobtape.shadow", payload: { ...body, ...limit } } : body;
      const answer = await request("POST", action.path, { body: sent });
      go(link(`tape/${answer.body.id}`));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
      setBusy(false);
    }
  }

  const { state, ids, ...others } = body;
  return html`<${Dialog} title=${action.title} onClose=${onClose}>
    <p>${action.does}</p>
    <dl class="facts"><div><dt>state</dt><dd>${state.join(", ")}</dd></div>
      ${Object.entries(others).map(([name, value]) => html`<div><dt>${name.replace("_", " ")}</dt><dd>${name === "failure" ? value.map((/** @type {string} */ id) => html`<${FailureName} key=${id} id=${id} />`) : html`<bdi>${textOf(value)}</bdi>`}</dd></div>`)}</dl>
    <${ProblemBox} problem=${problem ?? preview.problem} onRetry=${problem === null ? preview.reload : undefined} />
    ${
      found === null
        ? !preview.problem && html`<p role="status">Counting …</p>`
        : html`<p role="status"><strong>${counted(found.matched, "job")} ${found.more ? "or more match" : Number(found.matched) === 1 ? "matches" : "match"} now.</strong></p>
          ${found.ids.length > 0 && html`<p class="quiet">Newest: ${found.ids.slice(0, 3).map((id) => html`<a href=${link(`jobs/${id}`)} class="id">${id.slice(-12)}</a> `)}</p>`}
          <button type="button" class="primary" disabled=${busy || obstacle() !== null || (Number(found.matched) === 0 && !found.more)} title=${obstacle()} onClick=${start}>${busy ? "Starting …" : `${action.button}: ${counted(found.matched, "job")}${found.more ? " or more" : ""}`}</button>`
    }
  <//>`;
}

/** @param {unknown} value */
function textOf(value) {
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value !== "object" || value === null) return String(value);
  return Object.entries(value)
    .map(([name, one]) => `${name}: ${one}`)
    .join(", ");
}

/**
 * Return the filters of the list as the body of a request.
 * @param {Action} action
 * @param {URLSearchParams} filters
 * @param {string[]} [ids]
 */
function bodyOf(action, filters, ids) {
  const wanted = filters.getAll("state").filter((state) => action.states.includes(state));
  // Jobs that are chosen by their failure have failed.
  const failures = action.path === "jobs" && ["failure", "reason", "error"].some((name) => filters.has(name));
  const unasked = ids !== undefined ? action.states : failures ? ["failed"] : action.unasked;
  /** @type {Record<string, any>} */
  const body = { state: wanted.length ? wanted : [...unasked], ...(ids !== undefined && { ids }) };
  for (const name of new Set(filters.keys())) {
    const values = filters.getAll(name);
    const [part = "", path = ""] = name.split(/\.(.*)/s);
    if (name === "label") body.labels = Object.fromEntries(values.map((one) => one.split(/:(.*)/s)));
    else if (part === "payload" || part === "result") body[part] = { ...body[part], [path]: values[0] };
    else if (["since", "until", "error", "ordering_key"].includes(name)) body[name] = values[0];
    else if (name !== "state") body[name] = values;
  }
  return body;
}

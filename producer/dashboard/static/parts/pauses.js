/** Pauses of queues and job types: rules, which are jobs that are held while they are in force. */
import { get, Problem, request } from "../core/api.js";
import { html } from "../core/html.js";
import { useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { useState } from "../vendor/hooks.js";
import { ProblemBox, Time } from "./basics.js";

/** @typedef {import("../core/types.js").Job} Job */

/** Load the pauses that are in force. */
export function usePauses() {
  return useLoad("pauses", async (signal) => {
    const page = await get("jobs", { type: "jobtape.pause", state: "held", limit: "200" }, signal);
    return /** @type {Job[]} */ (page.items);
  });
}

/** @param {Job} pause */
function whatOf(pause) {
  return /** @type {{queue: string | null, type: string | null}} */ (pause.payload);
}

/**
 * Whether a queue is paused, and a button that changes it.
 * @param {{queue: string, pauses: Job[] | null, onDone: () => void}} props
 */
export function QueuePause({ queue, pauses, onDone }) {
  const pause = pauses?.find((one) => whatOf(one).queue === queue);
  return html`${pause && html`<a class="state held" href=${link(`jobs/${pause.id}`)}>paused</a> `}
    <${Change} path=${`queues/${encodeURIComponent(queue)}/${pause ? "resume" : "pause"}`} disabled=${pauses === null} onDone=${onDone}>${pause ? "Resume" : "Pause"}<//>`;
}

/** The job types that are paused. @param {{pauses: Job[] | null, onDone: () => void}} props */
export function TypePauses({ pauses, onDone }) {
  return (pauses ?? []).map((pause) => {
    const { type } = whatOf(pause);
    if (!type) return null;
    return html`<p key=${pause.id} class="warning">The job type <a href=${link("jobs", { type })}>${type}</a> is paused since <${Time} at=${pause.submitted_at} />.
      <${Change} path=${`job-types/${encodeURIComponent(type)}/resume`} onDone=${onDone}>Resume<//></p>`;
  });
}

/** @param {{path: string, disabled?: boolean, onDone: () => void, children?: import("../core/html.js").Children}} props */
function Change({ path, disabled = false, onDone, children }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  async function onClick() {
    setBusy(true);
    setProblem(null);
    try {
      await request("POST", path);
      onDone();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
    } finally {
      setBusy(false);
    }
  }
  return html`<button type="button" class="small" disabled=${disabled || busy} onClick=${onClick}>${children}</button><${ProblemBox} problem=${problem} />`;
}

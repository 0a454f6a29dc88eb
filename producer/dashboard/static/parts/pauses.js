/** Pauses of queues and job types: rules, which are jobs that are held while they are in force. */
import { get } from "../core/api.js";
import { html } from "../core/html.js";
import { useLoad } from "../core/load.js";
import { link } from "../core/route.js";
import { Change } from "./change.js";

/** @typedef {import("../core/types.js").Job} Job */

/** Load the pauses that are in force. `wanted` false: load nothing. */
export function usePauses(wanted = true) {
  return useLoad(wanted ? "pauses" : null, async (signal) => {
    const page = await get("jobs", { type: "jobtape.pause", state: "held", limit: "200" }, signal);
    return /** @type {Job[]} */ (page.items);
  });
}

/** Return the pause of a queue or of a job type. @param {Job[] | null} pauses @param {{queue?: string, type?: string}} what */
export function pauseOf(pauses, { queue, type }) {
  return pauses?.find(({ payload }) => {
    const paused = /** @type {{queue: string | null, type: string | null}} */ (payload);
    return queue === undefined ? paused.type === type : paused.queue === queue;
  });
}

/**
 * Whether a queue is paused, and a button that changes it.
 * @param {{queue: string, pauses: Job[] | null, onDone: () => void}} props
 */
export function QueuePause({ queue, pauses, onDone }) {
  const pause = pauseOf(pauses, { queue });
  return html`${pause && html`<a class="state held" href=${link(`jobs/${pause.id}`)}>paused</a> `}
    <${Change} method="POST" path=${`queues/${encodeURIComponent(queue)}/${pause ? "resume" : "pause"}`} disabled=${pauses === null} onDone=${onDone}>${pause ? "Resume" : "Pause"}<//>`;
}

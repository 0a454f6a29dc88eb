/** What Jobtape's own job types are called, and what their results say in one line. */

/** @typedef {import("../core/types.js").Job} Job */

/** @type {Record<string, string>} */
export const TASKS = {
  "jobtape.rebuild": "Rebuild",
  "jobtape.replay": "Replay",
  "jobtape.shadow": "Shadow run",
  "jobtape.redrive": "Run again (redrive)",
  "jobtape.cancel": "Cancellation",
};

/** @param {Job} job */
export function titleOf(job) {
  const payload = /** @type {Record<string, any>} */ (job.payload ?? {});
  const title = TASKS[job.type] ?? job.type;
  if (job.type === "jobtape.rebuild") return `${title}${payload.dry_run ? ", dry run" : ""}`;
  if (job.type === "jobtape.replay") return `${title} to ${payload.queue}`;
  const types = [payload.type ?? []].flat();
  return types.length ? `${title} of ${types.join(", ")}` : title;
}

/**
 * Return the filters of the list that show the jobs which a bulk action took; null when no filter shows them.
 * `failures`: they are chosen by their failure, so that the list shows those that have it now: a job that succeeds has none.
 * @param {Job} job
 * @returns {{failures: boolean, query: import("../core/route.js").Query} | null}
 */
export function affected(job) {
  if (job.type !== "jobtape.redrive" && job.type !== "jobtape.cancel") return null;
  const payload = /** @type {Record<string, any>} */ (job.payload ?? {});
  const of = (/** @type {string} */ name) => [payload[name] ?? []].flat().map(String);
  if (["ids", "payload", "result", "error"].some((name) => Object.keys(payload[name] ?? {}).length > 0)) return null;
  const labels = Object.entries(payload.labels ?? {}).map(([name, value]) => `${name}:${value}`);
  const times = { since: payload.since ?? null, until: payload.until ?? null };
  const causes = { failure: of("failure"), reason: of("reason") };
  const failures = of("failure").length + of("reason").length > 0;
  return { failures, query: { type: of("type"), queue: of("queue"), label: labels, ...causes, ...times } };
}

/** Return the result in half a line. @param {Job} job */
export function summaryOf(job) {
  const result = /** @type {Record<string, any> | null} */ (job.result);
  if (result === null || typeof result !== "object") return "";
  if (job.type === "jobtape.rebuild") {
    const differing = Number(result.changed) + Number(result.missing) + Number(result.added);
    return `${counted(result.compared, "job")} compared, ${differ(differing)}${result.switched ? ", switched" : ""}`;
  }
  if (job.type === "jobtape.replay") return `${counted(result.events, "event")} sent`;
  if (job.type === "jobtape.shadow") {
    const differing = Object.keys(result.different).length + Number(result.more);
    return `${counted(result.jobs, "job")} run, ${differ(differing)}`;
  }
  if (job.type === "jobtape.redrive" || job.type === "jobtape.cancel") {
    const done = `${counted(result.accepted, "job")} ${job.type === "jobtape.redrive" ? "run again" : "cancelled"}`;
    if (Number(result.already) === 0) return done;
    return `${done}, ${result.already} of ${counted(result.matched, "job")} had ended or were removed before`;
  }
  return Object.entries(result)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
}

/** @param {number} count */
function differ(count) {
  return count === 0 ? "no difference" : counted(count, "differs", "differ");
}

/** Return a number with its noun: `1 job`, `12,000 jobs`. @param {unknown} count @param {string} noun @param {string} [plural] */
export function counted(count, noun, plural = `${noun}s`) {
  return `${Number(count).toLocaleString("en")} ${Number(count) === 1 ? noun : plural}`;
}

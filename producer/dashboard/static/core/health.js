/** Whether all parts of the installation work, and until when the pages know what happened. */
import { batch, computed, signal } from "../vendor/signals.js";
import { get, Problem, request } from "./api.js";
import { toNumber } from "./json.js";
import { asOf } from "./route.js";
import { shownTime } from "./time_travel.js";
import { duration, local, seconds } from "./times.js";

/** @typedef {import("./types.js").Readiness} Readiness */

/** Seconds by which the view may be behind the tape before the pages say so. */
const LONGEST_LAG = 5;

/** Milliseconds without an answer about the health after which the API does not answer. The API needs two seconds at most. */
const ANSWER_LIMIT = 8000;

/** What happens to jobs while no projector works. */
export const WITHOUT_PROJECTOR =
  "Those without delay, limit or ordering key run. Retries, delayed jobs, schedules, flows, and jobs with a limit or an ordering key wait until a projector works.";

/** What the API has answered last; null before. */
export const health = signal(/** @type {Readiness | null} */ (null));

/** Whether the API has answered the last question about its health, or none was asked yet. */
export const answers = signal(true);

/** Until when the view had read the tape, as far as the pages know, in milliseconds since 1970; null: not known. */
const folded = signal(/** @type {number | null} */ (null));

/**
 * Whether these pages may show old data: the API does not answer, the view is behind, or a part is away that brings news
 * to it. `since`: in milliseconds since 1970; null when it is not known. Null while they are up to date.
 */
export const stale = computed(() => {
  const now = health.value;
  return (now === null || isFresh(now)) && answers.value ? null : { since: folded.value };
});

/** @param {Readiness} now */
function isFresh(now) {
  return now.ready && lagOf(now) <= LONGEST_LAG;
}

/** @param {Readiness} now */
function lagOf(now) {
  return toNumber(now.lag) ?? 0;
}

/** Ask for the health, and note the answer. Throws Problem when there is none. @param {AbortSignal} abort */
export async function look(abort) {
  try {
    const now = await readiness(abort, ANSWER_LIMIT);
    const fresh = isFresh(now);
    // While the view stands still, its last event says until when it has read the tape.
    const last = fresh ? Date.now() - lagOf(now) * 1000 : await lastEvent(now, abort);
    batch(() => {
      answers.value = true;
      health.value = now;
      if (last !== null) folded.value = Math.max(last, folded.value ?? 0);
    });
    return now;
  } catch (error) {
    if (error instanceof Problem && error.passing) answers.value = false;
    throw error;
  }
}

/** Return when the last event happened that the view has; null when that is not known. @param {Readiness} now @param {AbortSignal} abort */
async function lastEvent(now, abort) {
  if (!now.parts.view?.ready) return null;
  try {
    const last = (await get("events/positions", { limit: "2" }, abort)).items.at(-1);
    return last === undefined ? null : Date.parse(last.time);
  } catch (error) {
    if (error instanceof Problem) return null;
    throw error;
  }
}

/** Whether the broker answers, as far as is known. */
export function brokerReady() {
  return health.value?.parts.broker?.ready ?? true;
}

/** Whether the projector works, and the broker over which it does, as far as is known. */
export function projectorReady() {
  return brokerReady() && (health.value?.parts.projector?.ready ?? true);
}

/**
 * Return why nothing can be changed at present, or null. `publishes`: whether the change is also a message to the broker.
 * @param {{publishes?: boolean}} [options]
 */
export function obstacle({ publishes = true } = {}) {
  if (asOf.value !== null) return "Nothing can be changed in the past";
  if (!answers.value) return "The API does not answer";
  if (health.value?.parts.view?.ready === false) return "The view does not answer";
  return publishes && !brokerReady() ? "The broker does not answer" : null;
}

/**
 * Return until when these pages know what happened: the time that is shown, or now. In milliseconds since 1970; null when
 * it is not known.
 */
export function knownUntil() {
  if (asOf.value !== null) return shownTime.value;
  return stale.value === null ? Date.now() : stale.value.since;
}

/** Return the seconds from a time until `knownUntil`, at least 0; null when one of them is not known. @param {string | null} from */
export function passed(from) {
  const until = knownUntil();
  return from === null || until === null ? null : Math.max(0, seconds(from, new Date(until).toISOString()) ?? 0);
}

/**
 * Return what `GET /health/ready` says, also when a part is not ready. Throws Problem.
 * @param {AbortSignal} signal
 * @param {number} [limit] see `request`
 * @returns {Promise<Readiness>}
 */
export async function readiness(signal, limit) {
  try {
    return (await request("GET", "health/ready", { signal, limit })).body;
  } catch (error) {
    if (error instanceof Problem && error.readiness !== null) return error.readiness;
    throw error;
  }
}

/**
 * Return what keeps these pages from being up to date or from changing anything, null while nothing does: `title` says
 * which part it is, `reason` why and what to do, `meaning` what that means for the pages.
 * @returns {{title: string, reason: string, meaning: string} | null}
 */
export function outage() {
  const now = health.value;
  const since = stale.value?.since ?? null;
  const shown = `This page shows what had happened${since === null ? " before that" : ` until ${local(since)}`}`;
  const none = "nothing can be changed";
  if (!answers.value)
    return {
      title: "The API does not answer",
      reason: "start `jobtape api`. If one has been started, its log says why it does not",
      meaning: `${shown}, and ${none} until it does.`,
    };
  if (now === null) return null;
  const { view, broker, tape, projector } = now.parts;
  const reason = (/** @type {{reason: string | null} | undefined} */ part) => part?.reason ?? "";
  if (view?.ready === false)
    return { title: "The view does not answer", reason: reason(view), meaning: `${shown}, and ${none} until it does.` };
  if (broker?.ready === false)
    return {
      title: "The broker does not answer",
      reason: reason(broker),
      meaning: `${shown}. No job is accepted, and none can be changed, until it does.`,
    };
  if (tape?.ready === false) return { title: "The tape cannot be used", reason: reason(tape), meaning: `${shown}.` };
  if (projector?.ready === false)
    return {
      title: "The view gets no news from the tape",
      reason: reason(projector),
      meaning: `${shown}; what you change shows here later. Jobs are accepted. ${WITHOUT_PROJECTOR}`,
    };
  if (lagOf(now) > LONGEST_LAG)
    return { title: `The view is ${duration(lagOf(now))} behind the tape`, reason: "", meaning: `${shown}.` };
  return Object.values(now.parts).every((part) => part.ready)
    ? null
    : { title: "A part is not ready", reason: "", meaning: `${shown}.` };
}

/**
 * Return what is wrong besides what `outage` says, each with what to do, as the API says it. What is not known because a
 * part is not ready is left out: the part is the reason.
 * @param {Readiness} health
 */
export function faultsOf(health) {
  const projecting = projectorReady();
  const unserved = Object.keys(health.workers).filter((queue) => UNSERVED.test(health.workers[queue]?.warning ?? ""));
  const queues = Object.entries(health.workers)
    .filter(([queue]) => unserved.length < 2 || !unserved.includes(queue))
    // That the projector is away has been said.
    .filter(([, { warning }]) => projecting || !warning?.endsWith("`jobtape projector`, which serves it"))
    .map(([queue, { warning }]) => ({ name: `queue ${queue}`, warning }));
  const [first, ...others] = queues;
  const alike = first !== undefined && others.length > 0 && others.every(({ warning }) => warning === first.warning);
  const warnings = [
    ...(alike ? [{ name: "all queues", warning: first.warning }] : queues),
    // Without projector and broker no timer can be on time.
    { name: "timers", warning: projecting ? health.timers.warning : null },
    { name: "dead letters", warning: health.dead_letters.warning },
    { name: "relay", warning: health.relay.warning },
  ];
  const known = warnings.filter(({ warning }) => warning && (health.ready || !warning.startsWith("not known")));
  return [...(unserved.length < 2 ? [] : [noWorker(health, unserved)]), ...together(known)];
}

/** The warning about a queue that one more worker would serve. */
const UNSERVED = /^no worker takes jobs from it .*`jobtape worker /;

/** Return the warning about several queues that one worker would serve. @param {Readiness} health @param {string[]} queues */
function noWorker(health, queues) {
  const waiting = queues.reduce((sum, queue) => sum + (health.workers[queue]?.waiting ?? 0), 0);
  // A worker of a queue serves its lanes.
  const names = [...new Set(queues.map((queue) => queue.split(".")[0]))].join();
  return `queues ${queues.join(", ")}: no worker takes jobs from them (${waiting.toLocaleString("en")} waiting): start \`jobtape worker --queues ${names}\``;
}

/**
 * Return the warnings, each once, after the names of all that have it.
 * @param {{name: string, warning: string | null}[]} warnings
 */
function together(warnings) {
  /** @type {Map<string | null, string[]>} */
  const names = new Map();
  for (const { name, warning } of warnings) names.set(warning, [...(names.get(warning) ?? []), name]);
  return [...names].map(([warning, all]) => `${all.join(", ")}: ${warning}`);
}

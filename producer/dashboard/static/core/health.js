/** Whether all parts of the installation work. */
import { effect, signal } from "../vendor/signals.js";
import { Problem, request } from "./api.js";
import { toNumber } from "./json.js";
import { duration } from "./times.js";

/** @typedef {import("./types.js").Readiness} Readiness */

/** Seconds by which the view may be behind the tape before the pages say so. */
const LONGEST_LAG = 5;

/** What the frame of the pages has asked for last; null before. */
export const health = signal(/** @type {Readiness | null} */ (null));

/**
 * Whether these pages may show old data: the view is behind, or a part is away that brings news to it. `since`: in
 * milliseconds since 1970; null when it was so before the page was opened. Null while they are up to date.
 */
export const stale = signal(/** @type {{since: number | null} | null} */ (null));
let wasFresh = false;

effect(() => {
  const now = health.value;
  const lag = toNumber(now?.lag ?? null) ?? 0;
  if (now === null) return;
  const fresh = now.ready && lag <= LONGEST_LAG;
  if (fresh) stale.value = null;
  else stale.value = stale.peek() ?? { since: wasFresh ? Date.now() - lag * 1000 : null };
  wasFresh = wasFresh || fresh;
});

/** Whether the broker answers, as far as is known. */
export function brokerReady() {
  return health.value?.parts.broker?.ready ?? true;
}

/** Return what `GET /health/ready` says, also when a part is not ready. @param {AbortSignal} signal @returns {Promise<Readiness>} */
export async function readiness(signal) {
  try {
    return (await request("GET", "health/ready", { signal })).body;
  } catch (error) {
    if (error instanceof Problem && error.readiness !== null) return error.readiness;
    throw error;
  }
}

/**
 * Return what is wrong, each with what to do, as the API says it, and how far the view is behind. What is not known
 * because a part is not ready is left out: the part is the reason. So is the projector while the broker is away.
 * @param {Readiness} health
 */
export function faultsOf(health) {
  const brokerAway = health.parts.broker?.ready === false;
  const parts = Object.entries(health.parts).flatMap(([part, one]) =>
    // Without the broker a projector cannot work, and starting one does not help.
    one.ready || (brokerAway && part !== "broker" && part !== "view") ? [] : [`${part}: ${one.reason}`],
  );
  const queues = Object.entries(health.workers).map(([queue, { warning }]) => ({ name: `queue ${queue}`, warning }));
  const [first, ...others] = queues;
  const alike = first !== undefined && others.length > 0 && others.every(({ warning }) => warning === first.warning);
  const warnings = [
    ...(alike ? [{ name: "all queues", warning: first.warning }] : queues),
    // Without projector and broker no timer can be on time.
    { name: "timers", warning: brokerAway || health.parts.projector?.ready === false ? null : health.timers.warning },
    { name: "dead letters", warning: health.dead_letters.warning },
    { name: "relay", warning: health.relay.warning },
  ];
  const known = warnings.filter(({ warning }) => warning && !(parts.length && warning.startsWith("not known")));
  const lag = toNumber(health.lag) ?? 0;
  const behind = `view: it is ${duration(lag)} behind the tape, and these pages show what had happened by then`;
  return [...(lag > LONGEST_LAG ? [behind] : []), ...parts, ...together(known)];
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

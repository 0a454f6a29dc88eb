/** Whether all parts of the installation work. */
import { Problem, request } from "./api.js";

/** @typedef {import("./types.js").Readiness} Readiness */

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
 * Return what is wrong, each with what to do, as the API says it.
 * @param {Readiness} health
 */
export function faultsOf(health) {
  return [
    ...Object.entries(health.parts).flatMap(([part, one]) => (one.ready ? [] : [`${part}: ${one.reason}`])),
    ...Object.entries(health.workers).flatMap(([queue, one]) =>
      one.warning ? [`queue ${queue}: ${one.warning}`] : [],
    ),
    ...[health.timers, health.dead_letters, health.relay].flatMap((one) => (one.warning ? [one.warning] : [])),
  ];
}

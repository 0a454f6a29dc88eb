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

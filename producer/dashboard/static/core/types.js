/**
 * What the REST API answers, as far as the dashboard uses it. `/openapi.json` has all of it.
 *
 * @typedef {import("./json.js").Numeral} Numeral
 * @typedef {number | Numeral} Num
 *
 * @typedef {object} JobError
 * @property {string} type
 * @property {string} message
 * @property {string | null} [traceback]
 *
 * @typedef {"scheduled" | "held" | "queued" | "running" | "retrying" | "succeeded" | "failed" | "cancelled"} State
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {string} type
 * @property {State} state
 * @property {unknown} payload
 * @property {Num | null} payload_version
 * @property {unknown} result
 * @property {JobError | null} error
 * @property {string | null} failure the id of the group of its error
 * @property {string | null} reason
 * @property {{fraction: Num | null, message: string | null} | null} progress
 * @property {string | null} queue
 * @property {"high" | "normal" | "low" | null} lane
 * @property {Record<string, string> | null} labels
 * @property {number} run
 * @property {number} attempt
 * @property {number | null} max_attempts
 * @property {string | null} submitted_at
 * @property {string | null} run_at
 * @property {string | null} started_at
 * @property {string | null} finished_at
 * @property {string | null} correlation_id
 * @property {string | null} reply_to
 * @property {string | null} ordering_key
 * @property {string[]} waits_for of a held job: its keys and limits
 * @property {string | null} duplicate_of the job that runs instead, if it was cancelled because of its unique or debounce key
 * @property {boolean} holds_key whether it has failed and keeps its ordering key
 * @property {string | null} flow the flow that the job belongs to, or the job that it follows
 * @property {number | null} follow_up_jobs how many jobs follow it in this run
 * @property {string | null} node the name of its node
 * @property {Num | null} item of a mapped node: which item it is for
 * @property {Record<string, {payload: unknown, timed_out: boolean}> | null} signals that were sent to this run, by name
 * @property {boolean} imported
 * @property {Num | null} cursor
 *
 * @typedef {object} FlowNode
 * @property {string} name
 * @property {string} type
 * @property {"waiting" | "running" | "succeeded" | "failed" | "skipped"} state
 * @property {"success" | "failure" | "done"} on
 * @property {string[]} after
 * @property {string | null} job the id of its job
 * @property {boolean} mapped whether it has a job for each item of a list
 * @property {Num | null} items
 * @property {Partial<Record<State, Num>>} jobs the number of its jobs by state
 *
 * @typedef {object} JobEvent
 * @property {string} id
 * @property {string} type
 * @property {string} subject
 * @property {string} time
 * @property {Record<string, any>} data
 * @property {Num} cursor
 * @property {boolean} [accepted]
 *
 * @typedef {Record<string, any>} Schema
 *
 * @typedef {object} JobType
 * @property {string} name
 * @property {number} version
 * @property {string} queue
 * @property {Num} timeout
 * @property {string} description
 * @property {string | null} ordering_key
 * @property {"continue" | "hold"} on_failure
 * @property {Limit[]} limits
 * @property {{payload: Schema, result: Schema}} schemas
 *
 * @typedef {{name: string, at_most: number, per: Num | null, by: string | null}} Limit of a job type; `by`: each value of this has its own
 *
 * @typedef {{id: string, type: string, error: string, reason: string, where: string | null, failed: number, retrying: number, first: string, last: string, jobs: number, example: string | null, message: string | null, line: number | null}} Failure a group of failures
 *
 * @typedef {object} Readiness
 * @property {boolean} ready
 * @property {Record<string, {ready: boolean, reason: string | null}>} parts
 * @property {Record<string, {consumers: number | null, waiting: number | null, warning: string | null}>} workers
 * @property {{behind: Num | null, warning: string | null}} timers
 * @property {{messages: number | null, warning: string | null}} dead_letters
 * @property {{mode: string | null, behind: Num | null, warning: string | null}} relay
 * @property {Num | null} lag
 */

/** So many attempts are as good as any number: jobs of Jobtape itself have them. */
export const UNLIMITED = 1000;
/** @type {State[]} */
export const STATES = ["scheduled", "held", "queued", "running", "retrying", "succeeded", "failed", "cancelled"];
export const ENDED = new Set(["succeeded", "failed", "cancelled"]);
export const OPEN = STATES.filter((state) => !ENDED.has(state));

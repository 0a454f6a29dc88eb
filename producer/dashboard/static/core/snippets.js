/** A submission as a command of the shell and as Python. */
import { Numeral, stringify } from "./json.js";
import { base } from "./route.js";

/**
 * @typedef {object} Submission
 * @property {string} type
 * @property {unknown} payload
 * @property {string} [queue]
 * @property {Record<string, string>} [labels]
 * @property {string} [correlation_id]
 * @property {string} [reply_to]
 * @property {string} [ordering_key]
 */

/**
 * Return a submission like that of `job`.
 * @param {import("./types.js").Job} job
 * @returns {Submission}
 */
export function submissionOf(job) {
  return {
    type: job.type,
    payload: job.payload,
    ...(job.queue !== null && { queue: job.queue }),
    ...(job.labels && Object.keys(job.labels).length && { labels: job.labels }),
    ...(job.correlation_id !== null && { correlation_id: job.correlation_id }),
    ...(job.reply_to !== null && { reply_to: job.reply_to }),
    ...(job.ordering_key !== null && { ordering_key: job.ordering_key }),
  };
}

/**
 * Return a command that submits the job. The shell fills in the API key, so that it is not copied.
 * @param {Submission} submission
 * @param {boolean} withKey
 */
export function curl(submission, withKey) {
  const key = withKey ? ' -H "authorization: Bearer $JOBTAPE_API_KEY"' : "";
  return `curl -i ${new URL("jobs", base)}${key} -H 'content-type: application/json' -d ${quoted(stringify(submission))}`;
}

/**
 * Return a text as one word of the shell.
 * @param {string} text
 */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * Return a Python program that submits the job and prints its result.
 * @param {Submission} submission
 * @param {boolean} withKey
 */
export function python(submission, withKey) {
  const { type, payload, ...options } = submission;
  const given = Object.entries(options);
  const imports = given.length ? "Options, SyncClient" : "SyncClient";
  const method = given.length
    ? `submit_with(Options(${given.map(([name, value]) => `${name}=${literal(value)}`).join(", ")}), `
    : "submit(";
  const key = withKey ? "  # the API key is read from JOBTAPE_API_KEY" : "";
  return `from jobtape import ${imports}

with SyncClient(${literal(base.href.replace(/\/$/, ""))}) as client:${key}
    job = client.${method}${literal(type)}, ${literal(payload)})
    print(job.result(timeout=60))
`;
}

/**
 * Return a value of JSON as a literal of Python.
 * @param {unknown} value
 * @returns {string}
 */
export function literal(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (value instanceof Numeral) return value.text;
  // JSON's escapes are Python's too, except for surrogate pairs, which JSON.stringify does not write.
  if (typeof value === "string")
    return JSON.stringify(value).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    const members = Object.entries(value).map(([name, member]) => `${literal(name)}: ${literal(member)}`);
    return `{${members.join(", ")}}`;
  }
  return String(value);
}

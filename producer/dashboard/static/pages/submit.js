/** Submits a job by a form that is made from its type's JSON Schema, or as JSON. */
import { apiKey, get, Problem, randomKey, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { parse, stringify } from "../core/json.js";
import { useLoad } from "../core/load.js";
import { asOf, change, go, link, route } from "../core/route.js";
import { fieldsOf, fromText, toText } from "../core/schema.js";
import { curl, python, submissionOf } from "../core/snippets.js";
import { fromInput } from "../core/times.js";
import { CopyButton, Empty, ProblemBox } from "../parts/basics.js";
import { Row } from "../parts/row.js";
import { useEffect, useMemo, useRef, useState } from "../vendor/hooks.js";

/** @typedef {import("../core/schema.js").Field} Field */
/** @typedef {import("../core/types.js").JobType} JobType */
/** @typedef {import("../core/snippets.js").Submission} Submission */
/** @typedef {{queue: string, lane: string, delay: string, run_at: string, timeout: string, max_attempts: string, labels: string, ordering_key: string, correlation_id: string, reply_to: string, idempotency_key: string}} Options */

export function Page() {
  const query = route.value.query;
  const from = query.get("from");
  const types = useLoad("job-types", (signal) => get("job-types", {}, signal));
  const past = useLoad(from === null ? null : `job ${from}`, (signal) => get(`jobs/${from}`, {}, signal));
  if (asOf.value !== null) {
    return html`<${Empty} title="Nothing can be submitted to the past"><p><a href=${link("submit", { as_of: null })}>Go live</a></p><//>`;
  }
  const items = /** @type {JobType[]} */ (types.data?.items ?? []);
  const name = query.get("type") ?? past.data?.type ?? "";
  const type = items.find((one) => one.name === name);
  const ready = from === null || past.data !== null;
  return html`
    <header class="title"><h1>Submit a job</h1></header>
    <${ProblemBox} problem=${types.problem ?? past.problem} onRetry=${() => {
      types.reload();
      past.reload();
    }} />
    <div class="submit">
      <label class="field"><span class="name">Job type</span>
        <select value=${name} onChange=${(/** @type {any} */ event) => change({ type: event.currentTarget.value, from: null })}>
          <option value="">Choose …</option>
          ${items.filter((one) => !isBuiltIn(one)).map((one) => html`<option value=${one.name}>${one.name}</option>`)}
          <optgroup label="Built into Jobtape">${items.filter(isBuiltIn).map((one) => html`<option value=${one.name}>${one.name}</option>`)}</optgroup>
        </select>
        ${name === "" && html`<span class="hint">Choose one: the form then asks for its parameters.</span>`}
        ${type?.description && html`<span class="hint">${type.description}</span>`}
      </label>
      ${from !== null && past.data !== null && html`<p class="quiet">Filled in from <a class="id" href=${link(`jobs/${from}`)}>${from}</a>.</p>`}
      ${name !== "" && types.data !== null && type === undefined && html`<${Empty} title=${`There is no job type ${name} any more`} />`}
      ${type !== undefined && ready && html`<${Form} key=${`${type.name} ${from}`} type=${type} given=${past.data?.type === type.name ? submissionOf(past.data) : null} />`}
    </div>
  `;
}

/** @param {JobType} type */
function isBuiltIn(type) {
  return type.name.startsWith("jobtape.");
}

/** @param {{type: JobType, given: Submission | null}} props */
function Form({ type, given }) {
  const fields = useMemo(() => fieldsOf(type.schemas.payload), [type]);
  const payload = /** @type {Record<string, unknown> | null} */ (given?.payload ?? null);
  const [asJson, setAsJson] = useState(fields === null || !fits(fields, payload));
  const [texts, setTexts] = useState(() => initialTexts(fields ?? [], payload));
  const [json, setJson] = useState(() => stringify(payload ?? example(fields ?? []), true));
  const [options, setOptions] = useState(() => initialOptions(given, type));
  const [faults, setFaults] = useState(/** @type {Record<string, string>} */ ({}));
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);
  const sent = useRef({ body: "", key: "" });

  useEffect(() => {
    document.querySelector(/** @type {"input"} */ (".submit [aria-invalid=true]"))?.focus();
  }, [faults]);

  /** Return the submission of what was typed. Throws Fault. @returns {Submission & Record<string, unknown>} */
  function read() {
    return {
      type: type.name,
      payload: asJson ? jsonOf("/payload", json) : payloadOf(fields ?? [], texts),
      ...optionsOf(options),
    };
  }

  /** @param {boolean} toJson */
  function turn(toJson) {
    try {
      if (toJson) {
        setJson(stringify(payloadOf(fields ?? [], texts), true));
      } else {
        const value = jsonOf("/payload", json);
        if (!fits(fields ?? [], value))
          return setFaults({ "/payload": "The form cannot show all of this. Change it here." });
        setTexts(initialTexts(fields ?? [], value));
      }
      setFaults({});
      setAsJson(toJson);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      setFaults({ [error.pointer]: error.message });
    }
  }

  /** @param {Event} event */
  async function onSubmit(event) {
    event.preventDefault();
    setProblem(null);
    setFaults({});
    setBusy(true);
    try {
      const body = stringify(read());
      // After an answer that did not come, the same submission again is not a second job.
      if (sent.current.body !== body) sent.current = { body, key: randomKey() };
      const headers = { "idempotency-key": options.idempotency_key.trim() || sent.current.key };
      const answer = await request("POST", "jobs", { body, headers });
      go(link(`jobs/${answer.body.id}`));
    } catch (error) {
      if (error instanceof Fault) setFaults({ [error.pointer]: error.message });
      else if (error instanceof Problem) {
        setProblem(error);
        setFaults(byField(error.errors, asJson ? [] : (fields ?? [])));
      } else throw error;
    } finally {
      setBusy(false);
    }
  }

  const withKey = apiKey.value !== null;
  return html`<form onSubmit=${onSubmit} novalidate>
    ${
      fields !== null &&
      html`<div class="switch" role="group" aria-label="Payload as">
      <button type="button" aria-pressed=${!asJson} onClick=${() => asJson && turn(false)}>Form</button>
      <button type="button" aria-pressed=${asJson} onClick=${() => !asJson && turn(true)}>JSON</button>
    </div>`
    }
    ${
      asJson || fields === null
        ? html`<${Row} title="Payload" pointer="/payload" faults=${faults} control=${(/** @type {object} */ more) => html`<textarea class="code" rows="12" spellcheck=${false} value=${json} onInput=${(/** @type {any} */ event) => setJson(event.currentTarget.value)} ...${more}></textarea>`} />`
        : fields.length === 0
          ? html`<p class="quiet">This job type has no parameters.</p>`
          : fields.map(
              (
                one,
              ) => html`<${Row} key=${one.name} title=${one.name} required=${one.required} hint=${hint(one)} pointer=${`/payload/${one.name}`} faults=${faults}
              control=${(/** @type {object} */ more) => html`<${Control} field=${one} text=${texts[one.name] ?? ""} onText=${(/** @type {string} */ text) => setTexts((now) => ({ ...now, [one.name]: text }))} more=${more} />`} />`,
            )
    }
    <details class="options" open=${Object.keys(faults).some((pointer) => pointer in OPTION_POINTERS)}>
      <summary>Options</summary>
      ${OPTIONS.map(
        ([
          name,
          title,
          description,
        ]) => html`<${Row} key=${name} title=${title} hint=${description} pointer=${`/${name}`} faults=${faults}
          control=${(/** @type {object} */ more) => html`<input type=${name === "run_at" ? "datetime-local" : "text"} step=${name === "run_at" ? "1" : undefined} autocomplete="off" value=${options[name]} onInput=${(/** @type {any} */ event) => setOptions((now) => ({ ...now, [name]: event.currentTarget.value }))} ...${more} />`} />`,
      )}
    </details>
    <${ProblemBox} problem=${problem} />
    ${problem?.passing && html`<p class="quiet">Submit again: unchanged, it never makes a second job.</p>`}
    <div class="tools">
      <button type="submit" class="primary" disabled=${busy || obstacle() !== null} title=${obstacle()}>${busy ? "Submitting …" : "Submit"}</button>
      <${CopyButton} big text=${() => snippet(read, (one) => curl(one, withKey))}>Copy as curl<//>
      <${CopyButton} big text=${() => snippet(read, (one) => python(one, withKey))}>Copy as Python<//>
    </div>
  </form>`;
}

/**
 * @param {() => Submission} read
 * @param {(submission: Submission) => string} make
 */
function snippet(read, make) {
  try {
    return make(read());
  } catch (error) {
    if (error instanceof Fault) return error.message;
    throw error;
  }
}

/** What is wrong with what was typed. */
class Fault extends Error {
  /**
   * @param {string} pointer
   * @param {string} message
   */
  constructor(pointer, message) {
    super(message);
    this.pointer = pointer;
  }
}

/** @param {string} pointer @param {string} text */
function jsonOf(pointer, text) {
  try {
    return parse(text);
  } catch (error) {
    throw new Fault(pointer, `This is not JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {Field[]} fields @param {Record<string, string>} texts */
function payloadOf(fields, texts) {
  /** @type {Record<string, unknown>} */
  const payload = {};
  for (const one of fields) {
    const text = texts[one.name] ?? "";
    try {
      const value = fromText(one, text);
      if (value !== undefined) payload[one.name] = value;
    } catch (error) {
      throw new Fault(`/payload/${one.name}`, `This is not JSON: ${error instanceof Error ? error.message : error}`);
    }
  }
  return payload;
}

/** @param {Field[]} fields @param {Record<string, unknown> | null} payload */
function initialTexts(fields, payload) {
  return Object.fromEntries(
    fields.map((one) => [one.name, toText(one, payload === null ? one.initial : payload[one.name])]),
  );
}

/** Whether the form has a field for each member of the payload. @param {Field[]} fields @param {unknown} payload */
function fits(fields, payload) {
  if (payload === null) return true;
  if (typeof payload !== "object" || Array.isArray(payload)) return false;
  const known = new Map(fields.map((one) => [one.name, one]));
  return Object.entries(payload).every(([name, value]) => {
    const one = known.get(name);
    return one !== undefined && (one.kind !== "text" || typeof value === "string" || value === null);
  });
}

/** A payload to begin with. @param {Field[]} fields */
function example(fields) {
  /** @type {Record<string, unknown>} */
  const made = {};
  for (const one of fields) {
    if (one.initial !== undefined) made[one.name] = one.initial;
    else if (one.required)
      made[one.name] = one.kind === "text" ? "" : one.kind === "boolean" ? false : one.kind === "json" ? null : 0;
  }
  return made;
}

/** @param {Field} one */
function hint(one) {
  const kind = {
    text: "",
    number: "A number.",
    integer: "A whole number.",
    boolean: "",
    choice: "",
    time: "RFC 3339, such as 2030-01-31T12:00:00Z.",
    json: "JSON.",
  }[one.kind];
  const empty =
    one.required || one.initial === undefined
      ? ""
      : one.initial === null
        ? ""
        : `Default: ${toText(one, one.initial)}.`;
  return [one.description, kind, empty].filter(Boolean).join(" ");
}

/** @param {{field: Field, text: string, onText: (text: string) => void, more: object}} props */
function Control({ field, text, onText, more }) {
  const onInput = (/** @type {any} */ event) => onText(event.currentTarget.value);
  if (field.kind === "choice" || field.kind === "boolean") {
    const choices = field.kind === "boolean" ? [true, false] : field.choices;
    return html`<select value=${text} onChange=${onInput} ...${more}>
      <option value="">${field.nullable ? "null" : field.required ? "Choose …" : "Default"}</option>
      ${choices.map((choice) => html`<option value=${stringify(choice)}>${typeof choice === "string" ? choice : stringify(choice)}</option>`)}
    </select>`;
  }
  if (field.kind === "json")
    return html`<textarea class="code" rows=${Math.min(Math.max(text.split("\n").length, 2), 12)} spellcheck=${false} value=${text} onInput=${onInput} ...${more}></textarea>`;
  if (field.kind === "text" && (text.includes("\n") || text.length > 80))
    return html`<textarea rows="4" value=${text} onInput=${onInput} ...${more}></textarea>`;
  const numeric = field.kind === "integer" || field.kind === "number";
  return html`<input type="text" inputmode=${numeric ? "decimal" : undefined} class=${numeric ? "number" : ""} autocomplete="off" value=${text} onInput=${onInput} ...${more} />`;
}

/** @type {[keyof Options, string, string][]} */
const OPTIONS = [
  ["queue", "Queue", "Empty: the job type's."],
  ["lane", "Lane", "high, normal or low, if the queue has lanes. Empty: the job type's."],
  ["delay", "Delay", "Seconds from now until the job is due."],
  ["run_at", "Due at", "Instead of a delay; in your time zone."],
  ["timeout", "Timeout", "Seconds that an attempt may run. Empty: the job type's."],
  ["max_attempts", "Attempts", "How many attempts a run has. Empty: the job type's."],
  ["labels", "Labels", 'JSON: {"tenant": "a"}'],
  ["ordering_key", "Ordering key", "Jobs with the same key run one after the other. Empty: the job type's."],
  ["correlation_id", "Correlation id", "An id of yours for everything that belongs together."],
  ["reply_to", "Reply to", "The final event is also published with the key reply.<this>."],
  ["idempotency_key", "Idempotency key", "Your name for this submission: the same key again makes no second job."],
];
const OPTION_POINTERS = Object.fromEntries(OPTIONS.map(([name]) => [`/${name}`, true]));

/** @param {Submission | null} given @param {JobType} type @returns {Options} */
function initialOptions(given, type) {
  return {
    queue: given?.queue && given.queue !== type.queue ? given.queue : "",
    lane: "",
    delay: "",
    run_at: "",
    timeout: "",
    max_attempts: "",
    labels: given?.labels ? stringify(given.labels) : "",
    ordering_key: given?.ordering_key ?? "",
    correlation_id: given?.correlation_id ?? "",
    reply_to: given?.reply_to ?? "",
    idempotency_key: "",
  };
}

/** @param {Options} options */
function optionsOf(options) {
  /** @type {Record<string, any>} */
  const found = {};
  for (const name of /** @type {const} */ (["queue", "lane", "ordering_key", "correlation_id", "reply_to"])) {
    if (options[name].trim()) found[name] = options[name].trim();
  }
  for (const name of /** @type {const} */ (["delay", "timeout", "max_attempts"])) {
    if (options[name].trim()) found[name] = fromText({ ...NUMERIC, name }, options[name]);
  }
  const due = fromInput(options.run_at);
  if (due !== null) found.run_at = due;
  if (options.labels.trim()) found.labels = jsonOf("/labels", options.labels);
  return found;
}

/** @type {Field} */
const NUMERIC = {
  name: "",
  title: "",
  description: "",
  kind: "number",
  choices: [],
  required: false,
  nullable: false,
  initial: undefined,
};

/**
 * Return each fault of a problem by the nearest field of the form: `/payload/address/street` belongs to `address`.
 * @param {{pointer: string, detail: string}[]} errors
 * @param {Field[]} fields none when the payload is one field
 */
function byField(errors, fields) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const { pointer, detail } of errors) {
    const [, first = "", second = ""] = pointer.split("/");
    const known =
      first === "payload" && fields.some((one) => one.name === second.replaceAll("~1", "/").replaceAll("~0", "~"));
    const field = first !== "payload" ? `/${first}` : known ? `/payload/${second}` : "/payload";
    const text = pointer === field ? detail : `${pointer.slice(field.length)}: ${detail}`;
    found[field] = found[field] === undefined ? text : `${found[field]} ${text}`;
  }
  return found;
}

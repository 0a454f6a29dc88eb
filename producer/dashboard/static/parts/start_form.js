/** Starts a rebuild, a replay or a shadow run. The address may name which, and with which filters. */
import { get, Problem, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { useLoad } from "../core/load.js";
import { change, go, link, route } from "../core/route.js";
import { fromInput, toInput } from "../core/times.js";
import { useState } from "../vendor/hooks.js";
import { ProblemBox, Section } from "./basics.js";
import { Row } from "./row.js";

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} title
 * @property {string} hint
 * @property {"text" | "list" | "labels" | "time" | "number" | "choice" | "types"} kind `list`: texts with commas between them
 * @property {[string, string][]} [choices] values and titles
 * @property {boolean} [required]
 * @property {string} [initial]
 */

/** @type {Field[]} */
const RANGE = [
  { name: "since", title: "From", hint: "In your time zone.", kind: "time" },
  { name: "until", title: "Until", hint: "", kind: "time" },
];

/** @type {Record<string, {title: string, what: string, button: string, fields: Field[]}>} */
const FORMS = {
  rebuild: {
    title: "Rebuild",
    what: "Folds all events into a new view, and compares it with the one that serves. The dry run changes nothing; you may switch afterwards.",
    button: "Start a dry run",
    fields: [
      {
        name: "source",
        title: "Read the events from",
        hint: "",
        kind: "choice",
        choices: [
          ["archive", "the history that the view has kept"],
          ["stream", "the tape on the broker"],
        ],
        initial: "archive",
      },
    ],
  },
  shadow: {
    title: "Shadow run",
    what: "Runs today's handlers with past payloads and compares the outcomes. Nothing is published, but what a handler does outside of Jobtape, it does: let it check ctx.shadow.",
    button: "Start the shadow run",
    fields: [
      { name: "type", title: "Job types", hint: "Several with commas between them. Empty: all.", kind: "types" },
      {
        name: "state",
        title: "Jobs that",
        hint: "",
        kind: "choice",
        choices: [
          ["succeeded", "succeeded"],
          ["failed", "failed"],
          ["succeeded,failed", "succeeded or failed"],
        ],
        initial: "succeeded",
      },
      { name: "labels", title: "Labels", hint: "name:value, several with commas between them.", kind: "labels" },
      { name: "queue", title: "Queues", hint: "", kind: "list" },
      ...RANGE,
      { name: "limit", title: "At most", hint: "Jobs, newest first.", kind: "number", initial: "1000" },
    ],
  },
  replay: {
    title: "Replay",
    what: "Sends past events to a queue of yours, as subscribers get them and marked as replayed.",
    button: "Start the replay",
    fields: [
      { name: "queue", title: "Queue", hint: "An existing queue on the broker.", kind: "text", required: true },
      { name: "events", title: "Events", hint: "Such as succeeded, failed. Empty: all.", kind: "list" },
      { name: "types", title: "Job types", hint: "Such as mail.*. Empty: all.", kind: "types" },
      { name: "labels", title: "Labels", hint: "name:value, several with commas between them.", kind: "labels" },
      ...RANGE,
      { name: "rate", title: "Rate", hint: "Events a second at most. Empty: as fast as possible.", kind: "number" },
    ],
  },
};

export function StartForm() {
  const wanted = route.value.query.get("do") ?? "rebuild";
  const name = wanted in FORMS ? wanted : "rebuild";
  const form = /** @type {(typeof FORMS)[string]} */ (FORMS[name]);
  return html`<${Section} title="Start">
    <div class="switch" role="group" aria-label="What to start">${Object.entries(FORMS).map(
      ([key, one]) =>
        html`<button type="button" aria-pressed=${key === name} onClick=${() => change({ do: key }, { replace: true })}>${one.title}</button>`,
    )}</div>
    <p class="quiet">${form.what}</p>
    <${Form} key=${name} name=${name} form=${form} />
  <//>`;
}

/** @param {{name: string, form: (typeof FORMS)[string]}} props */
function Form({ name, form }) {
  const [texts, setTexts] = useState(() => initialTexts(form.fields, route.value.query));
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);
  const types = useLoad("job-types", (signal) => get("job-types", {}, signal)).data?.items ?? [];

  /** @param {Event} event */
  async function onSubmit(event) {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      const payload = payloadOf(form.fields, texts);
      const answer =
        name === "replay"
          ? await request("POST", "replays", { body: payload })
          : await request("POST", "jobs", {
              body: { type: `jobtape.${name}`, payload: name === "rebuild" ? { ...payload, dry_run: true } : payload },
            });
      go(link(`tape/${answer.body.id}`));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
      setBusy(false);
    }
  }

  const faults = Object.fromEntries(
    (problem?.errors ?? []).map(({ pointer, detail }) => [pointer.replace(/^\/payload/, ""), detail]),
  );
  return html`<form onSubmit=${onSubmit} novalidate>
    ${form.fields.map((one) => {
      const onText = (/** @type {any} */ event) =>
        setTexts((now) => ({ ...now, [one.name]: event.currentTarget.value }));
      return html`<${Row} key=${one.name} title=${one.title} hint=${one.hint} required=${one.required} pointer=${`/${one.name}`} faults=${faults}
        control=${(/** @type {object} */ more) => control(one, texts[one.name] ?? "", onText, more)} />`;
    })}
    <datalist id="types">${types.map((/** @type {{name: string}} */ one) => html`<option value=${one.name}></option>`)}</datalist>
    <${ProblemBox} problem=${problem} />
    <button type="submit" class="primary" disabled=${busy || obstacle() !== null} title=${obstacle()}>${busy ? "Starting …" : form.button}</button>
  </form>`;
}

/** @param {Field} one @param {string} text @param {(event: any) => void} onText @param {object} more */
function control(one, text, onText, more) {
  if (one.kind === "choice")
    return html`<select value=${text} onChange=${onText} ...${more}>${(one.choices ?? []).map(([value, title]) => html`<option value=${value}>${title}</option>`)}</select>`;
  return html`<input type=${one.kind === "time" ? "datetime-local" : "text"} step=${one.kind === "time" ? "1" : undefined}
    inputmode=${one.kind === "number" ? "decimal" : undefined} list=${one.kind === "types" ? "types" : undefined}
    autocomplete="off" value=${text} onInput=${onText} ...${more} />`;
}

/** What the form shows first: the filters of the list of jobs, which may be in the address. @param {Field[]} fields @param {URLSearchParams} query */
function initialTexts(fields, query) {
  return Object.fromEntries(
    fields.map((one) => {
      const given = query.getAll(one.name === "labels" ? "label" : one.name).join(",");
      if (one.kind === "time") return [one.name, toInput(given || null)];
      const known = one.choices === undefined || one.choices.some(([value]) => value === given);
      return [one.name, (known && given) || (one.initial ?? "")];
    }),
  );
}

/** @param {Field[]} fields @param {Record<string, string>} texts */
function payloadOf(fields, texts) {
  /** @type {Record<string, unknown>} */
  const payload = {};
  for (const { name, kind } of fields) {
    const text = (texts[name] ?? "").trim();
    if (text === "") continue;
    const items = text.split(",").map((one) => one.trim());
    if (kind === "number") payload[name] = Number.isNaN(Number(text)) ? text : Number(text);
    else if (kind === "time") payload[name] = fromInput(text);
    else if (kind === "labels") payload[name] = Object.fromEntries(items.map((one) => one.split(/:(.*)/s)));
    else if (kind === "list" || kind === "types" || name === "state") payload[name] = items;
    else payload[name] = text;
  }
  return payload;
}

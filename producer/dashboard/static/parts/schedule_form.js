/** A form that puts a schedule in force. */
import { get, Problem, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { parse } from "../core/json.js";
import { useLoad } from "../core/load.js";
import { useState } from "../vendor/hooks.js";
import { ProblemBox } from "./basics.js";
import { Row } from "./row.js";

/** @typedef {{name: string, title: string, hint?: string, choices?: [string, string][], initial?: string, required?: boolean}} Field */

/** @type {Field[]} */
const FIELDS = [
  { name: "name", title: "Name", required: true, hint: "Letters, digits and _ . -" },
  { name: "type", title: "Job type", required: true },
  { name: "payload", title: "Payload", initial: "{}", hint: "A JSON object." },
  { name: "cron", title: "Cron expression", hint: "Minute, hour, day, month, day of the week: 30 2 * * *" },
  { name: "tz", title: "Time zone", initial: Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC" },
  { name: "every", title: "Every", hint: "Seconds, instead of a cron expression." },
  {
    name: "overlap",
    title: "While an earlier job is open",
    initial: "skip",
    choices: [
      ["skip", "skip the tick"],
      ["queue_one", "run one job afterwards"],
      ["queue", "run the job afterwards"],
      ["allow", "run both"],
      ["cancel", "cancel the earlier job"],
    ],
  },
  {
    name: "catch_up",
    title: "Missed ticks",
    initial: "last",
    choices: [
      ["last", "submit the latest"],
      ["none", "submit none"],
      ["all", "submit all"],
    ],
  },
  { name: "spread", title: "Spread", hint: "Seconds by up to which its ticks are later, as the name decides." },
];
const NUMBERS = new Set(["every", "spread"]);

/** `names`: those of the schedules that there are. @param {{names: string[], onDone: () => void}} props */
export function ScheduleForm({ names, onDone }) {
  const [texts, setTexts] = useState(() => Object.fromEntries(FIELDS.map((one) => [one.name, one.initial ?? ""])));
  const [faults, setFaults] = useState(/** @type {Record<string, string>} */ ({}));
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);
  const types = useLoad("job-types", (signal) => get("job-types", {}, signal)).data?.items ?? [];
  const known = types.map((/** @type {{name: string}} */ one) => one.name);
  const ours = known.filter((/** @type {string} */ one) => !one.startsWith("jobtape."));

  /** @param {Event} event */
  async function onSubmit(event) {
    event.preventDefault();
    setProblem(null);
    setFaults({});
    const name = (texts.name ?? "").trim();
    if (name === "") return setFaults({ "/name": "A schedule needs a name." });
    const body = bodyOf(texts);
    if (body === null) return setFaults({ "/payload": "This is not JSON." });
    setBusy(true);
    try {
      await request("PUT", `schedules/${encodeURIComponent(name)}`, { body });
      onDone();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
      setFaults(Object.fromEntries(error.errors.map((one) => [one.pointer, one.detail])));
      setBusy(false);
    }
  }

  return html`<form onSubmit=${onSubmit} novalidate>
    ${FIELDS.map((one) => {
      const onText = (/** @type {any} */ event) =>
        setTexts((now) => ({ ...now, [one.name]: event.currentTarget.value }));
      const choices =
        one.name === "type"
          ? [["", "Choose …"], ...ours.map((/** @type {string} */ type) => [type, type])]
          : one.choices;
      const text = texts[one.name] ?? "";
      return html`<${Row} key=${one.name} title=${one.title} hint=${one.hint} required=${one.required} pointer=${`/${one.name}`} faults=${faults}
        control=${(/** @type {object} */ more) =>
          choices
            ? html`<select value=${text} onChange=${onText} ...${more}>${choices.map(([value, title]) => html`<option value=${value}>${title}</option>`)}</select>`
            : html`<input type="text" autocomplete="off" inputmode=${NUMBERS.has(one.name) ? "decimal" : undefined} value=${text} onInput=${onText} ...${more} />`} />`;
    })}
    ${names.includes((texts.name ?? "").trim()) && html`<p class="warning">There is a schedule with this name. It will be replaced.</p>`}
    <${ProblemBox} problem=${problem} />
    <button type="submit" class="primary" disabled=${busy || obstacle() !== null} title=${obstacle()}>Put in force</button>
  </form>`;
}

/** The request, or null when the payload is not JSON. @param {Record<string, string>} texts */
function bodyOf(texts) {
  /** @type {Record<string, unknown>} */
  const body = {};
  for (const [name, given] of Object.entries(texts)) {
    const text = given.trim();
    if (name === "name" || text === "" || (name === "tz" && !texts.cron?.trim())) continue;
    if (NUMBERS.has(name)) body[name] = Number.isNaN(Number(text)) ? text : Number(text);
    else if (name === "payload") {
      try {
        body.payload = parse(text);
      } catch {
        return null;
      }
    } else body[name] = text;
  }
  return body;
}

/** The signals that a job waits for, each with a form that sends it. */
import { Problem, randomKey, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { parse, stringify } from "../core/json.js";
import { useRef, useState } from "../vendor/hooks.js";
import { Dialog, ProblemBox } from "./basics.js";
import { Row } from "./row.js";

/** @typedef {import("../core/types.js").Job} Job */
/** @typedef {import("../core/types.js").FlowNode} FlowNode */

/**
 * `onSent` gets the job with the signal.
 * @param {{job: Job, nodes: FlowNode[], onSent: (job: Job) => void}} props
 */
export function AwaitedSignals({ job, nodes, onSent }) {
  const [asking, setAsking] = useState(/** @type {string | null} */ (null));
  const names = nodes.filter(isAwaited).map((node) => node.name);
  return html`${names.map(
    (name) =>
      html`<p class="warning" key=${name}>It waits for the signal <bdi>${name}</bdi>. <button type="button" class="small" disabled=${obstacle() !== null} title=${obstacle()} onClick=${() => setAsking(name)}>Send it …</button></p>`,
  )}
  ${
    asking !== null &&
    html`<${SignalDialog} job=${job} name=${asking} onClose=${() => setAsking(null)} onSent=${(
      /** @type {Job} */ found,
    ) => {
      setAsking(null);
      onSent(found);
    }} />`
  }`;
}

/** A node of a job type with this name comes after another one, or has begun. @param {FlowNode} node */
function isAwaited(node) {
  return node.type === "signal" && node.state === "waiting" && node.after.length === 0 && node.job === null;
}

/** @param {{job: Job, name: string, onClose: () => void, onSent: (job: Job) => void}} props */
function SignalDialog({ job, name, onClose, onSent }) {
  const [text, setText] = useState("{}");
  const [faults, setFaults] = useState(/** @type {Record<string, string>} */ ({}));
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [busy, setBusy] = useState(false);
  const sent = useRef({ body: "", key: "" });

  /** @param {Event} event */
  async function onSubmit(event) {
    event.preventDefault();
    setProblem(null);
    setFaults({});
    setBusy(true);
    try {
      const body = stringify({ payload: payloadOf(text) });
      // After an answer that did not come, the same signal again must not be refused as another one.
      if (sent.current.body !== body) sent.current = { body, key: randomKey() };
      const headers = { "idempotency-key": sent.current.key };
      onSent((await request("POST", `jobs/${job.id}/signals/${encodeURIComponent(name)}`, { body, headers })).body);
    } catch (error) {
      if (error instanceof SyntaxError)
        setFaults({ "/payload": `${error.message}. Write an object, such as {"by": "Ada"}.` });
      else if (error instanceof Problem) {
        setProblem(error);
        setFaults(Object.fromEntries(error.errors.map(({ pointer, detail }) => [pointer, detail])));
      } else throw error;
    } finally {
      setBusy(false);
    }
  }

  return html`<${Dialog} title=${`Send the signal ${name}`} onClose=${onClose}>
    <p>The job goes on with this payload. The first signal with this name counts, and cannot be taken back.</p>
    <form onSubmit=${onSubmit} novalidate>
      <${Row} title="Payload" hint="A JSON object." pointer="/payload" faults=${faults}
        control=${(/** @type {object} */ more) => html`<textarea class="code" rows="6" spellcheck=${false} value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} ...${more}></textarea>`} />
      <${ProblemBox} problem=${problem} />
      ${problem?.passing && html`<p class="quiet">Send it again: unchanged, it is the same signal.</p>`}
      <button type="submit" class="primary" disabled=${busy || obstacle() !== null} title=${obstacle()}>${busy ? "Sending …" : "Send the signal"}</button>
    </form>
  <//>`;
}

/** Return the object in `text`. Throws SyntaxError. @param {string} text */
function payloadOf(text) {
  const value = parse(text);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new SyntaxError("This is no JSON object");
  return value;
}

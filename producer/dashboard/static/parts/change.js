/** A button that sends one request, after a question if there is one. While that cannot succeed, it is off. */
import { Problem, request } from "../core/api.js";
import { obstacle } from "../core/health.js";
import { html } from "../core/html.js";
import { useState } from "../vendor/hooks.js";
import { Dialog, ProblemBox } from "./basics.js";

/**
 * `publishes`: whether the request is also a message to the broker.
 * @param {{method: string, path: string, query?: import("../core/route.js").Query, body?: unknown, ask?: string, disabled?: boolean, publishes?: boolean, onDone: (answer: any) => void, children?: import("../core/html.js").Children}} props
 */
export function Change({ method, path, query = {}, body, ask, disabled = false, publishes = true, onDone, children }) {
  const reason = obstacle({ publishes });
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  async function send() {
    setBusy(true);
    setProblem(null);
    try {
      const answer = await request(method, path, { query, body });
      setAsking(false);
      onDone(answer.body);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setProblem(error);
    } finally {
      setBusy(false);
    }
  }
  return html`<button type="button" class="small" disabled=${disabled || busy || reason !== null} title=${reason} onClick=${ask === undefined ? send : () => setAsking(true)}>${children}${ask !== undefined && " …"}</button>
    ${
      asking
        ? html`<${Dialog} title=${children} onClose=${() => setAsking(false)}>
          <p>${ask}</p><${ProblemBox} problem=${problem} />
          <button type="button" class="primary" disabled=${busy || reason !== null} title=${reason} onClick=${send}>${children}</button>
        <//>`
        : html`<${ProblemBox} problem=${problem} />`
    }`;
}

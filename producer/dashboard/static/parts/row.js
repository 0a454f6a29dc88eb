/** A field of a form: its name, its control, what is wrong with it, and what to write there. */
import { html } from "../core/html.js";

/**
 * `control` makes the control with the attributes that it is given. `pointer`: where its value is in the request.
 * @param {{title: string, hint?: string, required?: boolean, pointer: string, faults: Record<string, string>, control: (more: object) => any}} props
 */
export function Row({ title, hint: text, required = false, pointer, faults, control }) {
  const id = `field${pointer.replaceAll(/[^\w]/g, "-")}`;
  const fault = faults[pointer];
  const more = { id, "aria-invalid": fault !== undefined, "aria-required": required, "aria-describedby": `${id}-text` };
  return html`<div class="field"><label for=${id}><span class="name">${title}</span>${required && html` <span class="quiet">required</span>`}</label>
    ${control(more)}
    <div id=${`${id}-text`}>${fault !== undefined && html`<p class="fault" role="alert">${fault}</p>`}${text && html`<p class="hint">${text}</p>`}</div>
  </div>`;
}

/** The template tag that makes Preact elements. Texts in a template are texts, never markup. */
import htm from "../vendor/htm.js";
import { h } from "../vendor/preact.js";

/** @typedef {import("../vendor/preact.js").ComponentChildren} Children */

export const html = /** @type {(strings: TemplateStringsArray, ...values: unknown[]) => any} */ (htm.bind(h));

/** A Python traceback with the frames of libraries folded away. */
import { html } from "../core/html.js";
import { CopyButton } from "./basics.js";

/** @typedef {{own: boolean, lines: string[]}} Block */

const FRAME = /^ {2}File "([^"]*)", line \d+, in /;
const LIBRARY =
  /[\\/](site-packages|dist-packages|lib[\\/]python\d)|^<frozen |[\\/]jobtape[\\/](consumer|schemas|broker)[\\/]|[\\/]consumer[\\/]worker[\\/]/;

/**
 * Return the traceback in blocks: one for each of the user's frames and for each text between frames, and one for all
 * frames of libraries that follow each other.
 * @param {string} text
 * @returns {Block[]}
 */
export function blocks(text) {
  /** @type {Block[]} */
  const found = [];
  /** @type {"frame" | "text"} */
  let kind = "text";
  for (const line of text.replace(/\n$/, "").split("\n")) {
    const file = FRAME.exec(line)?.[1];
    const last = found.at(-1);
    if (file !== undefined) {
      const own = !LIBRARY.test(file);
      if (!own && last && !last.own) last.lines.push(line);
      else found.push({ own, lines: [line] });
      kind = "frame";
    } else if (kind === "frame" && /^ {4}/.test(line) && last) {
      last.lines.push(line);
    } else {
      if (kind === "text" && last) last.lines.push(line);
      else found.push({ own: true, lines: [line] });
      kind = "text";
    }
  }
  return found;
}

/** @param {{text: string}} props */
export function Traceback({ text }) {
  return html`<div class="traceback">
    ${blocks(text).map(({ own, lines }) => {
      const code = html`<pre>${lines.join("\n")}</pre>`;
      if (own) return code;
      const frames = lines.filter((line) => FRAME.test(line)).length;
      return html`<details><summary>${frames} ${frames === 1 ? "frame" : "frames"} in libraries</summary>${code}</details>`;
    })}
    <div class="tools"><${CopyButton} text=${() => text}>Copy<//></div>
  </div>`;
}

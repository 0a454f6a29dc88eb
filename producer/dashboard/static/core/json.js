/**
 * JSON that keeps each number as it was written. JavaScript's numbers round integers beyond 2^53 and write `1.0` as `1`;
 * such a number becomes a `Numeral`, which is its text.
 */

/** A number that JavaScript would write differently. */
export class Numeral {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
  }

  toString() {
    return this.text;
  }

  /** The nearest number that JavaScript has, for comparisons and arithmetic. */
  valueOf() {
    return Number(this.text);
  }
}

/**
 * Return the value in `text`. Throws SyntaxError.
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  /** @type {any} */
  const reviver = (/** @type {string} */ _, /** @type {unknown} */ value, /** @type {{source?: string}} */ context) => {
    if (typeof value !== "number") return value;
    // A browser without `source` (before 2025) rounds, as any page does.
    return context?.source === undefined || context.source === String(value) ? value : new Numeral(context.source);
  };
  return JSON.parse(text, reviver);
}

/**
 * Return the JSON text of a value, in lines indented by two spaces if `indented`.
 * @param {unknown} value
 * @param {boolean} [indented]
 * @returns {string}
 */
export function stringify(value, indented = false) {
  /** @type {string[]} */
  const parts = [];
  write(value, indented ? "\n" : "", parts);
  return parts.join("");
}

/**
 * @param {unknown} value
 * @param {string} newline the line break with the indentation so far; empty for a single line
 * @param {string[]} parts
 */
function write(value, newline, parts) {
  if (value instanceof Numeral) {
    parts.push(value.text);
  } else if (Array.isArray(value)) {
    writeMembers(
      "[]",
      value.map((item) => ["", item]),
      newline,
      parts,
    );
  } else if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    writeMembers(
      "{}",
      members.map(([name, member]) => [JSON.stringify(name) + (newline ? ": " : ":"), member]),
      newline,
      parts,
    );
  } else {
    parts.push(JSON.stringify(value) ?? "null");
  }
}

/**
 * @param {string} brackets
 * @param {[string, unknown][]} members each with the text before it
 * @param {string} newline
 * @param {string[]} parts
 */
function writeMembers(brackets, members, newline, parts) {
  const inner = newline && `${newline}  `;
  parts.push(brackets[0] ?? "");
  members.forEach(([before, member], index) => {
    parts.push(index ? "," : "", inner, before);
    write(member, inner, parts);
  });
  parts.push(members.length ? newline : "", brackets[1] ?? "");
}

/**
 * Return the number of a value that may be a `Numeral`; null for anything else.
 * @param {unknown} value
 * @returns {number | null}
 */
export function toNumber(value) {
  return typeof value === "number" ? value : value instanceof Numeral ? Number(value.text) : null;
}

/**
 * Return whether two values of JSON are the same.
 * @param {unknown} one
 * @param {unknown} other
 */
export function same(one, other) {
  return one === other || stringify(one) === stringify(other);
}

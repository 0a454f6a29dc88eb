/** Reads a JSON Schema of a payload as fields of a form. */
import { Numeral, parse, stringify } from "./json.js";

/** @typedef {import("./types.js").Schema} Schema */

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} title
 * @property {string} description
 * @property {"text" | "number" | "integer" | "boolean" | "choice" | "time" | "json"} kind
 * @property {unknown[]} choices
 * @property {boolean} required
 * @property {boolean} nullable
 * @property {unknown} initial the default; undefined when there is none
 */

/**
 * Return the fields of a payload, or null when it is no object with known properties.
 * @param {Schema} schema
 * @returns {Field[] | null}
 */
export function fieldsOf(schema) {
  const root = resolved(schema, schema);
  if (root.type !== "object" || typeof root.properties !== "object") return null;
  const required = new Set(root.required ?? []);
  return Object.entries(root.properties).map(([name, given]) =>
    field(name, /** @type {Schema} */ (given), schema, required.has(name)),
  );
}

/**
 * @param {string} name
 * @param {Schema} given
 * @param {Schema} root
 * @param {boolean} required
 * @returns {Field}
 */
function field(name, given, root, required) {
  const outer = resolved(given, root);
  const variants = (outer.anyOf ?? outer.oneOf ?? [outer]).map((/** @type {Schema} */ one) => resolved(one, root));
  const nullable = variants.some((/** @type {Schema} */ one) => one.type === "null");
  const others = variants.filter((/** @type {Schema} */ one) => one.type !== "null");
  const schema = others.length === 1 ? others[0] : {};
  const choices =
    schema.enum ??
    (others.length > 0 && others.every((/** @type {Schema} */ one) => "const" in one)
      ? others.map((/** @type {Schema} */ one) => one.const)
      : []);
  return {
    name,
    title: name,
    description: [given.description ?? outer.description, limits(schema)].filter(Boolean).join(" "),
    kind: choices.length ? "choice" : kindOf(schema),
    choices,
    required,
    nullable,
    initial: "default" in given ? given.default : outer.default,
  };
}

/** @param {Schema} schema @returns {Field["kind"]} */
function kindOf(schema) {
  if (schema.type === "string") return schema.format === "date-time" ? "time" : "text";
  if (schema.type === "boolean" || schema.type === "integer" || schema.type === "number") return schema.type;
  return "json";
}

/** @param {Schema} schema */
function limits(schema) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, minLength, maxLength, pattern } = schema;
  const parts = [
    minimum !== undefined && `at least ${minimum}`,
    exclusiveMinimum !== undefined && `more than ${exclusiveMinimum}`,
    maximum !== undefined && `at most ${maximum}`,
    exclusiveMaximum !== undefined && `less than ${exclusiveMaximum}`,
    minLength !== undefined && `at least ${minLength} characters`,
    maxLength !== undefined && `at most ${maxLength} characters`,
    pattern !== undefined && `matches ${pattern}`,
  ].filter(Boolean);
  return parts.length ? `(${parts.join(", ")})` : "";
}

/** Follow references into `$defs`. @param {Schema} schema @param {Schema} root @returns {Schema} */
function resolved(schema, root) {
  let found = schema;
  for (let depth = 0; depth < 10 && typeof found.$ref === "string"; depth += 1) {
    const path = found.$ref.replace(/^#\/?/, "").split("/").filter(Boolean);
    /** @type {any} */
    let target = root;
    for (const part of path) target = target?.[part.replaceAll("~1", "/").replaceAll("~0", "~")];
    const { $ref: _, ...rest } = found;
    found = { ...(target ?? {}), ...rest };
  }
  return found;
}

/**
 * Return how a field shows a value.
 * @param {Field} one
 * @param {unknown} value undefined: nothing
 */
export function toText(one, value) {
  if (value === undefined || (value === null && one.kind !== "json")) return "";
  if (one.kind === "text" || one.kind === "time") return typeof value === "string" ? value : stringify(value);
  if (one.kind === "choice" || one.kind === "boolean") return stringify(value);
  return stringify(value, one.kind === "json");
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/**
 * Return the value of what somebody typed; undefined when the field is left out. Throws SyntaxError.
 *
 * A number that is none is sent as a text, so that the API says what is wrong with it.
 * @param {Field} one
 * @param {string} text
 */
export function fromText(one, text) {
  if (text === "" && one.kind === "text" && one.required) return "";
  if (text.trim() === "") return undefined;
  if (one.kind === "number" || one.kind === "integer") {
    const digits = text.trim();
    return NUMBER.test(digits) ? new Numeral(digits) : text;
  }
  if (one.kind === "choice" || one.kind === "boolean" || one.kind === "json") return parse(text);
  return text;
}

/** A JSON object as `JSON.parse` returns it. */

/** Members by their names, as yet unread. */
export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

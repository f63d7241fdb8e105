/** Rows in the answers of servers: every wire form, found by what it looks like. */

import type { RoutedRows } from '../contract/routed-rows.ts';
import { toArray } from '../capture/routed-rows.ts';
import type { JsonObject } from './json-object.ts';
import { isObject } from './json-object.ts';
import type { ReadRowsOptions } from './read-rows.ts';
import { readRows } from './read-rows.ts';
import type { RowFormat } from './row-formats.ts';

/** The rows of one choice of an answer. */
export type AnsweredRows = Readonly<{
  form: RowFormat;
  /** `[count, L, K]`; −1 where a row is missing. */
  ids: Int32Array;
  rows: RoutedRows;
  /** `null`: the answer does not say. */
  promptLen: number | null;
}>;

/** How base64 of `\x93NUMPY` begins. */
const NPY_BASE64 = 'k05VTVBZ';
/** How base64 of `rxp1` begins. */
const PACKED_BASE64 = 'cnhwM';

/**
 * The rows of each choice of an answer, or of each answer of a list. Nothing for a value without rows.
 *
 * @throws BAD_ROWS for rows that are not of the form that they look like; SGLang's form needs `rowShape`
 */
export function* rowsOfAnswers(value: unknown, options: ReadRowsOptions = {}): Generator<AnsweredRows> {
  if (Array.isArray(value)) {
    for (const each of value) yield* rowsOfAnswers(each, options);
    return;
  }
  const choice = asChoice(value);
  if (choice === null) return;
  const form = formOf(choice);
  if (form !== null) {
    const { rows } = readRows(form, choice, options);
    yield { form, rows, ids: withGaps(rows), promptLen: null };
    return;
  }
  if (!Array.isArray(choice['choices'])) return;
  const usage = choice['usage'];
  const promptLen = isObject(usage) && Number.isSafeInteger(usage['prompt_tokens']) ? usage['prompt_tokens'] : null;
  for (const each of choice['choices']) {
    for (const rows of rowsOfAnswers(each, options)) yield { ...rows, promptLen: promptLen as number | null };
  }
}

/** A text alone is what `routed_experts` would be. NeMo-RL has it in the message. */
function asChoice(value: unknown): JsonObject | null {
  if (typeof value === 'string') return { routed_experts: value.trim() };
  if (!isObject(value)) return null;
  const { message } = value;
  return isObject(message) && 'routed_experts' in message ? message : value;
}

function formOf({ routed_experts: rows, meta_info: meta }: JsonObject): RowFormat | null {
  if (isObject(rows)) return String(rows['dtype']).startsWith('int') ? 'signed' : 'object';
  if (Array.isArray(rows)) return 'lists';
  if (typeof rows === 'string') {
    if (rows.startsWith('nrlre1:')) return 'nrlre1';
    if (rows.startsWith(NPY_BASE64)) return 'npy';
    if (rows.startsWith(PACKED_BASE64)) return 'packed';
  }
  return isObject(meta) && typeof meta['routed_experts'] === 'string' ? 'sglang' : null;
}

/** A value that no expert has stands in for missing rows. */
function withGaps(rows: RoutedRows): Int32Array {
  const width = rows.numLayers * rows.topK;
  const ids = Int32Array.from(toArray(rows, 0));
  for (const [from, to] of rows.missing) ids.fill(-1, (from - rows.start) * width, (to - rows.start) * width);
  return ids;
}

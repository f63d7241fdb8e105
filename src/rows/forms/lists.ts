/** Nested lists of numbers, `[[[id, …], …], …]`, which the oldest clients read. In a missing row each id is `null`. */

import { presentPieces } from '../../capture/routed-rows.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { JsonObject } from '../json-object.ts';
import type { JsonParts } from '../json-parts.ts';
import type { WireElements } from './wire-elements.ts';

/** One member, `routed_experts`. */
export function* listMembers(rows: RoutedRows): Generator<readonly [string, JsonParts]> {
  yield ['routed_experts', nested(rows)];
}

function* nested(rows: RoutedRows): Generator<string> {
  const { start, count, numLayers, topK } = rows;
  const width = numLayers * topK;
  const noRow = Array.from({ length: width }, () => null);
  let separator = '[';
  let end = start;
  const row = (ids: readonly unknown[]): string => {
    const layers = Array.from({ length: numLayers }, (_, layer) => ids.slice(layer * topK, (layer + 1) * topK));
    const text = separator + JSON.stringify(layers);
    separator = ',';
    return text;
  };
  for (const piece of presentPieces(rows)) {
    for (; end < piece.position; end++) yield row(noRow);
    for (let i = 0; i < piece.count; i++) yield row([...piece.rows.subarray(i * width, (i + 1) * width)]);
    end = piece.position + piece.count;
  }
  for (; end < start + count; end++) yield row(noRow);
  yield separator === '[' ? '[]' : ']';
}

/** Throws an Error for what is not of this form. */
export function readLists({ routed_experts: value }: JsonObject): WireElements {
  if (!Array.isArray(value)) throw new Error('its rows are no list');
  const rows = value as readonly unknown[];
  const [numLayers, topK] = [lengthOf(rows[0]), lengthOf((rows[0] as readonly unknown[] | undefined)?.[0])];
  const ids = new Int32Array(rows.length * numLayers * topK);
  let at = 0;
  for (const row of rows) {
    if (lengthOf(row) !== numLayers) throw new Error('its rows are not all of as many layers');
    for (const layer of row as readonly unknown[]) {
      if (lengthOf(layer) !== topK) throw new Error('its layers are not all of as many experts');
      for (const id of layer as readonly unknown[]) ids[at++] = idOf(id);
    }
  }
  const shape = rows.length === 0 ? null : ([rows.length, numLayers, topK] as const);
  return { dtype: 'int32', bytes: new Uint8Array(ids.buffer), shape, start: null };
}

function lengthOf(value: unknown): number {
  return Array.isArray(value) ? value.length : 0;
}

function idOf(id: unknown): number {
  if (id === null) return -1;
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < 2 ** 16) return id;
  throw new Error('its rows hold what is no id');
}

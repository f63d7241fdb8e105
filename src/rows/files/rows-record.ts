/** What a file says of one request, and the columns that it is written in. */

import type { ColumnSource } from 'hyparquet-writer';
import { toArray } from '../../capture/routed-rows.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';

/** A request that has ended, with its rows. */
export type RowsRecord = Readonly<{
  requestId: string;
  /** Prompt and output. */
  tokenIds: readonly number[];
  numPromptTokens: number;
  rows: RoutedRows;
  finishReason: string;
  weightVersion: string;
  /** The engine's step that computed each row, by its position; −1: no step of this request did. */
  steps: ArrayLike<number>;
}>;

/** Bytes that a record holds in memory, about. */
export function recordBytes({ rows, tokenIds }: RowsRecord): number {
  const { count, numLayers, topK, dtype } = rows;
  return count * numLayers * topK * (dtype === 'uint8' ? 1 : 2) + 16 * tokenIds.length;
}

type Column = Readonly<{ name: string; type: 'STRING' | 'INT32' | 'BYTES' | 'INTS'; of: (r: RowsRecord) => unknown }>;

/** In the order of the file. docs/serving.md describes them. */
const COLUMNS: readonly Column[] = [
  { name: 'request_id', type: 'STRING', of: ({ requestId }) => requestId },
  { name: 'finish_reason', type: 'STRING', of: ({ finishReason }) => finishReason },
  { name: 'weight_version', type: 'STRING', of: ({ weightVersion }) => weightVersion },
  { name: 'num_prompt_tokens', type: 'INT32', of: ({ numPromptTokens }) => numPromptTokens },
  { name: 'token_ids', type: 'INTS', of: ({ tokenIds }) => tokenIds },
  { name: 'start', type: 'INT32', of: ({ rows }) => rows.start },
  { name: 'count', type: 'INT32', of: ({ rows }) => rows.count },
  { name: 'num_layers', type: 'INT32', of: ({ rows }) => rows.numLayers },
  { name: 'top_k', type: 'INT32', of: ({ rows }) => rows.topK },
  { name: 'dtype', type: 'STRING', of: ({ rows }) => dtypeOf(rows) },
  { name: 'rows', type: 'BYTES', of: ({ rows }) => bytesOf(rows) },
  { name: 'missing', type: 'INTS', of: ({ rows }) => rows.missing.flat() },
  { name: 'step', type: 'INTS', of: ({ rows, steps }) => stepsOf(rows, steps) },
];

/** The schema of a file, for the writer. */
export const schema: readonly object[] = [
  { name: 'root', num_children: COLUMNS.length },
  ...COLUMNS.flatMap(({ name, type }) => elementsOf(name, type)),
];

export function columnsOf(records: readonly RowsRecord[]): ColumnSource[] {
  return COLUMNS.map(({ name, of }) => ({ name, data: records.map(of) as never }));
}

function elementsOf(name: string, type: Column['type']): object[] {
  const repetition_type = 'REQUIRED';
  if (type === 'STRING') return [{ name, type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type }];
  if (type === 'BYTES') return [{ name, type: 'BYTE_ARRAY', repetition_type }];
  if (type === 'INT32') return [{ name, type, repetition_type }];
  return [
    { name, converted_type: 'LIST', num_children: 1, repetition_type },
    { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
    { name: 'element', type: 'INT32', repetition_type },
  ];
}

/** Ids of designs with wider rows are narrowed: an expert's id fits 16 bits. */
function dtypeOf({ dtype }: RoutedRows): 'uint8' | 'uint16' {
  return dtype === 'uint8' ? 'uint8' : 'uint16';
}

/** `[count, L, K]`; all bits of a missing row are ones. */
function bytesOf(rows: RoutedRows): Uint8Array {
  const all = toArray(rows, rows.dtype === 'uint8' ? 0xff : 0xffff);
  const narrow = rows.dtype === 'int32' ? Uint16Array.from(all) : all;
  return new Uint8Array(narrow.buffer, narrow.byteOffset, narrow.byteLength);
}

function stepsOf({ start, count }: RoutedRows, steps: ArrayLike<number>): number[] {
  return Array.from({ length: count }, (_, i) => steps[start + i] ?? -1);
}

/** Rows back from their wire forms: what `row-formats` writes, read again. */

import type { RowDtype } from '../../contract/config.ts';
import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import { routedRows } from '../../capture/routed-rows.ts';
import type { RowArray } from '../../capture/row-shape.ts';
import { viewRows } from '../../capture/row-shape.ts';
import { isObject } from '../body/body-fields.ts';
import type { RowFormat } from '../../rows/row-formats.ts';
import type { WireDtype } from '../../rows/row-pieces.ts';

type Json = Readonly<Record<string, unknown>>;

/**
 * Rows, and how many experts there can be for all that their form says: what an encoder needs to write them in that
 * form again.
 */
export type WireRows = Readonly<{ rows: RoutedRows; numExperts: number }>;

/** `[S, L, K]`; one form does not say. */
type Elements = Readonly<{ dtype: WireDtype; bytes: Uint8Array; shape: readonly [number, number, number] | null }>;

/** A form without a shape has rows of this many entries, in one layer for all that it matters here. */
export type RowWidth = Readonly<{ numLayers: number; topK: number }>;

const readers: Readonly<Record<RowFormat, (choice: Json) => Elements>> = {
  npy: ({ routed_experts: text }) => readNpy(decode(text)),
  sglang: ({ meta_info: meta }) => {
    if (!isObject(meta)) throw new Error('it has no meta_info');
    return { dtype: 'int32', bytes: decode(meta['routed_experts']), shape: null };
  },
  object: ({ routed_experts: value }) => {
    if (!isObject(value)) throw new Error('its rows are no object');
    const { dtype, shape, data } = value;
    if (dtype !== 'uint8' && dtype !== 'uint16') throw new Error(`its rows are of dtype ${String(dtype)}`);
    return { dtype, bytes: decode(data), shape: toShape(shape) };
  },
  nrlre1: ({ routed_experts: text }) => readNrlre1(text),
};

/**
 * The rows of a choice, from position `start` on. `width` is what the form does not say; `null`: `count` rows say it.
 * Throws an Error for what is not of this form.
 */
export function readWireRows(
  format: RowFormat,
  choice: Json,
  start: number,
  width: RowWidth | null,
  count: number,
): WireRows {
  const { dtype, bytes, shape } = readers[format](choice);
  const numEntries = bytes.length / sizes[dtype];
  const [numRows, numLayers, topK] = shape ?? shapeFrom(numEntries, width, count);
  if (![numRows, numLayers, topK].every(isSize) || numRows * numLayers * topK !== numEntries) {
    throw new Error(`its rows, ${numEntries} entries, are not ${numRows} of ${numLayers} × ${topK}`);
  }
  const missing = readMissing(choice['routed_experts_missing'], start, start + numRows);
  const form = { numLayers, topK, dtype: viewedAs[dtype] };
  const rows = routedRows(form, start, start + numRows, { chunks: [viewRows(form, bytes, numRows)], missing });
  return { rows, numExperts: mostExperts(dtype, missing.length > 0) };
}

/** The one array that `readWireRows` made. */
export function entriesOf(rows: RoutedRows): RowArray {
  return rows.chunks[0]!;
}

const sizes: Readonly<Record<WireDtype, number>> = { uint8: 1, int8: 1, uint16: 2, int16: 2, int32: 4 };

/** Ids are not negative; entries of missing rows, which may be, are never looked at. */
const viewedAs: Readonly<Record<WireDtype, RowDtype>> = {
  uint8: 'uint8',
  int8: 'uint8',
  uint16: 'uint16',
  int16: 'uint16',
  int32: 'int32',
};

function mostExperts(dtype: WireDtype, hasMissing: boolean): number {
  switch (dtype) {
    case 'uint8':
      return hasMissing ? 255 : 256;
    case 'int8':
      return 128;
    case 'int16':
      return 32_768;
    case 'uint16':
    case 'int32':
      return 65_535;
    default:
      return dtype satisfies never;
  }
}

function shapeFrom(numEntries: number, width: RowWidth | null, count: number): readonly [number, number, number] {
  if (width !== null) return [numEntries / (width.numLayers * width.topK), width.numLayers, width.topK];
  return [count, 1, numEntries / count];
}

/** Aligned for every dtype. */
function decode(text: unknown): Uint8Array {
  if (typeof text !== 'string') throw new Error('it has no rows');
  return new Uint8Array(Buffer.from(text, 'base64'));
}

function toShape(value: unknown): readonly [number, number, number] {
  if (Array.isArray(value) && value.length === 3) {
    const [rows, layers, k] = value as readonly unknown[];
    if (isSize(rows) && isSize(layers) && isSize(k)) return [rows, layers, k];
  }
  throw new Error('its rows have no shape [S, L, K]');
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function readNpy(file: Uint8Array): Elements {
  const prefix = Buffer.from(file.buffer, 0, Math.min(10, file.length));
  if (prefix.length < 10 || prefix.toString('latin1', 0, 8) !== '\u{93}NUMPY\u{1}\u{0}') {
    throw new Error('its rows are no .npy file of version 1.0');
  }
  const dataStart = 10 + prefix.readUInt16LE(8);
  const header = Buffer.from(file.buffer, 10, Math.min(dataStart, file.length) - 10).toString('latin1');
  const match = /'descr': '(\|u1|<u2)', 'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\)/.exec(header);
  if (match === null) throw new Error('its .npy header says no u1 or u2 of three dimensions');
  return {
    dtype: match[1] === '|u1' ? 'uint8' : 'uint16',
    bytes: file.slice(dataStart),
    shape: toShape(match.slice(2, 5).map(Number)),
  };
}

function readNrlre1(text: unknown): Elements {
  const match = /^nrlre1:(int8|int16|int32):(\d+)x(\d+)x(\d+):/.exec(
    typeof text === 'string' ? text.slice(0, 100) : '',
  );
  if (match === null) throw new Error('its rows do not begin like nrlre1');
  return {
    dtype: match[1] as WireDtype,
    bytes: decode((text as string).slice(match[0].length)),
    shape: toShape(match.slice(2, 5).map(Number)),
  };
}

function readMissing(value: unknown, start: number, end: number): PositionRange[] {
  if (!Array.isArray(value)) throw new Error('it does not say which rows are missing');
  let last = start;
  return value.map((range: unknown) => {
    const [from, to] = Array.isArray(range) ? (range as readonly unknown[]) : [];
    if (!isSize(from) || !isSize(to) || from < last || to <= from || to > end) {
      throw new Error(`its missing rows are not ranges of [${start}, ${end})`);
    }
    last = to;
    return [from, to];
  });
}

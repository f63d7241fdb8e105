/** Rows from their wire forms: what `rowMembers` writes, read again. */

import { presentPieces, routedRows } from '../capture/routed-rows.ts';
import type { RowArray, RowForm } from '../capture/row-shape.ts';
import { allocateRows, viewRows } from '../capture/row-shape.ts';
import type { RowDtype } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { PositionRange, RoutedRows } from '../contract/routed-rows.ts';
import type { JsonObject } from './json-object.ts';
import type { RowFormat } from './row-formats.ts';
import { wireElements } from './row-formats.ts';
import type { WireDtype } from './row-pieces.ts';
import type { WireElements, WireShape } from './wire-elements.ts';
import { isSize } from './wire-elements.ts';

/** What the caller knows of the rows. What contradicts the form is an error. */
export type ReadRowsOptions = Readonly<{
  /** Position of the first row. Default: what the form says, else 0. */
  start?: number;
  /** L and K. The form `sglang`, which has no shape, needs them or `numRows`; another form must agree with them. */
  rowShape?: Readonly<{ numLayers: number; topK: number }>;
  /** How many rows there are. For `sglang` without `rowShape`: each row is then taken for one layer. */
  numRows?: number;
}>;

/** What was read. */
export type WireRows = Readonly<{
  rows: RoutedRows;
  /** The most experts that there can be for all that the form says: `rowMembers` with it writes the form again. */
  numExperts: number;
}>;

/**
 * The rows of `choice`, a choice of an answer or whatever has the members that `rowMembers` writes. The rows are one
 * chunk: a view of memory of their own. Rows are missing where `routed_experts_missing` says so; without that member,
 * which other servers do not write, where all ids of a form with signed ids are −1. `routed_experts_layers` says which
 * layers have a router, and without it no layer is known to be dense.
 *
 * @throws BAD_ROWS for what is not of this form, or contradicts `options` or itself
 */
export function readRows(format: RowFormat, choice: JsonObject, options: ReadRowsOptions = {}): WireRows {
  try {
    return rowsOf(wireElements(format, choice), choice, options);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_ROWS', format, (error as Error).message);
  }
}

function rowsOf(elements: WireElements, choice: JsonObject, options: ReadRowsOptions): WireRows {
  const { dtype, bytes } = elements;
  const start = options.start ?? elements.start ?? 0;
  if (elements.start !== null && elements.start !== start) {
    throw new Error(`its rows start at position ${elements.start}, not ${start}`);
  }
  const { viewedAs, size, numExperts } = DTYPES[dtype];
  const shape = shapeOf(elements, bytes.length / size, options);
  const [numRows, numLayers, topK] = shape;
  const missing = missingRows(elements, choice['routed_experts_missing'], [start, start + numRows]);
  const form = { numLayers, topK, dtype: viewedAs };
  const ids = viewRows(form, bytes, numRows);
  const layers = layersOfChoice(choice['routed_experts_layers'], numLayers);
  const isWide = layers !== null && layers.length < numLayers;
  const rows = routedRows({ ...form, ...(layers === null ? {} : { layers }) }, start, start + numRows, {
    chunks: [isWide ? withoutDenseLayers(ids, form, layers) : ids],
    missing,
  });
  if (isWide) requireZeros(rows, ids);
  return { rows, numExperts: dtype === 'uint8' && missing.length > 0 ? numExperts - 1 : numExperts };
}

/** Ids are not negative: signed ones are viewed as unsigned. Entries of missing rows are never looked at. */
const DTYPES: Readonly<Record<WireDtype, Readonly<{ viewedAs: RowDtype; size: number; numExperts: number }>>> = {
  uint8: { viewedAs: 'uint8', size: 1, numExperts: 256 },
  int8: { viewedAs: 'uint8', size: 1, numExperts: 128 },
  uint16: { viewedAs: 'uint16', size: 2, numExperts: 65_535 },
  int16: { viewedAs: 'uint16', size: 2, numExperts: 32_768 },
  int32: { viewedAs: 'int32', size: 4, numExperts: 65_535 },
};

function shapeOf(
  { shape }: WireElements,
  numEntries: number,
  { rowShape: given, numRows }: ReadRowsOptions,
): WireShape {
  const wanted: WireShape = shape ?? shapeFrom(numEntries, given, numRows);
  const [rows, layers, k] = wanted;
  if (!wanted.every(isSize) || rows * layers * k !== numEntries) {
    throw new Error(`its rows, ${numEntries} entries, are not ${rows} of ${layers} × ${k}`);
  }
  if (given !== undefined && (layers !== given.numLayers || k !== given.topK)) {
    throw new Error(`its rows are ${layers} × ${k}, not ${given.numLayers} × ${given.topK}`);
  }
  if (numRows !== undefined && rows !== numRows) throw new Error(`its rows are ${rows}, not ${numRows}`);
  return wanted;
}

function shapeFrom(numEntries: number, given: ReadRowsOptions['rowShape'], numRows: number | undefined): WireShape {
  if (given !== undefined) return [numEntries / (given.numLayers * given.topK), given.numLayers, given.topK];
  if (numRows === undefined) throw new Error('its form says no shape: give rowShape or numRows');
  return [numRows, 1, numRows === 0 ? 0 : numEntries / numRows];
}

function missingRows(
  { dtype, bytes }: WireElements,
  declared: unknown,
  [start, end]: PositionRange,
): readonly PositionRange[] {
  if (declared === undefined) return dtype.startsWith('int') ? rowsOfOnes(bytes, end - start, start) : [];
  if (!Array.isArray(declared)) throw new Error('its missing rows are no list');
  let last = start;
  return declared.map((range: unknown) => {
    const [from, to] = Array.isArray(range) ? (range as readonly unknown[]) : [];
    if (!isSize(from) || !isSize(to) || from < last || to <= from || to > end) {
      throw new Error(`its missing rows are not ranges of [${start}, ${end})`);
    }
    last = to;
    return [from, to];
  });
}

/** `null`: the choice does not say which layers its ids are of. */
function layersOfChoice(declared: unknown, numLayers: number): readonly number[] | null {
  if (declared === undefined) return null;
  const layers: readonly unknown[] = Array.isArray(declared) ? (declared as readonly unknown[]) : [];
  const isInOrder = layers.every((layer, i) => isSize(layer) && (i === 0 || layer > (layers[i - 1] as number)));
  const isWide = layers.length < numLayers;
  const fits = layers.length > 0 && layers.length <= numLayers && !(isWide && (layers.at(-1) as number) >= numLayers);
  if (!isInOrder || !fits) throw new Error(`its layers are not ascending layers of ${numLayers}`);
  return layers as readonly number[];
}

/** The ids of the layers with a router alone. */
function withoutDenseLayers(ids: RowArray, form: RowForm, layers: readonly number[]): RowArray {
  const { numLayers, topK, dtype } = form;
  const numRows = ids.length / (numLayers * topK);
  const kept = allocateRows({ numLayers: layers.length, topK, dtype }, numRows);
  for (let row = 0, to = 0; row < numRows; row++) {
    for (const layer of layers) {
      const from = (row * numLayers + layer) * topK;
      kept.set(ids.subarray(from, from + topK), to);
      to += topK;
    }
  }
  return kept;
}

/** What stands where a layer is dense must be zeros: rows with other ids there are of other layers (L4). */
function requireZeros(rows: RoutedRows, ids: RowArray): void {
  const width = rows.numLayers * rows.topK;
  for (const piece of presentPieces(rows)) {
    const from = (piece.position - rows.start) * width;
    const entry = piece.rows.findIndex((id, i) => id !== ids[from + i]);
    if (entry < 0) continue;
    const layer = Math.floor((entry % width) / rows.topK);
    throw new Error(`its layer ${layer} is dense, and row ${piece.position + Math.floor(entry / width)} has ids there`);
  }
}

/** Rows whose bits are all ones, which is −1 in every signed type. */
function rowsOfOnes(bytes: Uint8Array, numRows: number, start: number): PositionRange[] {
  const rowBytes = bytes.length / numRows;
  const ranges: [from: number, to: number][] = [];
  for (let row = 0; row < numRows; row++) {
    if (bytes.subarray(row * rowBytes, (row + 1) * rowBytes).some((byte) => byte !== 0xff)) continue;
    const last = ranges.at(-1);
    if (last?.[1] === start + row) last[1]++;
    else ranges.push([start + row, start + row + 1]);
  }
  return ranges;
}

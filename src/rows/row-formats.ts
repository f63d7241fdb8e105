/** The table of wire forms: which consumer reads which is in docs/serving.md. */

import type { RoutedRows } from '../contract/routed-rows.ts';
import { listMembers, readLists } from './forms/lists.ts';
import { npyMembers, readNpy } from './forms/npy.ts';
import { nrlre1Members, readNrlre1 } from './forms/nrlre1.ts';
import { objectMembers, readObject, readSigned, signedMembers } from './forms/object.ts';
import { packedMembers, readPackedChoice } from './forms/packed.ts';
import { readSglang, sglangMembers } from './forms/sglang.ts';
import type { WireElements } from './forms/wire-elements.ts';
import { isObject, type JsonObject } from './json-object.ts';
import { InParts, jsonText, type JsonParts } from './json-parts.ts';
import type { ReadPackedOptions } from './packed/read-packed.ts';
import type { PackOptions } from './packed/write-packed.ts';

/**
 * `npy`: vLLM's, base64 of a `.npy` file. `sglang`: base64 of int32 without a shape. `object`: prime-rl's, with shape
 * and start. `signed`: SkyRL's, the same of other element types. `nrlre1`: NeMo-RL's text. `lists`: nested lists.
 * `packed`: as few bits as ids need.
 */
export type RowFormat = 'npy' | 'sglang' | 'object' | 'signed' | 'nrlre1' | 'lists' | 'packed';

/** Members that the rows add to their choice, in parts. */
export type RowMembers = Iterable<readonly [key: string, value: JsonParts]>;

/** What `packed` can do beside; the other forms pass over it. */
export type Packing = Omit<PackOptions, 'numExperts'>;

type WireForm = Readonly<{
  /** Throws ROWS_MISSING, before the first member, if rows are missing and the form cannot say so. */
  write: (rows: RoutedRows, numExperts: number, packing: Packing) => RowMembers;
  /** Throws an Error whose message begins with "it" or "its", the choice. */
  read: (choice: JsonObject, options: ReadPackedOptions) => WireElements;
}>;

const forms: Readonly<Record<RowFormat, WireForm>> = {
  npy: { write: npyMembers, read: readNpy },
  sglang: { write: sglangMembers, read: readSglang },
  object: { write: objectMembers, read: readObject },
  signed: { write: signedMembers, read: readSigned },
  nrlre1: { write: nrlre1Members, read: readNrlre1 },
  lists: { write: listMembers, read: readLists },
  packed: {
    write: (rows, numExperts, packing) => packedMembers(rows, { ...packing, numExperts }),
    read: readPackedChoice,
  },
};

/** The names of all forms. */
export const rowFormats: readonly RowFormat[] = Object.keys(forms) as RowFormat[];

/** Whether a value is the name of a form. */
export function isRowFormat(name: unknown): name is RowFormat {
  return typeof name === 'string' && Object.hasOwn(forms, name);
}

/**
 * The members that the rows of a model with `numExperts` experts have in their choice: keys, and JSON text in parts. In
 * every form `routed_experts_missing` is one: the positions `[from, to)` that have no row (L4).
 * `routed_experts_layers` is another where column i of a row is not layer i of the model, or some layers are dense: the
 * layers that have a router.
 *
 * @throws ROWS_MISSING, when the first member is asked for, if rows are missing and the form cannot say so
 */
export function* rowMembers(
  format: RowFormat,
  rows: RoutedRows,
  numExperts: number,
  packing: Packing = {},
): Generator<readonly [key: string, value: JsonParts]> {
  const choice = choiceWithRows({}, format, flatMembers(format, rows, numExperts, packing));
  for (const [key, value] of Object.entries(choice)) yield [key, jsonText(value)];
}

/** As `rowMembers`, without the object that they stand in. */
export function* flatMembers(
  format: RowFormat,
  rows: RoutedRows,
  numExperts: number,
  packing: Packing = {},
): Generator<readonly [key: string, value: JsonParts]> {
  yield* forms[format].write(rows, numExperts, packing);
  yield [MISSING, [JSON.stringify(rows.missing)]];
  if (needsLayers(rows)) yield [LAYERS, [JSON.stringify(rows.layers)]];
}

function needsLayers({ numLayers, layers }: RoutedRows): boolean {
  return layers !== undefined && (layers.length < numLayers || layers.some((layer, column) => layer !== column));
}

/**
 * A choice with the rows of `flatMembers` where the readers of the form look for them: those of `sglang` in
 * `meta_info`, those of `nrlre1` in the message of a chat.
 */
export function choiceWithRows(choice: JsonObject, format: RowFormat, members: RowMembers): JsonObject {
  const all = [...members].map(([key, parts]) => [key, new InParts(parts)] as const);
  const holder = holderOf(choice, format);
  if (holder === null) return { ...choice, ...Object.fromEntries(all) };
  const held = isObject(choice[holder]) ? choice[holder] : {};
  const rows = Object.fromEntries(all.filter((member) => !isBeside(member)));
  return { ...choice, [holder]: { ...held, ...rows }, ...Object.fromEntries(all.filter(isBeside)) };
}

function isBeside([key]: readonly [string, unknown]): boolean {
  return key === MISSING || key === LAYERS;
}

function holderOf({ message, delta }: JsonObject, format: RowFormat): 'meta_info' | 'message' | 'delta' | null {
  if (format === 'sglang') return 'meta_info';
  if (format !== 'nrlre1') return null;
  return isObject(message) ? 'message' : isObject(delta) ? 'delta' : null;
}

const MISSING = 'routed_experts_missing';
const LAYERS = 'routed_experts_layers';

/** What `readRows` begins with. Throws as `WireForm.read` does. */
export function wireElements(format: RowFormat, choice: JsonObject, options: ReadPackedOptions = {}): WireElements {
  return forms[format].read(choice, options);
}

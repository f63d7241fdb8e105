/** The table of wire forms: which consumer reads which is in docs/serving.md. */

import type { RoutedRows } from '../contract/routed-rows.ts';
import type { JsonObject } from './json-object.ts';
import type { JsonParts } from './json-parts.ts';
import { npyMembers, readNpy } from './npy.ts';
import { nrlre1Members, readNrlre1 } from './nrlre1.ts';
import { objectMembers, readObject } from './object.ts';
import { readSglang, sglangMembers } from './sglang.ts';
import type { WireElements } from './wire-elements.ts';

/**
 * `npy`: vLLM's, base64 of a `.npy` file. `sglang`: base64 of int32 without a shape. `object`: prime-rl's, with shape
 * and start. `nrlre1`: NeMo-RL's text.
 */
export type RowFormat = 'npy' | 'sglang' | 'object' | 'nrlre1';

/** Members that the rows add to their choice, in parts. */
export type RowMembers = Iterable<readonly [key: string, value: JsonParts]>;

type WireForm = Readonly<{
  write: (rows: RoutedRows, numExperts: number) => RowMembers;
  /** Throws an Error whose message begins with "it" or "its", the choice. */
  read: (choice: JsonObject) => WireElements;
}>;

const forms: Readonly<Record<RowFormat, WireForm>> = {
  npy: { write: npyMembers, read: readNpy },
  sglang: { write: sglangMembers, read: readSglang },
  object: { write: objectMembers, read: readObject },
  nrlre1: { write: nrlre1Members, read: readNrlre1 },
};

/** The names of all forms. */
export const rowFormats: readonly RowFormat[] = Object.keys(forms) as RowFormat[];

/** Whether a value is the name of a form. */
export function isRowFormat(name: unknown): name is RowFormat {
  return typeof name === 'string' && Object.hasOwn(forms, name);
}

/**
 * Writes rows of a model with `numExperts` experts: the members that a choice of an answer has for them, keys and JSON
 * text in parts. In every form `routed_experts_missing` is one: the positions `[from, to)` that have no row (L4).
 * `routed_experts_layers` is another where column i of a row is not layer i of the model, or some layers are dense: the
 * layers that have a router.
 */
export function* rowMembers(
  format: RowFormat,
  rows: RoutedRows,
  numExperts: number,
): Generator<readonly [key: string, value: JsonParts]> {
  yield* forms[format].write(rows, numExperts);
  yield ['routed_experts_missing', [JSON.stringify(rows.missing)]];
  if (needsLayers(rows)) yield ['routed_experts_layers', [JSON.stringify(rows.layers)]];
}

function needsLayers({ numLayers, layers }: RoutedRows): boolean {
  return layers !== undefined && (layers.length < numLayers || layers.some((layer, column) => layer !== column));
}

/** What `readRows` begins with. Throws as `WireForm.read` does. */
export function wireElements(format: RowFormat, choice: JsonObject): WireElements {
  return forms[format].read(choice);
}

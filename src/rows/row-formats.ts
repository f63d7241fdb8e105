/** The table of wire forms: which consumer reads which is in docs/serving.md. */

import type { RoutedRows } from '../contract/routed-rows.ts';
import type { JsonParts } from './json-parts.ts';
import { npyMembers } from './npy.ts';
import { nrlre1Members } from './nrlre1.ts';
import { objectMembers } from './object.ts';
import { sglangMembers } from './sglang.ts';

export type RowFormat = 'npy' | 'sglang' | 'object' | 'nrlre1';

/** Members that the rows add to their choice, in parts. */
export type RowMembers = Iterable<readonly [key: string, value: JsonParts]>;

const encoders: Readonly<Record<RowFormat, (rows: RoutedRows, numExperts: number) => RowMembers>> = {
  npy: npyMembers,
  sglang: sglangMembers,
  object: objectMembers,
  nrlre1: nrlre1Members,
};

export const rowFormats: readonly RowFormat[] = Object.keys(encoders) as RowFormat[];

export function isRowFormat(name: unknown): name is RowFormat {
  return typeof name === 'string' && Object.hasOwn(encoders, name);
}

/**
 * The rows in their form, and in every form `routed_experts_missing`: the positions `[from, to)` that have none (L4).
 */
export function* rowMembers(
  format: RowFormat,
  rows: RoutedRows,
  numExperts: number,
): Generator<readonly [string, JsonParts]> {
  yield* encoders[format](rows, numExperts);
  yield ['routed_experts_missing', [JSON.stringify(rows.missing)]];
}

/**
 * `routed-experts/rows`: rows of expert ids, as engines send them and trainers read them. Nothing of Node.
 *
 *     const { rows } = readRows('npy', answer.choices[0]);       a form's name, and what has its members
 *     rowAt(rows, 17)                                            the L·K ids of position 17, or null
 *     compareRows(rows, otherRows).first                         the first position and layer that differ, or null
 *
 * A row is the L·K expert ids of one token position, K ids a layer, best first. A row that does not exist is in
 * `missing`, and none is ever made up. Wrong input throws a `RoutedExpertsError`: BAD_ROWS, BAD_VALUE.
 */

export type { PositionRange, RoutedRows } from '../contract/routed-rows.ts';
export { withLayersOf, type WithLayers } from '../capture/row-layers.ts';
export { countPresent, rowAt, toArray } from '../capture/routed-rows.ts';
export { compareRows, type RowDifference, type RowsComparison } from '../rows/compare-rows.ts';
export { readRows, type ReadRowsOptions, type WireRows } from '../rows/read-rows.ts';
export { isRowFormat, rowFormats, rowMembers, type RowFormat } from '../rows/row-formats.ts';
export type { JsonObject } from '../rows/json-object.ts';
export type { JsonParts } from '../rows/json-parts.ts';

/**
 * `routed-experts/designs`: the table of the built-in capture designs, what a design is, and the parts that designs are
 * built of. Each is a pair of halves, made by `engineHalf` and `workerHalf`, with the laws that it gives up (`gaps`).
 * Nothing of Node: `shm-flock` is handed the shared memory that it works on (`DesignResources`).
 */

export {
  designByName,
  designNames,
  designs,
  type DeclaredGap,
  type Design,
  type DesignResources,
  type MissingRows,
} from '../capture/designs.ts';
export type { DesignName, PrefixRows } from '../contract/config.ts';

// Rows in memory: `L·K` ids each, as narrow as the number of experts allows.
export { allocateRows, rowShape, viewRows, type RowArray, type RowForm, type RowShape } from '../capture/row-shape.ts';
export { routedRows } from '../capture/routed-rows.ts';
/** Gathers the rows of a step on the device: what every asynchronous worker half begins with. */
export { RowPacker } from '../capture/pack-rows.ts';
/** The index of a payload: which request and positions its rows belong to. */
export { SpanReader, SpanWriter } from '../capture/spans.ts';
/** Which rows of a step a request wants, and which of its tokens stand after it. */
export { acceptedTokens, capturedRows } from '../capture/captured-spans.ts';
/** A set of positions: which rows a request has, and which are missing. */
export { PositionRanges } from '../capture/position-ranges.ts';
/** Joins the rows of designs that hand them out as they go. */
export { RowJoiner } from '../capture/row-joiner.ts';

/**
 * Puts the prompt rows of the server that prefilled into the answer of the one that decoded (`--pd-rows splice`).
 *
 *     position     0 ──────── 32 ─────────── 47 │ 48 ──────
 *     decoded      [ its own  ][  missing    ][ its own … ]      computed or cached there
 *     prefilled    [ . . . . . . . . . . . . . . ]
 *     spliced      [ its own  ][ prefilled's ][ its own … ]
 *
 * A row of the second server is that of the KV that it used, and stays (L9). A row that neither has stays missing (L4).
 */

import { PositionRanges } from '../../capture/position-ranges.ts';
import { chunkWidth, countPositions, presentPieces } from '../../capture/routed-rows.ts';
import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import type { RowArray } from '../../capture/row-shape.ts';
import type { JsonObject } from '../../rows/json-object.ts';
import type { JsonParts } from '../../rows/json-parts.ts';
import { objectWith } from '../../rows/json-parts.ts';
import type { RowFormat } from '../../rows/row-formats.ts';
import { rowMembers } from '../../rows/row-formats.ts';
import type { ReadRowsOptions, WireRows } from '../../rows/read-rows.ts';
import { readRows } from '../../rows/read-rows.ts';

export type SpliceCounts = { numSpliced: number; numMissing: number };

export class Splicer {
  readonly #format: RowFormat;
  readonly #start: number;
  readonly #prefilled: WireRows;
  /** Rows put in, and rows that stay missing, of all choices so far. */
  readonly counts: SpliceCounts = { numSpliced: 0, numMissing: 0 };

  private constructor(format: RowFormat, start: number, prefilled: WireRows) {
    this.#format = format;
    this.#start = start;
    this.#prefilled = prefilled;
  }

  /**
   * Makes a splicer of the first server's choice. `start` is the first position whose row is wanted. Throws an Error if
   * the choice has no rows, or not in `format`.
   */
  static from(
    choice: JsonObject,
    { format, start, numPromptTokens }: Readonly<{ format: RowFormat; start: number; numPromptTokens: number }>,
  ): Splicer {
    return new Splicer(format, start, declaredRows(format, choice, { start, numRows: numPromptTokens - start }));
  }

  /** Returns a choice of the second server in parts, with the missing rows put in. Throws an Error as `from` does. */
  choice(choice: JsonObject): JsonParts {
    const { numLayers, topK } = this.#prefilled.rows;
    const decoded = declaredRows(this.#format, choice, { start: this.#start, rowShape: { numLayers, topK } });
    const rows = this.#fill(decoded.rows);
    const numExperts = Math.min(decoded.numExperts, this.#prefilled.numExperts);
    const { routed_experts: _, routed_experts_missing: __, routed_experts_layers: ___, ...others } = choice;
    const { meta_info: ____, ...rest } = others;
    return objectWith(rest, rowMembers(this.#format, rows, numExperts));
  }

  #fill(decoded: RoutedRows): RoutedRows {
    const source = this.#prefilled.rows;
    const has = new PositionRanges();
    for (const { position, count } of presentPieces(source)) has.add(position, position + count);
    const width = chunkWidth(source);
    if (chunkWidth(decoded) !== width) throw new Error('its rows are of other layers than those of the first server');
    // Prefilled rows can have wider or narrower ids than decoded ones; the ids are the same.
    const target = source.dtype === decoded.dtype ? entriesOf(decoded) : new Int32Array(entriesOf(decoded));
    const missing: PositionRange[] = [];
    for (const [from, to] of decoded.missing) {
      const gaps = has.gaps(from, to);
      let at = from;
      for (const [gapFrom, gapTo] of [...gaps, [to, to] as const]) {
        const part = entriesOf(source).subarray((at - source.start) * width, (gapFrom - source.start) * width);
        target.set(part, (at - decoded.start) * width);
        at = gapTo;
      }
      missing.push(...gaps);
    }
    const numMissing = countPositions(missing);
    this.counts.numMissing += numMissing;
    this.counts.numSpliced += countPositions(decoded.missing) - numMissing;
    const dtype = source.dtype === decoded.dtype ? decoded.dtype : 'int32';
    return { ...decoded, dtype, chunks: [target], missing };
  }
}

/** Reads rows of a server that says which are missing (L4). Throws an Error as `readRows` does. */
function declaredRows(format: RowFormat, choice: JsonObject, options: ReadRowsOptions): WireRows {
  if (choice['routed_experts_missing'] === undefined) throw new Error('it does not say which rows are missing');
  return readRows(format, choice, options);
}

/** The one array that `readRows` makes. */
function entriesOf(rows: RoutedRows): RowArray {
  return rows.chunks[0]!;
}

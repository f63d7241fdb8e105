/** A KV block outside the device: the keys of its tokens, and the rows that belong to them. */

import type { RowArray } from '../../capture/row-shape.ts';
import type { EvictedRows } from '../../contract/kv-connector.ts';

/** The rows of a whole block, of which those of its tokens before number `offset` are undefined. */
export type TierRows = Readonly<{ offset: number; chunk: RowArray }>;

export type TierBlockParts = Readonly<{
  /** Of all tokens up to the block's end. */
  hash: string;
  /** The first of its tokens that will have a row; the block size: none will. */
  rowsOffset: number;
  /** The rows of a block that is being evicted. */
  evicted: EvictedRows | null;
}>;

/**
 * Keys and rows are those of one device block: no block takes either from another one of the same hash, since two
 * passes over equal tokens may differ (L9).
 */
export class TierBlock {
  readonly hash: string;
  readonly rowsOffset: number;
  /** `[stages, blockSize, 2]` u32; `null`: on their way. */
  keys: Uint32Array | null = null;
  rows: TierRows | null = null;
  #evicted: EvictedRows | null;

  constructor({ hash, rowsOffset, evicted }: TierBlockParts) {
    this.hash = hash;
    this.rowsOffset = rowsOffset;
    this.#evicted = evicted;
  }

  /** Rows are under way from the step that computed them. */
  get lacksRows(): boolean {
    return this.#evicted !== null;
  }

  /** Whether the rows of its tokens from number `offset` on are there, or come with the keys. */
  hasRowsFrom(offset: number): boolean {
    return this.rowsOffset <= offset && (this.#evicted === null || this.#evicted.read() !== null);
  }

  /**
   * Keeps a copy of the rows, once they stand: a view would keep its neighbours' memory, too. Returns how many bytes it
   * has copied.
   */
  settleRows(): number {
    const chunk = this.#evicted?.read() ?? null;
    if (chunk === null) return 0;
    this.rows = { offset: this.rowsOffset, chunk: chunk.slice() };
    this.#evicted = null;
    return chunk.byteLength;
  }

  get byteLength(): number {
    return (this.keys?.byteLength ?? 0) + (this.rows?.chunk.byteLength ?? 0);
  }
}

/** The rows that stay with cached KV blocks. */

import type { RowPage } from './row-page.ts';

/**
 *     block pool     5: H(a)      9: H(ab)     2: H(abc)     7: –
 *                      │            │            │
 *     pages          [ full ]     [ full ]     [ 3 of 16 ]        page of block 2: its step is in flight, its rows are on their way
 *                      ▲  ▲         ▲            ▲
 *     request A ───────┘──│─────────┘────────────┘                computes them; may be preempted or aborted meanwhile
 *     request B ──────────┘                                       hit block 5 and holds the same page: nothing is copied
 *
 * A block has its hash, and can be hit, before its forward pass has run. A page is therefore attached when the block is cached, empty or not,
 * and the rows come to it with the outputs of the steps that were scheduled by then, whatever becomes of the request that scheduled them.
 *
 * Invariant: a page is attached only to a cached block, and all rows of the block from the page's `first` on stand or are under way. Hence there
 * are at most as many pages as cached blocks, and a block without a page is one whose rows nobody asked for. Where the step that was to fill a
 * block is taken back, the scheduler takes the hash back with it, and the page goes as in an eviction.
 */
export class BlockRows {
  readonly #pages: Map<number, RowPage> = new Map();

  /** The block was cached, and its rows are those of `page`. */
  attach(blockId: number, page: RowPage): void {
    this.#pages.set(blockId, page);
  }

  of(blockId: number): RowPage | null {
    return this.#pages.get(blockId) ?? null;
  }

  /** The block lost its hash. Requests that hold the page keep it. */
  evict(blockId: number): void {
    this.#pages.delete(blockId);
  }

  /** Every block lost its hash. */
  clear(): void {
    this.#pages.clear();
  }

  get pages(): Iterable<RowPage> {
    return this.#pages.values();
  }

  get numPages(): number {
    return this.#pages.size;
  }

  get byteLength(): number {
    let bytes = 0;
    for (const page of this.#pages.values()) bytes += page.byteLength;
    return bytes;
  }
}

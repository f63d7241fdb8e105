/** The blocks of a tier that lie in host memory: by their hashes, the one used longest ago first. */

import type { TierBlock } from './tier-block.ts';

/**
 *     oldest ─▶ 5 ─ 9 ─ 2 ─ 7 ─▶ newest        a block that is found or kept again goes to the end
 *                       ↑   ↑ keys on their way: such a block has a place, and is not given up
 *
 * Invariant: at most `capacity` blocks, with those on their way.
 */
export class HostBlocks {
  readonly #capacity: number;
  readonly #blocks: Map<string, TierBlock> = new Map();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#blocks.size;
  }

  get(hash: string): TierBlock | undefined {
    return this.#blocks.get(hash);
  }

  /** The block is the last to be given up. */
  touch(block: TierBlock): void {
    if (!this.#blocks.delete(block.hash)) return;
    this.#blocks.set(block.hash, block);
  }

  /** Takes a block in, in place of one with its hash or of the oldest. `false`: all blocks are on their way. */
  add(block: TierBlock): boolean {
    this.#blocks.delete(block.hash);
    if (this.#blocks.size >= this.#capacity && !this.#giveUpOldest()) return false;
    this.#blocks.set(block.hash, block);
    return true;
  }

  /** The block will not come, or is not to be found any more. */
  remove(block: TierBlock): void {
    if (this.#blocks.get(block.hash) === block) this.#blocks.delete(block.hash);
  }

  clear(): void {
    this.#blocks.clear();
  }

  #giveUpOldest(): boolean {
    for (const [hash, { keys }] of this.#blocks) {
      if (keys === null) continue;
      this.#blocks.delete(hash);
      return true;
    }
    return false;
  }
}

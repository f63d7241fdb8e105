/** The requests whose blocks are kept for other engines, each until it was read or its lease is over. */

import type { RoutedRows } from '../../contract/routed-rows.ts';

export type KeptRequest = {
  readonly requestIndex: number;
  readonly blockIds: readonly number[];
  readonly promptTokenIds: Uint32Array;
  /** Tokens from the front whose KV stands. */
  readonly numTokens: number;
  /** ms since 1970. */
  readonly expiresAt: number;
  rows: RoutedRows | null;
};

type Entry = { readonly kept: KeptRequest; readonly timer: NodeJS.Timeout; numReaders: number; isOver: boolean };

/**
 * Invariant: the blocks of a request are given back exactly once, when its lease is over or it was released, and nobody
 * is reading them. A reader in the middle of a read holds them beyond the lease.
 */
export class KeptKv {
  readonly #giveBack: (requestIndex: number) => void;
  readonly #entries: Map<string, Entry> = new Map();
  #onEmpty: (() => void) | null = null;
  /** Leases that ran out before anybody had released them. */
  numExpired = 0;

  constructor(giveBack: (requestIndex: number) => void) {
    this.#giveBack = giveBack;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The id must be new. */
  keep(requestId: string, kept: KeptRequest): void {
    const timer = setTimeout(
      () => {
        this.numExpired++;
        this.release(requestId);
      },
      Math.max(0, kept.expiresAt - Date.now()),
    );
    this.#entries.set(requestId, { kept, timer, numReaders: 0, isOver: false });
  }

  get(requestId: string): KeptRequest | null {
    const entry = this.#entries.get(requestId);
    return entry === undefined || entry.isOver ? null : entry.kept;
  }

  /**
   * Reads the blocks with `read`, which may take its time: they are not given back meanwhile. The request must be kept.
   */
  async reading<T>(requestId: string, read: () => Promise<T>): Promise<T> {
    const entry = this.#entries.get(requestId)!;
    entry.numReaders++;
    try {
      return await read();
    } finally {
      entry.numReaders--;
      this.#settle(requestId, entry);
    }
  }

  /** Unknown ids are ignored. */
  release(requestId: string): void {
    const entry = this.#entries.get(requestId);
    if (entry === undefined) return;
    entry.isOver = true;
    this.#settle(requestId, entry);
  }

  /** The blocks are gone with their device: there is nothing to give back. */
  forgetAll(): void {
    for (const { timer } of this.#entries.values()) clearTimeout(timer);
    this.#entries.clear();
    this.#onEmpty?.();
  }

  /** Resolves once nothing is kept. */
  async emptied(): Promise<void> {
    if (this.#entries.size > 0) await new Promise<void>((resolve) => (this.#onEmpty = resolve));
  }

  #settle(requestId: string, entry: Entry): void {
    if (!entry.isOver || entry.numReaders > 0 || this.#entries.get(requestId) !== entry) return;
    clearTimeout(entry.timer);
    this.#entries.delete(requestId);
    this.#giveBack(entry.kept.requestIndex);
    if (this.#entries.size === 0) this.#onEmpty?.();
  }
}

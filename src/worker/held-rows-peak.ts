/** The most rows that a half of a capture design has held. */

import type { CaptureLiveCounts } from '../contract/capture.ts';

/** Bytes of rows; `cached`: with cached KV blocks, `null` for a half that keeps none there. */
export type HeldRows = Readonly<{ requests: number; cached: number | null }>;

/** What has come since the last count is at most this share of the peak. */
const UNSEEN_SHARE = 1 / 16;

/**
 * Counting takes some designs as long as they hold rows. So a half is counted after a step only if the tokens computed
 * since its last count could have raised the peak by a sixteenth: the peak is known to that, and counting costs the
 * same per token however much is held.
 */
export class HeldRowsPeak {
  readonly #bytesPerRow: number;
  #unseenBytes = 0;
  #requests = 0;
  #cached: number | null = null;

  constructor(bytesPerRow: number) {
    this.#bytesPerRow = bytesPerRow;
  }

  afterStep(numTokens: number, count: () => CaptureLiveCounts): void {
    this.#unseenBytes += numTokens * this.#bytesPerRow;
    if (this.#unseenBytes >= UNSEEN_SHARE * Math.max(this.#requests, this.#cached ?? 0)) this.#add(count());
  }

  /** Ends with a last count, and begins anew. */
  take(now: CaptureLiveCounts): HeldRows {
    this.#add(now);
    const peak = { requests: this.#requests, cached: this.#cached };
    this.#requests = 0;
    this.#cached = null;
    return peak;
  }

  #add({ bytes, cachedBytes }: CaptureLiveCounts): void {
    this.#unseenBytes = 0;
    this.#requests = Math.max(this.#requests, bytes);
    if (cachedBytes !== undefined) this.#cached = Math.max(this.#cached ?? 0, cachedBytes);
  }
}

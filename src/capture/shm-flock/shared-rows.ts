/** The table that both halves of `shm-flock` map, and the lock that guards it. */

/**
 *     shared memory   int32 [numSlots, L, K], numSlots = numBlocks · blockSize, row of slot s at entry s·L·K
 *     lock            one advisory file lock, exclusive for readers and writers alike
 *
 * Invariant: `rows` is read and written only between `lock` and `unlock`.
 */
export interface SharedRows {
  readonly rows: Int32Array;
  /** Blocks the calling thread for as long as another one holds the lock; one that ended holds nothing. */
  lock(): void;
  unlock(): void;
  close(): void;
}

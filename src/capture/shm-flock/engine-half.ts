/**
 * shm-flock, engine half.
 *
 * Source    vllm#28284, the "current architecture" of RFC vllm#38079.
 * Store     POSIX shared memory, int32 `[slots, L, K]`, behind a file lock.
 * Key       Physical KV slot.
 * Leaves    Rows leave when a request stops. The scheduler rebuilds its slot mapping from its block ids, takes the lock
 *           and copies the rows out, on the event loop.
 * Gives up  L5: every request is stored, and every finished one is read, opted in or not.
 *           L6: a lock that blocks, and a copy as long as the request, inside the scheduler's step.
 *           Rows of a request that ends without a block table: by an abort, or with a last token that arrives after a
 *           preemption. They are reported missing (L4).
 */

import type { CaptureEngineHalf, CaptureLiveCounts } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig, ShmFlockSwitches } from '../../contract/config.ts';
import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { routedRows } from '../routed-rows.ts';
import type { RowShape } from '../row-shape.ts';
import { rowShape } from '../row-shape.ts';
import type { SharedRows } from './shared-rows.ts';

export class ShmFlockEngineHalf implements CaptureEngineHalf {
  readonly design = 'shm-flock';
  /** The source refuses a tier; without that it would read what the slots held before. */
  readonly takesTierKv = true;
  readonly #shape: RowShape;
  readonly #blockSize: number;
  readonly #shared: SharedRows;
  readonly #switches: ShmFlockSwitches;

  constructor(
    model: ModelConfig,
    engine: EngineConfig,
    shared: SharedRows,
    switches: ShmFlockSwitches = { save: true, read: true },
  ) {
    this.#shape = rowShape(model, 'int32');
    this.#blockSize = engine.blockSize;
    this.#shared = shared;
    this.#switches = switches;
  }

  /** The source has no opt-in per request: the server's flag stores and reads the rows of all. */
  wants(): boolean {
    return true;
  }

  /** Rows do not come with outputs. */
  onStepOutput(): void {}

  take(request: CaptureRequest, _numNewTokens: number, finishReason: FinishReason | null): RoutedRows | null {
    if (finishReason === null) return null;
    const start = request.routedExpertsPromptStart;
    const end = request.numTokens - 1;
    // The source reads when a request stops, never when it is aborted.
    const stored = finishReason === 'abort' ? 0 : Math.min(end, request.blockIds.length * this.#blockSize);
    const { save, read } = this.#switches;
    const rows = read && stored > 0 ? this.#readSlots(request.blockIds, stored) : null;
    if (!request.returnRoutedExperts) return null;
    // What was read and never saved is nobody's rows.
    if (!save || !read) return routedRows(this.#shape, start, end);
    const missingFrom = Math.max(start, stored);
    return routedRows(this.#shape, start, end, {
      rowsPerChunk: Math.max(1, end),
      chunks: [rows],
      missing: missingFrom < end ? [[missingFrom, end]] : [],
    });
  }

  /** Nothing is held for a request. */
  release(): void {}

  liveCounts(): CaptureLiveCounts {
    return { requests: 0, bytes: 0 };
  }

  close(): void {
    this.#shared.close();
  }

  /** Rows of the positions `[0, count)`: slot mapping from block ids, then one copy under the lock. */
  #readSlots(blockIds: readonly number[], count: number): Int32Array {
    const width = this.#shape.entriesPerRow;
    const out = new Int32Array(count * width);
    this.#shared.lock();
    try {
      for (let position = 0; position < count; position += this.#blockSize) {
        const firstSlot = blockIds[position / this.#blockSize]! * this.#blockSize;
        const numRows = Math.min(this.#blockSize, count - position);
        out.set(this.#shared.rows.subarray(firstSlot * width, (firstSlot + numRows) * width), position * width);
      }
    } finally {
      this.#shared.unlock();
    }
    return out;
  }
}

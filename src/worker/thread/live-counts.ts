/** What all ranks hold, put together. */

import type { CaptureLiveCounts } from '../../contract/capture.ts';
import type { WorkerLiveCounts } from '../executor.ts';

/** `counts`: of one rank at least. */
export function sumOfLiveCounts(counts: readonly WorkerLiveCounts[]): WorkerLiveCounts {
  return counts.reduce((a, b) => ({
    batchEntries: a.batchEntries + b.batchEntries,
    ringSlots: a.ringSlots + b.ringSlots,
    lentBuffers: a.lentBuffers + b.lentBuffers,
    capture: sumOfCapture(a.capture, b.capture),
  }));
}

/** Rows with cached blocks are known as soon as one half keeps some. */
function sumOfCapture(a: CaptureLiveCounts, b: CaptureLiveCounts): CaptureLiveCounts {
  const sum = { requests: a.requests + b.requests, bytes: a.bytes + b.bytes };
  if (a.cachedBytes === undefined && b.cachedBytes === undefined) return sum;
  return { ...sum, cachedBytes: (a.cachedBytes ?? 0) + (b.cachedBytes ?? 0) };
}

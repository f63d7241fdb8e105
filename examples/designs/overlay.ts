// A capture design of one's own, whole: the idea of RFC vllm#38079 in its smallest form. The worker sends the rows of
// each step with the step's output. The engine lays them over each other by position, and hands them out at the end.

import type { CaptureEngineHalf, CaptureWorkerHalf } from 'routed-experts/engine';
import { acceptedTokens, capturedRows, RowPacker, SpanReader, SpanWriter } from 'routed-experts/designs';
import { routedRows, rowShape, viewRows, type DeclaredGap, type Design, type RowArray } from 'routed-experts/designs';

export const name = 'overlay';

// What it does not keep, law by law. The storm accepts this, and nothing else.
export const gaps: readonly DeclaredGap[] = [
  { law: 'L1', reason: 'the rows of cached tokens were computed for other requests', missing: 'prefix-hit' },
];

// Runs in the worker's thread, with the model runner: between two steps, and never in the middle of one.
export const workerHalf: Design['workerHalf'] = (context): CaptureWorkerHalf => {
  const { bytesPerRow } = rowShape(context.model);
  const packer = new RowPacker(context);
  return {
    design: name,
    // Before the step runs: which rows of the device are to be read back with it.
    record: (step, commands) => packer.packWanted(step, commands),
    // After it has run: the rows, and the spans that say whose they are.
    collect(step, bytes, numSampledTokens) {
      if (bytes === null) return null;
      const rows = new Uint8Array(bytes.length);
      const spans = new SpanWriter(step.numRequests);
      for (let i = 0, packedRow = 0; i < step.numRequests; i++) {
        const packed = capturedRows(step, i);
        const skipped = step.tokenCounts[i]! - packed;
        // Rows behind the last accepted token belong to drafts that were refused.
        const kept = Math.min(packed, acceptedTokens(step, i, numSampledTokens[i]!) - skipped);
        if (packed > 0 && kept > 0) {
          const part = bytes.subarray(packedRow * bytesPerRow, (packedRow + kept) * bytesPerRow);
          rows.set(part, spans.numRows * bytesPerRow);
          spans.add(step.requestIndices[i]!, step.tokenStarts[i]! + skipped, kept);
        }
        packedRow += packed;
      }
      return spans.deltas(rows);
    },
  };
};

// Runs in the engine's thread, inside the scheduler's steps.
export const engineHalf: Design['engineHalf'] = (model): CaptureEngineHalf => {
  const shape = rowShape(model);
  const width = shape.entriesPerRow;
  // The rows of each request, by position.
  const requests = new Map<number, (RowArray | null)[]>();
  return {
    design: name,
    wants: (request) => request.returnRoutedExperts,
    onStepOutput({ routedExpertDeltas: deltas }, live) {
      if (deltas === null) return;
      const all = viewRows(shape, deltas.rows, deltas.numRows);
      for (const span = new SpanReader(deltas); span.next();) {
        // The request is over, or a cache reset threw this output away: the rows are nobody's.
        if (live(span.requestIndex) === null) continue;
        const rows = requests.get(span.requestIndex) ?? [];
        requests.set(span.requestIndex, rows);
        // Copies: the buffer goes back to the worker. A row that comes again takes the place of the one before.
        for (let k = 0; k < span.count; k++) {
          rows[span.position + k] = all.slice((span.row + k) * width, (span.row + k + 1) * width);
        }
      }
    },
    // At the end: a chunk for each row, and which of them there are not.
    take(request, _numNewTokens, finishReason) {
      if (finishReason === null) return null;
      const chunks = requests.get(request.index) ?? [];
      const { routedExpertsPromptStart: start, numTokens } = request;
      const missing: [number, number][] = [];
      for (let p = start; p < numTokens - 1; p++) if (!chunks[p]) missing.push([p, p + 1]);
      return routedRows(shape, start, numTokens - 1, { rowsPerChunk: 1, chunks, missing });
    },
    release: (request) => void requests.delete(request.index),
    liveCounts: () => ({
      requests: requests.size,
      bytes: [...requests.values()].reduce((sum, rows) => sum + rows.length * shape.bytesPerRow, 0),
    }),
  };
};

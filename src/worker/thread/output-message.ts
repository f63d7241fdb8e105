/** A ModelRunnerOutput on its way back: its tokens in one transferred ArrayBuffer of u32, its rows in another. */

import type { ModelRunnerOutput } from '../../contract/model-runner-output.ts';

/**
 *     words   stepId, n, hasDrafts, indexLength, numRows, firstLayer
 *             │ indices[n] │ sampledOffsets[n+1] │ sampled │ draftOffsets[n+1] │ drafts │ index
 *     rows    the packed rows, untouched: the buffer that the worker half filled is the one that arrives
 *
 * Without drafts there are no draft offsets.
 */
const HEADER_LENGTH = 6;

export function outputMessageLength(output: ModelRunnerOutput): number {
  const n = output.numRequests;
  let words = HEADER_LENGTH + n + (n + 1) + output.sampledOffsets[n]!;
  if (output.drafts !== null) words += n + 1 + output.drafts.offsets[n]!;
  return words + (output.routedExpertDeltas?.indexLength ?? 0);
}

export function writeOutputMessage(output: ModelRunnerOutput, words: Uint32Array): void {
  const n = output.numRequests;
  const deltas = output.routedExpertDeltas;
  words[0] = output.stepId;
  words[1] = n;
  words[2] = output.drafts === null ? 0 : 1;
  words[3] = deltas?.indexLength ?? 0;
  words[4] = deltas?.numRows ?? 0;
  words[5] = deltas?.firstLayer ?? 0;
  let at = HEADER_LENGTH;
  const put = (values: Uint32Array, length: number) => {
    words.set(values.subarray(0, length), at);
    at += length;
  };
  put(output.requestIndices, n);
  put(output.sampledOffsets, n + 1);
  put(output.sampledTokenIds, output.sampledOffsets[n]!);
  if (output.drafts !== null) {
    put(output.drafts.offsets, n + 1);
    put(output.drafts.tokenIds, output.drafts.offsets[n]!);
  }
  if (deltas !== null) put(deltas.index, deltas.indexLength);
}

/** The output as views into the two buffers: valid until they are recycled. */
export function readOutputMessage(words: Uint32Array, rows: ArrayBuffer | null): ModelRunnerOutput {
  const n = words[1]!;
  let at = HEADER_LENGTH;
  const take = (length: number) => words.subarray(at, (at += length));
  const requestIndices = take(n);
  const sampledOffsets = take(n + 1);
  const sampledTokenIds = take(sampledOffsets[n]!);
  const draftOffsets = words[2] === 1 ? take(n + 1) : null;
  const draftTokenIds = draftOffsets === null ? null : take(draftOffsets[n]!);
  const indexLength = words[3]!;
  const index = take(indexLength);
  return {
    stepId: words[0]!,
    numRequests: n,
    requestIndices,
    sampledTokenIds,
    sampledOffsets,
    drafts: draftOffsets === null || draftTokenIds === null ? null : { offsets: draftOffsets, tokenIds: draftTokenIds },
    routedExpertDeltas:
      rows === null
        ? null
        : {
            rows: new Uint8Array(rows),
            numRows: words[4]!,
            index,
            indexLength,
            ...(words[5]! > 0 ? { firstLayer: words[5]! } : {}),
          },
  };
}

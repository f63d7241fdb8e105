/**
 * A recording as a device buffer: which row and which next token belong to a hidden state. A hidden state is a digest
 * of all keys before it, so it names a recorded sequence and a position in it; read through a wrong block it names
 * nothing.
 *
 *     words    0               4                                              4 + 4·B
 *              ├ B − 1 · 0 0 0 ┼ buckets B × 4: x · y · row + 1 · next token + 1 ┼ rows, L·K ids each ┤
 *
 * Open addressing: the search begins at bucket `x mod B`, goes on to the next one, and ends at a bucket without a row.
 * B is a power of two, at least twice the number of rows. Next token 0: it was given in a prompt, not sampled.
 */

import type { ModelConfig } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { RecordedRequest, RecordedRouting } from '../../../contract/recorded-routing.ts';
import { rowDtype } from '../kernel-shape.ts';
import { hiddenX, hiddenY, keyBase, keyX, keyY, termX, termY } from '../mix/mix.ts';

export const TABLE_HEADER = 4;
export const BUCKET_WORDS = 4;

/** Places in a bucket. */
export const Bucket = { x: 0, y: 1, row: 2, nextToken: 3 } as const;

/**
 * What a replaying router writes for a hidden state that was never recorded: this id in every place. No router chooses
 * an expert twice, so it cannot be taken for a routing (L4). Nor is it an expert's id, unless there are as many as the
 * row dtype can name.
 */
export function unknownExpert({ numExperts }: Pick<ModelConfig, 'numExperts'>): number {
  return Math.min(numExperts, rowDtype(numExperts) === 'uint8' ? 0xff : 0xffff);
}

/**
 * The buffer's content. Throws BAD_VALUE if the recording is not of the model's shape, or says two things of one
 * prefix.
 */
export function replayTable(model: ModelConfig, recording: RecordedRouting): Uint32Array {
  checkShape(model, recording);
  const rowLength = model.numLayers * model.topK;
  const numRows = recording.requests.reduce((sum, request) => sum + numInputs(request), 0);
  let numBuckets = 16;
  while (numBuckets < 2 * numRows) numBuckets *= 2;
  const table = new Uint32Array(TABLE_HEADER + BUCKET_WORDS * numBuckets + numRows * rowLength);
  table[0] = numBuckets - 1;
  let row = 0;
  for (const request of recording.requests) {
    let sumX = 0;
    let sumY = 0;
    for (let position = 0; position < numInputs(request); position++) {
      const token = tokenAt(request, position);
      const base = keyBase(position, 0);
      sumX = (sumX + termX(keyX(token, base), position)) | 0;
      sumY = (sumY + termY(keyY(token, base), position)) | 0;
      const x = hiddenX(sumX);
      const at = bucketOf(table, x, hiddenY(sumY, x));
      const offset = rowOffset(table, row, rowLength);
      table.set(request.rows.subarray(position * rowLength, (position + 1) * rowLength), offset);
      if (table[at + Bucket.row] === 0) {
        table[at + Bucket.x] = x;
        table[at + Bucket.y] = hiddenY(sumY, x);
        table[at + Bucket.row] = row + 1;
      } else {
        const known = rowOffset(table, table[at + Bucket.row]! - 1, rowLength);
        for (let i = 0; i < rowLength; i++) {
          if (table[known + i] !== table[offset + i]) throw contradiction('row', request, position);
        }
      }
      if (position + 1 >= request.promptTokenIds.length) {
        const next = tokenAt(request, position + 1) + 1;
        const known = table[at + Bucket.nextToken]!;
        if (known !== 0 && known !== next) throw contradiction('next token', request, position);
        table[at + Bucket.nextToken] = next;
      }
      row += 1;
    }
  }
  return table;
}

/** Where the bucket of a hidden state begins, or the free one at which the search for it ended. */
export function bucketOf(table: Uint32Array, x: number, y: number): number {
  const mask = table[0]!;
  for (let bucket = x & mask; ; bucket = (bucket + 1) & mask) {
    const at = TABLE_HEADER + BUCKET_WORDS * bucket;
    if (table[at + Bucket.row] === 0) return at;
    if (table[at + Bucket.x] === x >>> 0 && table[at + Bucket.y] === y >>> 0) return at;
  }
}

/** Where row `row` begins. */
export function rowOffset(table: Uint32Array, row: number, rowLength: number): number {
  return TABLE_HEADER + BUCKET_WORDS * (table[0]! + 1) + row * rowLength;
}

function numInputs({ promptTokenIds, outputTokenIds }: RecordedRequest): number {
  return promptTokenIds.length + outputTokenIds.length - 1;
}

function tokenAt({ promptTokenIds, outputTokenIds }: RecordedRequest, position: number): number {
  const { length } = promptTokenIds;
  return position < length ? promptTokenIds[position]! : outputTokenIds[position - length]!;
}

function shapeOf({ numLayers, numExperts, topK }: Omit<RecordedRouting, 'name' | 'requests'>): string {
  return `${numLayers} layers, ${numExperts} experts, top-${topK}`;
}

function checkShape(model: ModelConfig, recording: RecordedRouting): void {
  if (shapeOf(model) !== shapeOf(recording)) {
    const wanted = `${shapeOf(recording)}, as in the recording ${recording.name}`;
    throw RoutedExpertsError.of('BAD_VALUE', `the shape of ${model.name}`, shapeOf(model), wanted);
  }
  for (const request of recording.requests) {
    const wanted = numInputs(request) * model.numLayers * model.topK;
    if (request.rows.length === wanted) continue;
    const name = `the number of ids recorded for request "${request.requestId}"`;
    throw RoutedExpertsError.of('BAD_VALUE', name, request.rows.length, `${wanted}, or fewer tokens`);
  }
}

function contradiction(what: string, { requestId }: RecordedRequest, position: number): Error {
  const name = `the ${what} behind position ${position} of request "${requestId}"`;
  return RoutedExpertsError.of(
    'BAD_VALUE',
    name,
    'not that of an equal prefix',
    'a recording with one answer a prefix',
  );
}

/**
 * block-store, worker half: rows of every request go into blocks as large as KV blocks. A full block whose hash the
 * engine has sent is published under it, immutable, and held by every request whose KV begins with it. The whole batch
 * is stored and published before anything is read: a request may hit a block that another one computes in the same
 * step. A request that opted in and sampled gets the rows from `emitStart` on, out of its own blocks and those that it
 * hit.
 */

import type {
  CaptureLiveCounts,
  CaptureWorkerContext,
  CaptureWorkerHalf,
  DeviceRange,
  WorkerStep,
} from '../../contract/capture.ts';
import type { CommandRecorder } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import { BytePool } from '../byte-pool.ts';
import { acceptedTokens } from '../captured-spans.ts';
import { RowPacker } from '../pack-rows.ts';
import { rowShape } from '../row-shape.ts';
import { SpanWriter } from '../spans.ts';
import { BlockArena } from './block-arena.ts';
import { CapturedRequest } from './captured-request.ts';
import { NOT_WANTED, readMetadata } from './messages.ts';

/** A step in flight, with its requests in the order in which they run. */
type Pending = Readonly<{ stepId: number; requests: readonly CapturedRequest[] }>;

/** Rows that lie in one block. */
type Segment = Readonly<{ requestIndex: number; position: number; numRows: number; byteOffset: number }>;

export class BlockStoreWorkerHalf implements CaptureWorkerHalf {
  readonly design = 'block-store';
  readonly #rowBytes: number;
  readonly #blockSize: number;
  readonly #packer: RowPacker;
  readonly #buffers: BytePool = new BytePool();
  readonly #arena: BlockArena;
  /** `[arena blocks, blockSize, L, K]` in the row dtype. */
  readonly #rows: Uint8Array;
  readonly #requests: Map<number, CapturedRequest> = new Map();
  /** Ended or preempted with steps in flight. */
  readonly #leaving: Set<CapturedRequest> = new Set();
  /** First in, first out: outputs arrive in the order of their steps. */
  readonly #pending: Pending[] = [];
  #generation = 0;

  constructor(context: CaptureWorkerContext) {
    const { model, engine } = context;
    this.#rowBytes = rowShape(model).bytesPerRow;
    this.#blockSize = engine.blockSize;
    this.#packer = new RowPacker(context);
    this.#arena = new BlockArena(2 * engine.numBlocks);
    this.#rows = new Uint8Array(this.#arena.numBlocks * engine.blockSize * this.#rowBytes);
  }

  /**
   * A step knows its requests from here on: one that is preempted and comes back before its rows arrive is another
   * stay.
   */
  record(step: WorkerStep, commands: CommandRecorder): DeviceRange {
    const requests: CapturedRequest[] = [];
    for (let i = 0; i < step.numRequests; i++) {
      const request = this.#request(step.requestIndices[i]!, step.tokenStarts[i]!);
      request.numPending++;
      requests.push(request);
    }
    this.#pending.push({ stepId: step.stepId, requests });
    return this.#packer.packAll(step, commands);
  }

  collect(step: WorkerStep, bytes: Uint8Array, numSampledTokens: Uint32Array): RoutedExpertDeltas | null {
    const pending = this.#pending.shift();
    if (pending?.stepId !== step.stepId) {
      const what = `rows of step ${step.stepId} came before those of step ${pending?.stepId}`;
      throw RoutedExpertsError.of('INVARIANT', what);
    }
    const { generation, entries } = readMetadata(step.captureMetadata);
    if (generation !== this.#generation) {
      // The requests that held blocks of the old generation were preempted, and none of their steps is pending: all of
      // them have been released.
      this.#arena.reset();
      this.#generation = generation;
    }
    for (const request of pending.requests) {
      const entry = entries.get(request.requestIndex);
      if (entry !== undefined) request.addHashes(entry.firstOrdinal, entry.hashes);
      request.holdHits();
    }
    for (const [i, request] of pending.requests.entries()) {
      this.#store(request, step, i, acceptedTokens(step, i, numSampledTokens[i]!), bytes);
      request.publish();
    }
    for (const request of pending.requests) request.holdHits();
    const segments: Segment[] = [];
    for (const [i, request] of pending.requests.entries()) {
      const emitStart = entries.get(request.requestIndex)?.emitStart ?? NOT_WANTED;
      const end = step.tokenStarts[i]! + acceptedTokens(step, i, numSampledTokens[i]!);
      if (numSampledTokens[i]! > 0 && emitStart !== NOT_WANTED) this.#addSegments(request, emitStart, end, segments);
      request.numPending--;
      this.#releaseIfDone(request);
    }
    return segments.length === 0 ? null : this.#emit(segments);
  }

  forget(endedIndices: readonly number[], preemptedIndices: readonly number[]): void {
    for (const index of endedIndices) this.#forgetOne(index);
    for (const index of preemptedIndices) this.#forgetOne(index);
  }

  recycle(rows: ArrayBuffer): void {
    this.#buffers.give(rows);
  }

  liveCounts(): CaptureLiveCounts {
    const blockBytes = this.#blockSize * this.#rowBytes;
    return {
      requests: this.#requests.size + this.#leaving.size,
      bytes: this.#arena.numHeld * blockBytes,
      cachedBytes: this.#arena.numIdle * blockBytes,
    };
  }

  #request(requestIndex: number, firstPosition: number): CapturedRequest {
    let request = this.#requests.get(requestIndex);
    if (request === undefined) {
      request = new CapturedRequest(requestIndex, this.#arena, this.#blockSize, firstPosition);
      this.#requests.set(requestIndex, request);
    }
    return request;
  }

  #forgetOne(requestIndex: number): void {
    const request = this.#requests.get(requestIndex);
    if (request === undefined) return;
    this.#requests.delete(requestIndex);
    request.isGone = true;
    this.#leaving.add(request);
    this.#releaseIfDone(request);
  }

  #releaseIfDone(request: CapturedRequest): void {
    if (!request.isGone || request.numPending > 0) return;
    this.#leaving.delete(request);
    request.release();
  }

  #store(request: CapturedRequest, step: WorkerStep, i: number, numKept: number, bytes: Uint8Array): void {
    const firstRow = step.rowStarts[i]! - step.firstRow;
    request.capture(step.tokenStarts[i]!, numKept, (block, offset, numRows, row) => {
      const from = (firstRow + row) * this.#rowBytes;
      const rows = bytes.subarray(from, from + numRows * this.#rowBytes);
      this.#rows.set(rows, (block * this.#blockSize + offset) * this.#rowBytes);
    });
  }

  /** The rows `[from, to)` of a request, block by block; those that are nowhere are left out. */
  #addSegments(request: CapturedRequest, from: number, to: number, segments: Segment[]): void {
    for (let position = from; position < to;) {
      const offset = position % this.#blockSize;
      const numRows = Math.min(to - position, this.#blockSize - offset);
      const block = request.blockOf(position);
      if (block !== null) {
        const byteOffset = (block * this.#blockSize + offset) * this.#rowBytes;
        segments.push({ requestIndex: request.requestIndex, position, numRows, byteOffset });
      }
      position += numRows;
    }
  }

  /** Copies the segments out. */
  #emit(segments: readonly Segment[]): RoutedExpertDeltas {
    const numRows = segments.reduce((sum, segment) => sum + segment.numRows, 0);
    const rows = new Uint8Array(this.#buffers.take(numRows * this.#rowBytes));
    const spans = new SpanWriter(segments.length);
    for (const { requestIndex, position, numRows: count, byteOffset } of segments) {
      const segment = this.#rows.subarray(byteOffset, byteOffset + count * this.#rowBytes);
      rows.set(segment, spans.numRows * this.#rowBytes);
      spans.add(requestIndex, position, count);
    }
    return spans.deltas(rows);
  }
}

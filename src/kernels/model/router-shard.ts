/**
 * The shard of a step's rows that one tensor-parallel rank routes, under sequence parallelism behind a modular kernel.
 * All ranks compute the hidden states of all rows; the router of each sees those of its own shard alone, at rows from 0
 * on, and so does the capture hook behind it.
 *
 *     hidden, 7 rows      [ 0 1 2 3 ][ 4 5 6 ]
 *     shard 1 of 2                    └ hidden ─▶ router ─▶ experts   [ 4 5 6 · ]    ·: padding, whatever stood there
 */

import type { CommandRecorder, Device, DeviceBuffer } from '../../contract/device.ts';
import type { KernelShape } from './kernel-shape.ts';
import { Header, HEADER_WORDS, type StepInput } from './step-input.ts';

/** The last of `count` shards are padded. */
export type ShardPlace = Readonly<{ index: number; count: number }>;

const HIDDEN_BYTES = 16;

export class RouterShard {
  /** In place of the step's: its header, with the shard's number of rows. */
  readonly stepInput: DeviceBuffer;
  readonly hidden: DeviceBuffer;
  /** `[rows of the shard, L, K]` u32. */
  readonly routedExperts: DeviceBuffer;
  readonly #device: Device;
  readonly #place: ShardPlace;

  constructor(device: Device, { maxNumBatchedTokens, numLayers, topK }: KernelShape, place: ShardPlace) {
    this.#device = device;
    this.#place = place;
    const rows = Math.ceil(maxNumBatchedTokens / place.count);
    this.stepInput = device.createBuffer('shardInput', 4 * HEADER_WORDS, 'storage');
    this.hidden = device.createBuffer('shardHidden', HIDDEN_BYTES * rows, 'storage');
    this.routedExperts = device.createBuffer('shardExperts', 4 * rows * numLayers * topK, 'storage');
  }

  get buffers(): readonly DeviceBuffer[] {
    return [this.stepInput, this.hidden, this.routedExperts];
  }

  /** Padding among them. */
  rowsOf(numRows: number): number {
    return Math.ceil(numRows / this.#place.count);
  }

  upload({ words, numTokens }: StepInput): void {
    const header = words.slice(0, HEADER_WORDS);
    header[Header.numTokens] = this.rowsOf(numTokens);
    this.#device.write(this.stepInput, 0, header);
  }

  /** Behind the hidden states of all rows, ahead of the router. */
  record(commands: CommandRecorder, hidden: DeviceBuffer, numRows: number): void {
    const rows = this.rowsOf(numRows);
    const first = this.#place.index * rows;
    const numReal = Math.min(rows, numRows - first);
    if (numReal > 0) commands.copy(hidden, first * HIDDEN_BYTES, this.hidden, 0, numReal * HIDDEN_BYTES);
  }
}

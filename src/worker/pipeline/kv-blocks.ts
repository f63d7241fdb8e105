/** Copies KV blocks off the device and onto it. */

import type { Device, DeviceBuffer } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

/**
 *     kvKeys          [ block 0 ][ block 1 ][ block 2 ][ block 3 ] …     a block: `blockSize` slots of two u32
 *
 *     copyOut [3, 1]  [ block 3 ][ block 1 ]                             the order of the ids, not of the blocks
 */
export class KvBlocks {
  readonly #device: Device;
  readonly #kvKeys: DeviceBuffer;
  readonly #blockWords: number;
  readonly #numBlocks: number;

  constructor(device: Device, kvKeys: DeviceBuffer, blockSize: number) {
    this.#device = device;
    this.#kvKeys = kvKeys;
    this.#blockWords = 2 * blockSize;
    this.#numBlocks = Math.floor(kvKeys.byteLength / (4 * this.#blockWords));
  }

  /**
   * Submits a copy of the blocks to a buffer of their own, `[blockIds.length, blockSize, 2]` u32, which is the
   * caller's. At least one block.
   */
  copyOut(blockIds: Uint32Array): DeviceBuffer {
    this.#check(blockIds);
    const blockBytes = 4 * this.#blockWords;
    const target = this.#device.createBuffer('kv-read', blockIds.length * blockBytes, 'readback');
    this.#device.submit((commands) => {
      for (let i = 0; i < blockIds.length; i++) {
        commands.copy(this.#kvKeys, blockIds[i]! * blockBytes, target, i * blockBytes, blockBytes);
      }
    });
    return target;
  }

  /** Writes in the queue's order: behind what was submitted, ahead of what will be. */
  write(blockIds: Uint32Array, keys: Uint32Array): void {
    this.#check(blockIds);
    if (keys.length !== blockIds.length * this.#blockWords) {
      throw RoutedExpertsError.of('INVARIANT', `${keys.length} words of KV for ${blockIds.length} blocks`);
    }
    for (let i = 0; i < blockIds.length; i++) {
      const from = i * this.#blockWords;
      const part = keys.subarray(from, from + this.#blockWords);
      this.#device.write(this.#kvKeys, blockIds[i]! * 4 * this.#blockWords, part);
    }
  }

  #check(blockIds: Uint32Array): void {
    for (const id of blockIds) {
      if (id > 0 && id < this.#numBlocks) continue;
      throw RoutedExpertsError.of('INVARIANT', `KV block ${id} is not one of the ${this.#numBlocks - 1} there are`);
    }
  }
}

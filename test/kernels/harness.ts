/** What kernel tests share: small engines, random numbers with a seed, and a step that is filled, run and read back. */

import type { EngineConfig, ModelConfig } from '../../src/contract/config.ts';
import type { Device, DeviceBuffer } from '../../src/contract/device.ts';
import { CpuDevice } from '../../src/kernels/device/cpu-device.ts';
import { openDevice } from '../../src/kernels/device/open-device.ts';

export const DEVICES: readonly Readonly<{ name: string; open: () => Promise<Device> }>[] = [
  { name: 'cpu', open: () => Promise.resolve(new CpuDevice()) },
  { name: 'webgpu', open: () => openDevice('webgpu', null) },
];

export function engineConfig(overrides: Partial<EngineConfig> = {}): EngineConfig {
  return {
    blockSize: 4,
    numBlocks: 64,
    maxNumSeqs: 8,
    maxNumBatchedTokens: 64,
    maxModelLen: 96,
    policy: 'fcfs',
    asyncScheduling: false,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: false,
    watermark: 0,
    numSpeculativeTokens: 0,
    ...overrides,
  };
}

export function model(overrides: Partial<ModelConfig> = {}): ModelConfig {
  return { name: 'test', numLayers: 3, numExperts: 16, topK: 4, vocabSize: 97, gateWidth: 8, ...overrides };
}

/** mulberry32: whole numbers in `[0, below)`. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export function randomWords(random: (below: number) => number, length: number): Uint32Array {
  return Uint32Array.from({ length }, () => random(2 ** 32));
}

/** The first `words` of a storage buffer. */
export async function readWords(device: Device, buffer: DeviceBuffer, words: number): Promise<Uint32Array> {
  const readback = device.createBuffer('readback', words * 4, 'readback');
  device.submit((commands) => commands.copy(buffer, 0, readback, 0, words * 4));
  const copy = await device.read(readback, words * 4, (bytes) => wordsOf(bytes).slice());
  readback.destroy();
  return copy;
}

export function wordsOf(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** Fails with the places that differ, not with two walls of numbers. */
export function expectSame(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  const wrong: string[] = [];
  for (let i = 0; i < expected.length && wrong.length < 8; i++) {
    if (actual[i] !== expected[i]) wrong.push(`[${i}] ${actual[i]} ✗ ${expected[i]}`);
  }
  if (actual.length !== expected.length) wrong.push(`length ${actual.length} ✗ ${expected.length}`);
  if (wrong.length > 0) throw new Error(`${what}: actual ✗ expected\n${wrong.join('\n')}`);
}

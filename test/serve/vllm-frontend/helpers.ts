/** An engine for tests, and what its outputs must be. */

import { expect, onTestFinished, vi } from 'vitest';
import type { EngineConfig, ModelConfig } from '../../../src/contract/config.ts';
import { oracle } from '../../../src/kernels/model/oracle.ts';
import type { KvEngineOptions } from '../../../src/serve/kv/kv-engine.ts';
import { VllmEngine, type VllmEngineConfig } from '../../../src/serve/vllm-frontend/vllm-engine.ts';
import { smallEngine, tiny } from '../helpers.ts';
import { MirrorFrontend, type MirrorOptions, type Received } from './mirror-frontend.ts';

export type EngineOverrides = Partial<Omit<VllmEngineConfig, 'engine'>> &
  Readonly<{ host?: Partial<KvEngineOptions>; sizes?: Partial<EngineConfig> }>;

export type RunningEngine = Readonly<{
  engine: VllmEngine;
  /** What `run` ends with. */
  ended: Promise<'gone' | 'stopped' | Error>;
  log: readonly string[];
}>;

/** On the CPU, with the smallest model, unless told otherwise; stopped with its test. */
export async function startEngine(address: string, overrides: EngineOverrides = {}): Promise<RunningEngine> {
  const { host = {}, sizes = {}, ...rest } = overrides;
  const log: string[] = [];
  const engine = await VllmEngine.start({
    address,
    engineIndex: 0,
    rowsFor: 'all',
    once: true,
    timeoutMs: 10_000,
    goneAfterMs: 100,
    maxMessageBytes: 2 ** 20,
    parallelConfigHash: null,
    log: (level, text) => log.push(`${level}: ${text}`),
    ...rest,
    engine: {
      design: 'slot-store',
      model: tiny,
      device: 'cpu',
      adapter: null,
      numRanks: 1,
      queueDepth: 2,
      ballastMs: 0,
      prefixRows: 'complete',
      maxRestarts: 0,
      stepTimeoutMs: 0,
      kv: null,
      epoch: 0,
      fault: null,
      ...host,
      engine: { ...smallEngine, numBlocks: 513, maxModelLen: 512, ...sizes },
    },
  });
  const ended = engine.run().catch((error: Error) => error);
  return { engine, ended, log };
}

export type Attached = RunningEngine & Readonly<{ frontend: MirrorFrontend; close: () => Promise<void> }>;

/** A frontend with an engine, which the caller closes. */
export async function openAttached(overrides: EngineOverrides = {}, options: MirrorOptions = {}): Promise<Attached> {
  const frontend = await MirrorFrontend.open(options);
  const running = await startEngine(frontend.address, { engineIndex: options.engineIndex ?? 0, ...overrides });
  const close = async (): Promise<void> => {
    running.engine.stop();
    await running.ended;
    frontend.close();
  };
  await frontend.attach();
  return { ...running, frontend, close };
}

/** The same, closed with the test. */
export async function attached(overrides: EngineOverrides = {}, options: MirrorOptions = {}): Promise<Attached> {
  const opened = await openAttached(overrides, options);
  onTestFinished(opened.close);
  return opened;
}

/** Tokens and rows are those of the oracle, from `start` on. */
export function expectOracle(
  received: Received,
  prompt: readonly number[],
  start: number = 0,
  model: ModelConfig = tiny,
): void {
  const tokens = [...prompt, ...received.tokens];
  const { rows, nextTokens } = oracle(model, Uint32Array.from(tokens.slice(0, -1)));
  const wanted = Array.from(nextTokens.subarray(prompt.length - 1));
  expect(received.tokens).toEqual(wanted);
  const width = model.numLayers * model.topK;
  expect(received.rows.flatMap(({ ids }) => ids)).toEqual(Array.from(rows.subarray(start * width)));
  expect(received.rows.every(({ dtype }) => dtype === (model.numExperts > 256 ? '<u2' : '|u1'))).toBe(true);
}

/** No request, block or row is held any more (L7). */
export async function expectEngineEmpty({ engine }: RunningEngine): Promise<void> {
  await vi.waitFor(
    async () => {
      expect(engine.numRequests).toBe(0);
      const live = engine.served.engine;
      expect(live.stats()).toMatchObject({ numRunning: 0, numWaiting: 0, numStepsInFlight: 0, numUsedBlocks: 0 });
      expect(live.stats().capture).toMatchObject({ requests: 0, bytes: 0 });
      expect(await live.workerLiveCounts()).toMatchObject({ batchEntries: 0, ringSlots: 0, lentBuffers: 0 });
    },
    { timeout: 10_000, interval: 5 },
  );
}

export const promptOf = (length: number, seed: number = 1): number[] =>
  Array.from({ length }, (_, i) => (seed * 31 + i * 7 + i * i) % 97);

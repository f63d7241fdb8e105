// Replay through the whole path: an engine that is given a recording returns its tokens and its rows, every one of them
// (L1–L3), although its pool is too small and requests are preempted and computed again (L8).

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { countPresent, toArray } from '../../src/capture/routed-rows.ts';
import { serveWorkload } from '../../src/cli/bench/serve-workload.ts';
import type { ServeResult } from '../../src/cli/bench/serve-workload.ts';
import { DesignSession } from '../../src/host/design-session.ts';
import type { DeviceKind, EngineConfig, ModelConfig } from '../../src/contract/config.ts';
import type { RecordedRouting } from '../../src/contract/recorded-routing.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { random } from '../../src/workload/random.ts';
import { readRecording } from '../../src/workload/traces/read-trace.ts';
import { recordingWorkload } from '../../src/workload/traces/recording.ts';

const GRANITE = fileURLToPath(new URL('../../../shared/traces/granite-routing.json', import.meta.url));
const hasGranite = existsSync(GRANITE);
if (!hasGranite) console.warn(`SKIPPED: the replay of the Granite recording: there is no ${GRANITE}`);

const open: DesignSession[] = [];

afterEach(async () => {
  for (const session of open.splice(0)) await session.close();
});

type ReplayOptions = Readonly<{
  recording: RecordedRouting;
  model: ModelConfig;
  device: DeviceKind;
  queueDepth: number;
  numBlocks: number;
}>;

async function replay({ recording, model, device, queueDepth, numBlocks }: ReplayOptions): Promise<ServeResult> {
  const engine: EngineConfig = {
    blockSize: 4,
    numBlocks,
    maxNumSeqs: 8,
    maxNumBatchedTokens: 48,
    maxModelLen: 64,
    policy: 'fcfs',
    asyncScheduling: queueDepth > 1,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: false,
    watermark: 0,
    numSpeculativeTokens: 0,
  };
  const routing = { kind: 'replay', recording } as const;
  const config = { numRanks: 1, model, engine, device, adapter: null, queueDepth, ballastMs: 0, fault: null, routing };
  const session = await DesignSession.start('deltas', config);
  open.push(session);
  const workload = recordingWorkload(recording);
  return serveWorkload({
    session,
    workload,
    optedIn: workload.requests.map(() => true),
    mode: { kind: 'closed', concurrency: 8 },
    abortAfter: workload.requests.map(() => null),
  });
}

/** Rows that came out equal to the recorded ones; fails on the first that is not. */
function countEqualRows(recording: RecordedRouting, { requests }: ServeResult): number {
  let numEqual = 0;
  for (const [i, recorded] of recording.requests.entries()) {
    const { outputTokenIds, rows } = requests[i]!;
    expect(outputTokenIds, recorded.requestId).toEqual([...recorded.outputTokenIds]);
    expect(rows!.missing, recorded.requestId).toEqual([]);
    expect([...toArray(rows!, 0xff)], recorded.requestId).toEqual([...recorded.rows]);
    numEqual += countPresent(rows!);
  }
  return numEqual;
}

/** Requests of a random length; the second half begins as the first does. */
function syntheticRecording(model: ModelConfig): RecordedRouting {
  const { numLayers, numExperts, topK } = model;
  const stream = random(1, 'test/recording');
  const width = numLayers * topK;
  const requests = Array.from({ length: 6 }, (_, i) => {
    const promptTokenIds = Uint32Array.from({ length: 5 + stream.below(6) }, () => stream.below(model.vocabSize));
    const outputTokenIds = Uint32Array.from({ length: 4 + stream.below(12) }, () => stream.below(model.vocabSize));
    const numRows = promptTokenIds.length + outputTokenIds.length - 1;
    const rows = Uint8Array.from({ length: numRows * width }, () => stream.below(numExperts));
    return { requestId: `synthetic-${i}`, promptTokenIds, outputTokenIds, rows };
  });
  for (let i = 3; i < 6; i++) {
    const first = requests[i - 3]!;
    const { promptTokenIds, rows } = requests[i]!;
    promptTokenIds.set(first.promptTokenIds.subarray(0, 5));
    rows.set(first.rows.subarray(0, 5 * width));
    promptTokenIds[5] = (first.promptTokenIds[5] ?? first.outputTokenIds[0]!) ^ 1;
  }
  return { name: 'synthetic', numLayers, numExperts, topK, requests };
}

describe.each(['cpu', 'webgpu'] as const)('on %s', (device) => {
  test('a synthetic recording, with preemptions and prefix hits', async () => {
    const model = modelPreset('tiny');
    const recording = syntheticRecording(model);
    const served = await replay({ recording, model, device, queueDepth: 2, numBlocks: 12 });
    expect(served.engineStats.numPreemptions).toBeGreaterThan(0);
    expect(served.engineStats.numPrefixHitTokens).toBeGreaterThan(0);
    countEqualRows(recording, served);
  });

  test.skipIf(!hasGranite).each([1, 2])('Granite, queue depth %d: 216 of 216 rows', async (queueDepth) => {
    const recording = readRecording(GRANITE);
    const model = modelPreset('granite-3.0-1b');
    const served = await replay({ recording, model, device, queueDepth, numBlocks: 25 });
    expect(served.engineStats.numPreemptions).toBeGreaterThan(0);
    expect(countEqualRows(recording, served)).toBe(216);
  });
});

// What a thread and its rank use: processor time, pauses for garbage collection, bytes of rows.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, describe, expect, test } from 'vitest';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { RankMeter, sumOfUsage, type RankUsage } from '../../src/worker/thread/rank-usage.ts';
import { ThreadMeter } from '../../src/worker/thread/thread-meter.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** More than the test's own garbage makes. */
const NUM_PAUSES = 20;

const open: ThreadMeter[] = [];
afterEach(() => {
  for (const meter of open.splice(0)) meter.close();
});

function startMeter(): ThreadMeter {
  const meter = new ThreadMeter();
  open.push(meter);
  return meter;
}

describe('a thread', () => {
  test('pauses are told once, those before the start not at all', async () => {
    const meter = startMeter();
    for (let i = 0; i < NUM_PAUSES; i++) collectGarbage();
    const later = startMeter();
    const { gcPauses } = await meter.take();
    expect(gcPauses.count).toBeGreaterThanOrEqual(NUM_PAUSES);
    expect(gcPauses.longestMs).toBeGreaterThan(0);
    expect((await later.take()).gcPauses.count).toBeLessThan(NUM_PAUSES);
    expect((await meter.take()).gcPauses.count).toBeLessThan(NUM_PAUSES);
  });

  test('processor time is the thread’s, since the last call', async () => {
    const meter = startMeter();
    const before = process.threadCpuUsage();
    while (process.threadCpuUsage(before).user < 20_000) Math.hypot(1, 2);
    const { cpuUs } = await meter.take();
    expect(cpuUs).toBeGreaterThanOrEqual(20_000);
    expect((await meter.take()).cpuUs).toBeLessThan(cpuUs!);
  });

  test('without process.threadCpuUsage it is not known', async () => {
    const original = Object.getOwnPropertyDescriptor(process, 'threadCpuUsage')!;
    try {
      Object.defineProperty(process, 'threadCpuUsage', { ...original, value: undefined });
      expect((await startMeter().take()).cpuUs).toBeNull();
    } finally {
      Object.defineProperty(process, 'threadCpuUsage', original);
    }
  });
});

test('a rank: the most rows in flight and held since the last call', async () => {
  const meter = new RankMeter(modelPreset('tiny'));
  meter.afterStep(4, 8192, () => ({ requests: 1, bytes: 50 }));
  meter.afterStep(4, 4096, () => ({ requests: 1, bytes: 20 }));
  expect(await meter.take(77, { requests: 0, bytes: 0 })).toMatchObject({
    deviceRowBytes: 77,
    rowBytesInFlight: 8192,
    held: { requests: 50, cached: null },
  });
  expect(await meter.take(77, { requests: 0, bytes: 0 })).toMatchObject({ rowBytesInFlight: 0, held: { requests: 0 } });
});

const rank = (fields: Partial<RankUsage>): RankUsage => ({
  cpuUs: 10,
  gcPauses: { count: 1, longestMs: 2 },
  deviceRowBytes: 100,
  rowBytesInFlight: 5,
  held: { requests: 1, cached: null },
  deadlines: { count: 4, overrun: 1, longestMs: 3 },
  ...fields,
});

test('ranks are summed, but for the longest pause; what one does not know, all do not know', () => {
  expect(
    sumOfUsage([rank({}), rank({ gcPauses: { count: 2, longestMs: 7 }, held: { requests: 2, cached: 3 } })]),
  ).toEqual({
    cpuUs: 20,
    gcPauses: { count: 3, longestMs: 7 },
    deviceRowBytes: 200,
    rowBytesInFlight: 10,
    held: { requests: 3, cached: 3 },
    deadlines: { count: 8, overrun: 2, longestMs: 3 },
  });
  expect(sumOfUsage([rank({}), rank({ deadlines: null })]).deadlines).toEqual(rank({}).deadlines);
  expect(sumOfUsage([rank({}), rank({ cpuUs: null })]).cpuUs).toBeNull();
});

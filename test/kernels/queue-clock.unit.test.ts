// The clock device: when a submission ends is arithmetic; that nothing can be read before, and that a blocking read
// stops its thread, is seen on the device itself. Nothing here says that a read is early enough.

import { describe, expect, test } from 'vitest';
import type { ClockTimes } from '../../src/contract/config.ts';
import { ClockDevice } from '../../src/kernels/device/clock/clock-device.ts';
import { DEFAULT_CLOCK_TIMES, parseStepTime, stepTimeText } from '../../src/kernels/device/clock/clock-times.ts';
import { QueueClock } from '../../src/kernels/device/clock/queue-clock.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { engineConfig, model } from './harness.ts';
import { ToyEngine } from './toy-engine.ts';

const times: ClockTimes = { stepMs: 10, perTokenUs: 100, copyLatencyMs: 0.5, copyGBPerS: 2 };

describe('the queue', () => {
  test('a pass takes its time, each token more, and each byte that it copies to the host', () => {
    const clock = new QueueClock(times);
    clock.submit({ submittedAt: 1000, passTokens: 0, readbackBytes: 0 });
    expect(clock.readableAt).toBeCloseTo(1010.5, 9);
    clock.submit({ submittedAt: 2000, passTokens: 30, readbackBytes: 0 });
    expect(clock.readableAt).toBeCloseTo(2013.5, 9);
    clock.submit({ submittedAt: 3000, passTokens: null, readbackBytes: 4e6 });
    expect(clock.readableAt).toBeCloseTo(3002.5, 9);
  });

  test('a submission waits for the one ahead; the latency of copies does not add up', () => {
    const clock = new QueueClock(times);
    for (const submittedAt of [100, 101, 102]) clock.submit({ submittedAt, passTokens: 0, readbackBytes: 0 });
    expect(clock.readableAt).toBeCloseTo(130.5, 9);
  });

  test('what is handed out over 1 ms after its deadline is an overrun', () => {
    const clock = new QueueClock(times);
    for (const now of [50, 51, 51.5, 57.25, 49]) clock.handedOut(50, now);
    expect(clock.takeDeadlines()).toEqual({ count: 5, overrun: 2, longestMs: 7.25 });
    expect(clock.takeDeadlines()).toEqual({ count: 0, overrun: 0, longestMs: 0 });
  });
});

const open = (): ClockDevice => new ClockDevice({ ...times, stepMs: 15 });
const submitPass = (device: ClockDevice): void => device.submit((commands) => commands.beginPass!(50));

describe('the device', () => {
  test('nothing can be read before its pass has ended, nor a pass end before the one ahead of it', async () => {
    const device = open();
    const slot = device.createBuffer('slot', 4, 'readback');
    const begun = performance.now();
    submitPass(device);
    const first = device.read(slot, 4, () => performance.now() - begun);
    submitPass(device);
    const second = device.read(slot, 4, () => performance.now() - begun);
    expect(await first).toBeGreaterThanOrEqual(20.5);
    expect(await second).toBeGreaterThanOrEqual(40.5);
    expect(device.takeDeadlines().count).toBe(2);
    await device.destroy();
  });

  test('a blocking read stops its thread until then', async () => {
    const device = open();
    const slot = device.createBuffer('slot', 4, 'readback');
    const begun = performance.now();
    submitPass(device);
    const read = device.read(slot, 4, () => 'read', { blocksThread: true });
    expect(performance.now() - begun).toBeGreaterThanOrEqual(20.5);
    expect(await read).toBe('read');
    await device.destroy();
  });

  test('a forward pass takes the time of a step', async () => {
    const device = open();
    const engine = await ToyEngine.create(device, model(), engineConfig(), wgslKernels, 1);
    const begun = performance.now();
    await engine.run(4);
    const { count } = device.takeDeadlines();
    expect(count).toBeGreaterThan(1);
    expect(performance.now() - begun).toBeGreaterThanOrEqual(15 * count);
    await device.destroy();
  });

  test('is never taken for another: its name says that its time is modelled, and by what', async () => {
    const device = open();
    expect(device.info).toMatchObject({ kind: 'clock', isSoftware: true, hasTimestamps: false });
    expect(device.info.description).toContain('modelled time: a step takes 15 ms + 100 µs per token');
    await device.destroy();
  });
});

describe('a step time', () => {
  test.each([
    ['7.6 ms + 60 us per token', 7.6, 60],
    ['10 ms', 10, 0],
    ['10ms+2.5µs', 10, 2.5],
    [stepTimeText(DEFAULT_CLOCK_TIMES), DEFAULT_CLOCK_TIMES.stepMs, DEFAULT_CLOCK_TIMES.perTokenUs],
  ])('%s', (text, stepMs, perTokenUs) => {
    expect(parseStepTime(text)).toEqual({ stepMs, perTokenUs });
  });

  test.each(['', '10', '10 s', '-1 ms', '0 ms', '1e3 ms', '60001 ms', '1 ms + 2 ms', '1 ms + 1000001 us', 'fast'])(
    '"%s" is refused, with what to give',
    (text) => {
      expect(() => parseStepTime(text)).toThrow(/step time is .*; give "<ms> ms \+ <µs> us per token", as in "7.6 ms/);
    },
  );
});

// The bench holds the bytes that leave the devices to the rows that were asked for (L5).

import { expect, test } from 'vitest';
import type { BenchOptions } from '../../src/cli/bench/bench-options.ts';
import { problemsOf, type BenchRun } from '../../src/cli/bench/bench-run.ts';
import { WantedBytes } from '../../src/cli/bench/measure/wanted-bytes.ts';
import type { DesignName } from '../../src/contract/config.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';

const model = { ...modelPreset('tiny'), numLayers: 3, topK: 1 };

function step(newcomers: readonly (readonly [index: number, optsIn: boolean])[], tokens: Record<number, number>) {
  const indices = Object.keys(tokens).map(Number);
  return {
    numRequests: indices.length,
    requestIndices: Uint32Array.from(indices),
    numScheduledTokens: Uint32Array.from(Object.values(tokens)),
    newRequests: newcomers.map(([index, returnRoutedExperts]) => ({ index, returnRoutedExperts })),
  } as unknown as SchedulerOutput;
}

test('rows of opted-in requests alone are due, each step’s rounded up to the 4 bytes of a copy', () => {
  const wanted = new WantedBytes(model);
  wanted.add(step([[0, false]], { 0: 50 }));
  expect(wanted.bytes).toBe(0);
  wanted.add(step([[1, true]], { 0: 1, 1: 5 }));
  expect(wanted.bytes).toBe(16);
  wanted.add(step([], { 0: 1, 1: 1 }));
  expect(wanted.bytes).toBe(20);
});

function problems(design: DesignName, captureDeviceToHost: number): string[] {
  const run = {
    cell: { design, optInShare: 1 },
    served: { transfers: { captureDeviceToHost } },
    wantedRowBytes: 100,
    verification: { firstProblem: null },
    accounting: { lost: 0 },
    leaks: {},
  };
  return problemsOf(run as unknown as BenchRun, { session: {} } as unknown as BenchOptions);
}

test('a byte more than is due is a problem, but of a design that gives up L5', () => {
  expect(problems('deltas', 100)).toEqual([]);
  expect(problems('deltas', 101)).toEqual(['101 bytes left the devices, of which 100 are due (L5)']);
  expect(problems('shm-flock', 101)).toEqual([]);
});

// A recording as a table: every recorded state is found, none other is, and a recording that contradicts itself or the
// model is refused (L4).

import { describe, expect, test } from 'vitest';
import type { ModelConfig } from '../../src/contract/config.ts';
import type { RecordedRequest, RecordedRouting } from '../../src/contract/recorded-routing.ts';
import { kernelShape } from '../../src/kernels/model/kernel-shape.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { openNullAdapter } from '../../src/kernels/device/gpu.ts';
import { replayKernels } from '../../src/kernels/model/replay/replay-kernels.ts';
import {
  Bucket,
  bucketOf,
  replayTable,
  rowOffset,
  unknownExpert,
} from '../../src/kernels/model/replay/replay-table.ts';
import { hiddenX, hiddenY, keyBase, keyX, keyY, termX, termY } from '../../src/kernels/model/mix/mix.ts';
import { replayRoute } from '../../src/kernels/model/replay/replay.ts';
import { Header } from '../../src/kernels/model/step-input.ts';
import { engineConfig } from './harness.ts';

const model: ModelConfig = { ...modelPreset('tiny'), numLayers: 1, topK: 2, numExperts: 8 };

/** Rows are `[10·seed + position, …]` mod 8, so that each is told from the others. */
function request(requestId: string, prompt: readonly number[], outputs: readonly number[], seed = 0): RecordedRequest {
  const numRows = prompt.length + outputs.length - 1;
  return {
    requestId,
    promptTokenIds: Uint32Array.from(prompt),
    outputTokenIds: Uint32Array.from(outputs),
    rows: Uint8Array.from({ length: 2 * numRows }, (_, i) => (3 * seed + i) % 8),
  };
}

const recordingOf = (...requests: RecordedRequest[]): RecordedRouting => ({
  name: 'test',
  numLayers: 1,
  numExperts: 8,
  topK: 2,
  requests,
});

/** Hidden state behind the last of `tokens`. */
function stateOf(tokens: readonly number[]): readonly [x: number, y: number] {
  let sumX = 0;
  let sumY = 0;
  for (const [position, token] of tokens.entries()) {
    const base = keyBase(position, 0);
    sumX = (sumX + termX(keyX(token, base), position)) | 0;
    sumY = (sumY + termY(keyY(token, base), position)) | 0;
  }
  const x = hiddenX(sumX);
  return [x, hiddenY(sumY, x)];
}

test('every prefix of a recorded request is found, with its row, and its next token where that was sampled', () => {
  const recorded = request('a', [5, 6, 7], [8, 9, 10]);
  const table = replayTable(model, recordingOf(recorded, request('b', [1], [2], 1)));
  const tokens = [5, 6, 7, 8, 9];
  for (let position = 0; position < tokens.length; position++) {
    const at = bucketOf(table, ...stateOf(tokens.slice(0, position + 1)));
    const row = rowOffset(table, table[at + Bucket.row]! - 1, 2);
    expect([...table.subarray(row, row + 2)]).toEqual([...recorded.rows.subarray(2 * position, 2 * position + 2)]);
    expect(table[at + Bucket.nextToken]).toBe(position < 2 ? 0 : [9, 10, 11][position - 2]);
  }
});

test('the router writes a row that no router chooses for a state that was never recorded', () => {
  const table = replayTable(model, recordingOf(request('a', [5, 6, 7], [8])));
  const stepInput = new Uint32Array(8);
  stepInput[Header.numTokens] = 2;
  const hidden = Uint32Array.from([...stateOf([5, 6]), 0, 0, ...stateOf([5, 7]), 0, 0]);
  const routedExperts = new Uint32Array(6).fill(99);
  replayRoute(model, stepInput, hidden, table, routedExperts);
  expect([...routedExperts]).toEqual([2, 3, unknownExpert(model), unknownExpert(model), 99, 99]);
  expect(unknownExpert(model)).toBe(8);
  expect(unknownExpert({ numExperts: 256 })).toBe(255);
});

describe('refused', () => {
  test.each([
    [
      'another row for an equal prefix',
      [request('a', [1, 2], [3]), request('b', [1, 4], [3], 1)],
      /the row behind position 0 of request "b"/,
    ],
    [
      'another token for an equal prefix',
      [request('a', [1, 2], [3]), request('b', [1, 2], [4])],
      /the next token behind position 1 of request "b"/,
    ],
    [
      'rows of another length',
      [{ ...request('a', [1, 2], [3]), rows: new Uint8Array(3) }],
      /ids recorded for request "a" is 3; give 4/,
    ],
  ])('%s', (_, requests, message) => {
    expect(() => replayTable(model, recordingOf(...requests))).toThrow(message);
  });

  test('a model of another shape', () => {
    const recording = recordingOf(request('a', [1], [2]));
    expect(() => replayTable({ ...model, topK: 3 }, recording)).toThrow(
      /1 layers, 8 experts, top-3; give 1 layers, 8 experts, top-2/,
    );
  });

  test('speculative decoding', () => {
    const kernels = replayKernels(recordingOf(request('a', [1], [2])));
    const shape = kernelShape(model, engineConfig({ numSpeculativeTokens: 2 }));
    expect(() => kernels(model, shape, { isSoftware: true } as never)).toThrow(/numSpeculativeTokens is 2; give 0/);
  });
});

test('what parts inside a prompt is no contradiction: prompts are given', () => {
  const table = replayTable(model, recordingOf(request('a', [1, 2], [3]), request('b', [1, 4], [5])));
  expect(table[bucketOf(table, ...stateOf([1])) + Bucket.nextToken]).toBe(0);
  expect(table[bucketOf(table, ...stateOf([1, 4])) + Bucket.nextToken]).toBe(6);
});

test('both WGSL kernels compile', async () => {
  const device = await (await openNullAdapter()).openDevice();
  const factory = replayKernels(recordingOf(request('a', [1], [2])));
  const set = factory(model, kernelShape(model, engineConfig({})), device.info);
  for (const { kernel } of [set.route, set.sample]) {
    const buffers = kernel.bindings.map((_, i) => device.createBuffer(`${kernel.name} ${i}`, 256, 'storage'));
    const bound = await device.bind(kernel, buffers);
    device.submit((commands) => commands.dispatch(bound, 1, 1));
  }
  await device.destroy();
  expect(await device.lost).toMatch(/destroyed/);
});

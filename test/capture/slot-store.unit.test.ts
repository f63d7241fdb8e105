/** The engine half of `slot-store`: block tables that it remembers for steps in flight are let go with them (L7). */

import { expect, test } from 'vitest';
import { SlotStoreEngineHalf } from '../../src/capture/slot-store/engine-half.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { CaptureRequest } from '../../src/contract/request.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { BASE_ENGINE } from './scenarios.ts';

const NUM_BLOCKS = 3;

test('outputs that a cache reset throws away leave no snapshot: one for each step in flight', () => {
  const half = new SlotStoreEngineHalf(modelPreset('tiny'), BASE_ENGINE);
  const request = {
    index: 0,
    returnRoutedExperts: true,
    routedExpertsPromptStart: 0,
    numComputedTokens: 12,
    numPromptTokens: 12,
    numTokens: 12,
    blockIds: Array.from({ length: NUM_BLOCKS }, (_, i) => i + 1),
  } as unknown as CaptureRequest;
  for (let stepId = 0; stepId < 20; stepId++) {
    half.onScheduled({ stepId } as SchedulerOutput, [request]);
    const { bytes } = half.liveCounts();
    expect(bytes, `with step ${stepId} in flight`).toBeLessThanOrEqual(2 * NUM_BLOCKS * 4);
    // The output is dropped: the reset preempted the request, so its first token does not come.
    half.onStepOutput({ stepId, routedExpertDeltas: null } as ModelRunnerOutput, () => null);
  }
  half.release(request);
  expect(half.liveCounts()).toEqual({ requests: 0, bytes: 0 });
});

/** Drafts are counted when they are verified: those of running requests, not the padding of one that joins them. */

import { expect, test } from 'vitest';
import type { EngineConfig } from '../../src/contract/config.ts';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import { RequestKind, type SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { FakeWorker, randomFrom } from './fake-worker.ts';

const config: EngineConfig = {
  blockSize: 4,
  numBlocks: 200,
  maxNumSeqs: 8,
  maxNumBatchedTokens: 64,
  maxModelLen: 120,
  policy: 'fcfs',
  asyncScheduling: false,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: true,
  watermark: 0,
  numSpeculativeTokens: 3,
};

/** By hand, out of the messages; `padding` is what requests have that join. */
type Counted = { numDrafts: number; numDraftTokens: number; numAcceptedTokens: number; padding: number };

function count(counted: Counted, step: SchedulerOutput, output: ModelRunnerOutput): void {
  for (let i = 0; i < step.numRequests; i++) {
    const numTokens = step.draftOffsets[i + 1]! - step.draftOffsets[i]!;
    if (numTokens === 0) continue;
    if (step.kinds[i] !== RequestKind.running) {
      counted.padding += numTokens;
      continue;
    }
    const at = output.requestIndices.indexOf(step.requestIndices[i]!);
    counted.numDrafts += 1;
    counted.numDraftTokens += numTokens;
    counted.numAcceptedTokens += output.sampledOffsets[at + 1]! - output.sampledOffsets[at]! - 1;
  }
}

test.each([false, true])('asynchronous scheduling: %s', (asyncScheduling) => {
  const engine = new EngineCore({ ...config, asyncScheduling }, null);
  const worker = new FakeWorker({ ...config, asyncScheduling }, randomFrom(3));
  const counted: Counted = { numDrafts: 0, numDraftTokens: 0, numAcceptedTokens: 0, padding: 0 };
  let numOutputs = 0;
  for (let next = 0; next < 6 || !engine.isIdle; next++) {
    // One after the other, with one prompt, of which all but the last token is cached after the first request.
    if (next < 6) {
      engine.addRequest({
        requestId: `${next}`,
        promptTokenIds: Uint32Array.from({ length: 9 }, (_, i) => i),
        sampling: {
          maxTokens: 30,
          minTokens: 0,
          eosTokenId: null,
          stopTokenIds: [],
          returnRoutedExperts: false,
          routedExpertsPromptStart: 0,
        },
        priority: 0,
        arrivalTime: next,
        cacheSalt: null,
      });
    }
    const step = engine.beginStep();
    if (step === null) break;
    const output = worker.execute(step);
    count(counted, step, output);
    for (const { newTokenIds } of engine.finishStep(output)) numOutputs += newTokenIds.length;
  }
  expect(numOutputs).toBe(180);
  const { padding, ...drafts } = counted;
  expect(padding).toBeGreaterThan(0);
  expect(drafts.numAcceptedTokens).toBeGreaterThan(20);
  expect(drafts.numDraftTokens).toBeGreaterThan(drafts.numAcceptedTokens);
  expect(engine.stats()).toMatchObject(drafts);
});

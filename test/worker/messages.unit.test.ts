// Messages between threads: what is written on one side is read on the other, field by field, whatever the sizes
// (contracts of DESIGN §5).

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { outputMessageLength, readOutputMessage, writeOutputMessage } from '../../src/worker/thread/output-message.ts';
import { readStepMessage, stepMessageLength, writeStepMessage } from '../../src/worker/thread/step-message.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const words = (max: number) => fc.array(u32, { maxLength: max });

/** Arrays longer than what is used, as the engine hands them out. */
function padded(values: readonly number[]): Uint32Array {
  return Uint32Array.from([...values, 0xdead_beef, 0xdead_beef]);
}

function offsetsOf(lists: readonly (readonly number[])[]): number[] {
  const offsets = [0];
  for (const list of lists) offsets.push(offsets.at(-1)! + list.length);
  return offsets;
}

const perRequest = fc.record({
  index: u32,
  kind: fc.integer({ min: 0, max: 2 }),
  computed: u32,
  scheduled: u32,
  blocks: words(4),
  drafts: words(3),
  sampled: words(2),
});

const newRequest = fc.record({
  index: u32,
  tokenIds: words(20),
  numPromptTokens: u32,
  maxTokens: u32,
  returnRoutedExperts: fc.boolean(),
  routedExpertsPromptStart: u32,
});

const stepOf = fc
  .record({
    stepId: u32,
    total: u32,
    requests: fc.array(perRequest, { maxLength: 6 }),
    newRequests: fc.array(newRequest, { maxLength: 3 }),
    preempted: words(3),
    finished: words(3),
    captureMetadata: fc.option(words(5)),
    hasStages: fc.boolean(),
  })
  .map(({ stepId, total, requests, newRequests, preempted, finished, ...rest }): SchedulerOutput => ({
    stepId,
    numRequests: requests.length,
    totalNumScheduledTokens: total,
    requestIndices: padded(requests.map((r) => r.index)),
    kinds: padded(requests.map((r) => r.kind)),
    numComputedTokens: padded(requests.map((r) => r.computed)),
    numScheduledTokens: padded(requests.map((r) => r.scheduled)),
    newBlockIds: padded(requests.flatMap((r) => r.blocks)),
    newBlockOffsets: padded(offsetsOf(requests.map((r) => r.blocks))),
    draftTokenIds: padded(requests.flatMap((r) => r.drafts)),
    draftOffsets: padded(offsetsOf(requests.map((r) => r.drafts))),
    newRequests: newRequests.map((r) => ({ ...r, tokenIds: padded(r.tokenIds), numTokens: r.tokenIds.length })),
    preemptedIndices: preempted,
    finishedIndices: finished,
    captureMetadata: rest.captureMetadata === null ? null : Uint32Array.from(rest.captureMetadata),
    ...(rest.hasStages
      ? {
          newTokens: {
            tokenIds: padded(requests.flatMap((r) => r.sampled)),
            offsets: padded(offsetsOf(requests.map((r) => r.sampled))),
          },
        }
      : {}),
  }));

/** Only what is used of each array. */
function usedPart(step: SchedulerOutput): unknown {
  const n = step.numRequests;
  return {
    ...step,
    requestIndices: [...step.requestIndices.subarray(0, n)],
    kinds: [...step.kinds.subarray(0, n)],
    numComputedTokens: [...step.numComputedTokens.subarray(0, n)],
    numScheduledTokens: [...step.numScheduledTokens.subarray(0, n)],
    newBlockOffsets: [...step.newBlockOffsets.subarray(0, n + 1)],
    newBlockIds: [...step.newBlockIds.subarray(0, step.newBlockOffsets[n])],
    draftOffsets: [...step.draftOffsets.subarray(0, n + 1)],
    draftTokenIds: [...step.draftTokenIds.subarray(0, step.draftOffsets[n])],
    newTokens: step.newTokens && {
      tokenIds: [...step.newTokens.tokenIds.subarray(0, step.newTokens.offsets[n])],
      offsets: [...step.newTokens.offsets.subarray(0, n + 1)],
    },
    newRequests: step.newRequests.map((r) => ({ ...r, tokenIds: [...r.tokenIds.subarray(0, r.numTokens)] })),
  };
}

describe('step message', () => {
  test('reads back what was written, from a longer, dirty buffer too', () => {
    fc.assert(
      fc.property(stepOf, fc.nat(10), (step, slack) => {
        const length = stepMessageLength(step);
        const message = new Uint32Array(length + slack).fill(0xffff_ffff);
        writeStepMessage(step, message);
        expect(usedPart(readStepMessage(message))).toEqual(usedPart(step));
      }),
    );
  });
});

describe('output message', () => {
  const output = fc
    .record({
      stepId: u32,
      requests: fc.array(fc.record({ index: u32, sampled: words(3), drafts: words(2) }), { maxLength: 6 }),
      hasDrafts: fc.boolean(),
      deltas: fc.option(
        fc.record({ numRows: u32, index: words(6), rows: fc.uint8Array({ minLength: 4 }), firstLayer: fc.nat(60) }),
      ),
    })
    .map(({ stepId, requests, hasDrafts, deltas }): ModelRunnerOutput => ({
      stepId,
      numRequests: requests.length,
      requestIndices: padded(requests.map((r) => r.index)),
      sampledTokenIds: padded(requests.flatMap((r) => r.sampled)),
      sampledOffsets: padded(offsetsOf(requests.map((r) => r.sampled))),
      drafts: hasDrafts
        ? {
            tokenIds: padded(requests.flatMap((r) => r.drafts)),
            offsets: padded(offsetsOf(requests.map((r) => r.drafts))),
          }
        : null,
      routedExpertDeltas:
        deltas === null
          ? null
          : {
              rows: deltas.rows,
              numRows: deltas.numRows,
              index: padded(deltas.index),
              indexLength: deltas.index.length,
              ...(deltas.firstLayer > 0 ? { firstLayer: deltas.firstLayer } : {}),
            },
    }));

  test('reads back what was written', () => {
    fc.assert(
      fc.property(output, (sent) => {
        const message = new Uint32Array(outputMessageLength(sent) + 3).fill(7);
        writeOutputMessage(sent, message);
        const rows = sent.routedExpertDeltas === null ? null : sent.routedExpertDeltas.rows.slice().buffer;
        const received = readOutputMessage(message, rows);
        const n = sent.numRequests;
        expect(received.stepId).toBe(sent.stepId);
        expect([...received.requestIndices]).toEqual([...sent.requestIndices.subarray(0, n)]);
        expect([...received.sampledOffsets]).toEqual([...sent.sampledOffsets.subarray(0, n + 1)]);
        expect([...received.sampledTokenIds]).toEqual([...sent.sampledTokenIds.subarray(0, sent.sampledOffsets[n])]);
        expect(received.drafts === null).toBe(sent.drafts === null);
        if (sent.drafts !== null && received.drafts !== null) {
          expect([...received.drafts.offsets]).toEqual([...sent.drafts.offsets.subarray(0, n + 1)]);
          expect([...received.drafts.tokenIds]).toEqual([...sent.drafts.tokenIds.subarray(0, sent.drafts.offsets[n])]);
        }
        const before = sent.routedExpertDeltas;
        const after = received.routedExpertDeltas;
        expect(after === null).toBe(before === null);
        expect(after?.firstLayer).toBe(before?.firstLayer);
        if (before === null || after === null) return;
        expect(after.numRows).toBe(before.numRows);
        expect([...after.index]).toEqual([...before.index.subarray(0, before.indexLength)]);
        expect([...after.rows]).toEqual([...before.rows]);
      }),
    );
  });
});

// Ranks repeat each other's work: all of them have the KV that came from elsewhere, all get their buffers back, and one
// that samples other tokens than rank 0 is found out in the step in which it does.

import { afterEach, describe, expect, test, vi } from 'vitest';
import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import { requireAgreement } from '../../src/worker/pipeline/rank-agreement.ts';
import { RankThread } from '../../src/worker/thread/rank-thread.ts';
import { closeAfterTest, decodeNpy, expectNothingLeft, expectOracle, post, startServer } from '../serve/helpers.ts';
import { decode, prefill, promptOf, startKvServer, withRows } from '../serve/pd-helpers.ts';

afterEach(() => void vi.restoreAllMocks());

const completions = '/v1/completions';
const prompt = promptOf(1, 30);

test('every rank has the KV that came from another server, and gets its buffers back', async () => {
  const [p, d] = [await startKvServer({}, { numRanks: 2 }), await startKvServer({}, { numRanks: 3 })];
  const { status, body } = await decode(d, prompt, await prefill(p, prompt), { max_tokens: 12 });
  expect(status).toBe(200);
  expectOracle(prompt, body.choices[0]!.token_ids, decodeNpy(body.choices[0]!.routed_experts));
  expect(d.host.engine.stats().numExternalTokens).toBe(30);
  await expectNothingLeft(p);
  await expectNothingLeft(d);
});

test('a rank that samples garbage ends the engine with an error that names the rank and the step', async () => {
  const ask = Reflect.get(RankThread.prototype, 'ask');
  const threads: RankThread[] = [];
  let numSteps = 0;
  vi.spyOn(RankThread.prototype, 'ask').mockImplementation(async function (this: RankThread, ...args) {
    if (!threads.includes(this)) threads.push(this);
    const reply = await ask.apply(this, args);
    // The token behind header, one index and two offsets of a step with one request.
    if (threads[1] === this && reply.kind === 'output' && ++numSteps === 4) new Uint32Array(reply.words)[9]! ^= 1;
    return reply;
  });
  const server = closeAfterTest(await startServer({ host: { numRanks: 2, maxRestarts: 5 } }));
  const { status, body } = await post(server, completions, { prompt, max_tokens: 12, ...withRows });
  expect([status, body.error.code]).toEqual([503, 'engine_dead']);
  expect(body.error.message).toMatch(/rank 1 differs from rank 0 in step 3: it sampled other tokens/);
  expect(server.host.engine.workers.numRestarts).toBe(0);
});

describe('outputs of two ranks', () => {
  const output: ModelRunnerOutput = {
    stepId: 7,
    numRequests: 2,
    requestIndices: Uint32Array.of(4, 5),
    sampledTokenIds: Uint32Array.of(10, 11, 12),
    sampledOffsets: Uint32Array.of(0, 1, 3),
    drafts: null,
    routedExpertDeltas: null,
  };
  const others: readonly (readonly [string, Partial<ModelRunnerOutput>])[] = [
    ['it ran step 8', { stepId: 8 }],
    ['it ran 1 requests, rank 0 ran 2', { numRequests: 1 }],
    ['it ran the requests in another order', { requestIndices: Uint32Array.of(5, 4) }],
    ['it sampled another number of tokens', { sampledOffsets: Uint32Array.of(0, 2, 3) }],
    ['it sampled other tokens', { sampledTokenIds: Uint32Array.of(10, 11, 13) }],
  ];

  test.each(others)('%s', (what, other) => {
    const message = `rank 2 differs from rank 0 in step 7: ${what}; check the device of each rank`;
    expect(() => requireAgreement([output, output, { ...output, ...other }])).toThrow(message);
  });

  test('that agree pass, whatever lies behind what they use', () => {
    const longer = { ...output, sampledTokenIds: Uint32Array.of(10, 11, 12, 99) };
    expect(() => requireAgreement([output, longer])).not.toThrow();
  });
});

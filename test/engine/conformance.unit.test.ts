/**
 * Decision for decision as vLLM's scheduler: the recordings of ../shared, where they are there; and the replay itself: it finds a difference,
 * names what it cannot read, and runs the rest.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runConformance } from '../../src/cli/conformance.ts';
import { Sha256BlockHasher } from '../../src/engine/block-hash.ts';
import { parseRecording } from '../../src/sim/recording.ts';
import { replayRecording } from '../../src/sim/replay-recording.ts';

const recordings = fileURLToPath(new URL('../../../shared/conformance/vllm-scheduler', import.meta.url));
const hasRecordings = existsSync(recordings);
if (!hasRecordings) console.warn(`SKIPPED: conformance with vLLM; no recordings at ${recordings}`);

describe.skipIf(!hasRecordings)('the recordings of the real scheduler', () => {
  test('all are reproduced', () => {
    const { passed, failures } = runConformance(recordings);
    expect(failures.slice(0, 3)).toEqual([]);
    expect(passed).toBeGreaterThanOrEqual(940);
  });
  test('the hash function makes no difference', () => {
    const lines = readFileSync(join(recordings, 'cache-salt.jsonl'), 'utf8').trim().split('\n');
    const hasher = new Sha256BlockHasher();
    for (const [i, line] of lines.entries()) {
      expect(replayRecording(parseRecording(line, 'cache-salt.jsonl', i + 1), { hasher })).toBeNull();
    }
  });
});

const SCENARIO = {
  name: 'one/0',
  config: {
    blockSize: 4,
    numBlocks: 4,
    maxNumSeqs: 2,
    maxNumBatchedTokens: 16,
    maxModelLen: 64,
    policy: 'fcfs',
    asyncScheduling: false,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: false,
    watermark: 0,
    numSpeculativeTokens: 0,
  },
  rowModel: { layers: 1, topK: 1, experts: 8 },
  requests: [{ id: 'r0', promptTokenIds: [1, 2, 3, 4, 5], maxTokens: 1, priority: 0, arrivalTime: 0 }],
  timeline: [
    { op: 'add', id: 'r0' },
    {
      op: 'schedule',
      step: 0,
      scheduled: [{ id: 'r0', kind: 'new', computed: 0, tokens: 5, newBlocks: [1, 2] }],
      preempted: [],
      finished: [],
      running: ['r0'],
      freeQueue: [3],
    },
    {
      op: 'output',
      step: 0,
      order: ['r0'],
      sampled: [[9]],
      emitted: [{ id: 'r0', tokens: [9], rows: 5, finish: 'length' }],
      freeQueue: [2, 3, 1],
    },
  ],
  final: { r0: { outputTokenIds: [9], finish: 'length', rows: 5, preemptions: 0 } },
};

type Edit = (scenario: typeof SCENARIO) => void;
const edited = (edit: Edit): string => {
  const copy = structuredClone(SCENARIO);
  edit(copy);
  return JSON.stringify(copy);
};
// The literal's type tells the events apart by their place only.
type Loose = { [key: string]: unknown; scheduled: Loose[]; emitted: Loose[] };
const event = (scenario: typeof SCENARIO, at: number): Loose => scenario.timeline[at] as unknown as Loose;

describe('a replay names the first difference', () => {
  test('none', () =>
    expect(
      replayRecording(
        parseRecording(
          edited(() => {}),
          'f',
          1,
        ),
      ),
    ).toBeNull());
  test.each<[string, Edit, string, unknown, unknown]>([
    ['kind', (s) => (event(s, 1).scheduled[0]!['kind'] = 'resumed'), 'scheduled.r0.kind', 'resumed', 'new'],
    ['tokens', (s) => (event(s, 1).scheduled[0]!['tokens'] = 4), 'scheduled.r0.tokens', 4, 5],
    ['blocks', (s) => (event(s, 1).scheduled[0]!['newBlocks'] = [1]), 'scheduled.r0.newBlocks', [1], [1, 2]],
    ['who', (s) => (event(s, 1)['scheduled'] = []), 'scheduled', [], ['r0']],
    ['preempted', (s) => (event(s, 1)['preempted'] = ['r0']), 'preempted', ['r0'], []],
    ['finished', (s) => (event(s, 1)['finished'] = ['r0']), 'finished', ['r0'], []],
    ['running', (s) => (event(s, 1)['running'] = []), 'running', [], ['r0']],
    ['free queue', (s) => (event(s, 2)['freeQueue'] = [1, 2, 3]), 'output.freeQueue', [1, 2, 3], [2, 3, 1]],
    ['finish', (s) => (event(s, 2).emitted[0]!['finish'] = null), 'emitted.r0.finish', null, 'length'],
    ['final', (s) => (s.final.r0.preemptions = 1), 'final.r0.preemptions', 1, 0],
    ['output', (s) => (s.final.r0.outputTokenIds = [8]), 'final.r0.outputTokenIds', [8], [9]],
  ])('%s', (_, edit, field, expected, actual) => {
    expect(replayRecording(parseRecording(edited(edit), 'f', 1))).toEqual({ step: 0, field, expected, actual });
  });
  test('a worker answer that our scheduler refuses is a difference too', () => {
    const difference = replayRecording(
      parseRecording(
        edited((s) => (event(s, 2)['sampled'] = [[]])),
        'f',
        1,
      ),
    );
    expect(difference).toMatchObject({ step: 0, field: 'error' });
  });
});

describe('a line that cannot be read is refused by file, line and field', () => {
  test.each<[string, string, string]>([
    ['broken JSON', '{"name":', 'f.jsonl:7: '],
    ['no object', '3', 'the scenario is 3, not an object'],
    ['unknown field', edited((s) => Object.assign(s, { extra: 1 })), 'the scenario has an unknown field "extra"'],
    [
      'unknown config field',
      edited((s) => Object.assign(s.config, { extra: 1 })),
      'config has an unknown field "extra"',
    ],
    [
      'another config version',
      edited((s) => Reflect.deleteProperty(s.config, 'watermark')),
      'config has no field "watermark"',
    ],
    ['bad config value', edited((s) => (s.config.blockSize = 0)), 'blockSize is 0'],
    ['K > E', edited((s) => (s.rowModel.topK = 9)), 'rowModel.topK is 9'],
    ['E > 65,536', edited((s) => (s.rowModel.experts = 65_537)), 'rowModel.experts is 65537'],
    ['unknown event', edited((s) => (event(s, 0)['op'] = 'sleep')), 'timeline[0].op is "sleep"'],
    ['unknown event field', edited((s) => (event(s, 0)['why'] = 1)), 'timeline[0] has an unknown field "why"'],
    ['bad token', edited((s) => (s.requests[0]!.promptTokenIds[1] = -2)), 'requests[0].promptTokenIds[1] is -2'],
    ['an id twice', edited((s) => s.requests.push(s.requests[0]!)), 'requests has the id "r0" twice'],
    ['uneven output', edited((s) => (event(s, 2)['sampled'] = [])), '1 entries in order but 0 in sampled'],
  ])('%s', (_, line, message) => {
    expect(() => parseRecording(line, 'f.jsonl', 7)).toThrow(
      expect.objectContaining({ code: 'BAD_TRACE_LINE', message: expect.stringContaining(message) }),
    );
  });
});

describe('a directory of recordings', () => {
  let directory = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'conformance-'));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  test('one bad line fails alone', () => {
    writeFileSync(join(directory, 'a.jsonl'), `${edited(() => {})}\n{oops\n\n${edited((s) => (s.name = 'one/1'))}\n`);
    const { passed, failed, failures } = runConformance(directory);
    expect([passed, failed]).toEqual([2, 1]);
    expect(failures[0]).toMatchObject({ name: `${join(directory, 'a.jsonl')}:2`, field: 'recording' });
  });
  test('nothing to replay is an error', () => {
    expect(() => runConformance(join(directory, 'nowhere'))).toThrow('no such directory');
    expect(() => runConformance(fileURLToPath(new URL('.', import.meta.url)))).toThrow('holds no recording');
  });
});

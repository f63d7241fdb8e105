/**
 * Decision for decision as vLLM's scheduler: the recordings of ../shared, where they are there; and the check itself:
 * it finds a difference, names what it cannot read, and runs the rest.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runConformance } from '../../src/cli/conformance.ts';
import { Sha256BlockHasher } from '../../src/engine/kv/sha256-block-hasher.ts';
import { recordedSlotRows } from '../../src/conformance/recorded-rows.ts';
import { parseSchedule } from '../../src/conformance/recorded-schedule.ts';
import { checkSchedule, type ScheduleCheckOptions } from '../../src/conformance/schedule-check.ts';
import { slotStoreCheck } from '../../src/conformance/slot-store-check.ts';

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
      expect(checkSchedule(parseSchedule(line, 'cache-salt.jsonl', i + 1), { hasher })).toBeNull();
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

describe('a check names the first difference', () => {
  test('none', () =>
    expect(
      checkSchedule(
        parseSchedule(
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
    expect(checkSchedule(parseSchedule(edited(edit), 'f', 1))).toEqual({ step: 0, field, expected, actual });
  });
  test('a worker answer that our scheduler refuses is a difference too', () => {
    const difference = checkSchedule(
      parseSchedule(
        edited((s) => (event(s, 2)['sampled'] = [[]])),
        'f',
        1,
      ),
    );
    expect(difference).toMatchObject({ step: 0, field: 'error' });
  });
});

/** A decode with drafts at the end of the model. */
const NEAR_THE_END = {
  name: 'end/0',
  config: { ...SCENARIO.config, maxModelLen: 7, asyncScheduling: true, numSpeculativeTokens: 1 },
  rowModel: SCENARIO.rowModel,
  requests: [{ id: 'r0', promptTokenIds: [1, 2, 3], maxTokens: 9, priority: 0, arrivalTime: 0 }],
  timeline: [
    { op: 'add', id: 'r0' },
    planOf(0, { kind: 'new', computed: 0, tokens: 3, newBlocks: [1] }, [2, 3]),
    planOf(1, { kind: 'running', computed: 3, tokens: 2, newBlocks: [2], drafts: [-1] }, [3]),
    outputOf(0, [4], 3),
    // The draft in flight counts as computed, and the model's last input is the one behind it.
    planOf(2, { kind: 'running', computed: 5, tokens: 1, newBlocks: [] }, [3]),
    // The draft was wrong: step 2 ran position 4, not 5.
    outputOf(1, [5], 1),
    outputOf(2, [6], 1),
  ],
  final: { r0: { outputTokenIds: [4, 5, 6], finish: null, rows: 5, preemptions: 0 } },
};

function planOf(step: number, scheduled: object, freeQueue: readonly number[]): object {
  return {
    op: 'schedule',
    step,
    scheduled: [{ id: 'r0', ...scheduled }],
    preempted: [],
    finished: [],
    running: ['r0'],
    freeQueue,
  };
}

function outputOf(step: number, tokens: readonly number[], rows: number): object {
  const emitted = [{ id: 'r0', tokens, rows, finish: null }];
  return { op: 'output', step, order: ['r0'], sampled: [tokens], emitted, freeQueue: [3] };
}

const rowsOnePositionOff: ScheduleCheckOptions['rows'] = (spans, rowModel, config) =>
  recordedSlotRows(
    spans.map((span) => ({ ...span, tokenStart: span.tokenStart + (span.numTokens === 1 ? 1 : 0) })),
    rowModel,
    config,
  );

describe('what the workers of a recording computed', () => {
  const timeline = NEAR_THE_END.timeline;
  const check = (events: readonly object[], options = slotStoreCheck): unknown =>
    checkSchedule(parseSchedule(JSON.stringify({ ...NEAR_THE_END, timeline: events }), 'f', 1), options);
  test('a step behind a rejected draft begins where the last token stands, also if it has no drafts itself', () => {
    expect(check(timeline)).toBeNull();
  });
  test('rows that are not those of the prefix are found', () => {
    expect(check(timeline, { ...slotStoreCheck, rows: rowsOnePositionOff })).toMatchObject({
      step: 2,
      field: 'emitted.r0.rows',
    });
  });
});

test('padding that vLLM lists in full is compared as far as the step can run it', () => {
  const scheduled = [
    { id: 'r0', kind: 'running', computed: 2, tokens: 1, newBlocks: [], drafts: [] },
    { id: 'r1', kind: 'new', computed: 0, tokens: 2, newBlocks: [3, 4], drafts: [-1, -1, -1] },
  ];
  const r1 = { id: 'r1', promptTokenIds: [5], maxTokens: 2, priority: 0, arrivalTime: 1 };
  const narrowed = (tokens: number): string =>
    JSON.stringify({
      ...SCENARIO,
      config: { ...SCENARIO.config, numBlocks: 9, numSpeculativeTokens: 3, longPrefillTokenThreshold: 2 },
      requests: [{ id: 'r0', promptTokenIds: [1, 2], maxTokens: 4, priority: 0, arrivalTime: 0 }, r1],
      timeline: [
        { op: 'add', id: 'r0' },
        planOf(0, { kind: 'new', computed: 0, tokens: 2, newBlocks: [1, 2] }, [3, 4, 5, 6, 7, 8]),
        { ...outputOf(0, [9], 2), freeQueue: [3, 4, 5, 6, 7, 8] },
        { op: 'add', id: 'r1' },
        {
          ...planOf(1, {}, [5, 6, 7, 8]),
          running: ['r0', 'r1'],
          scheduled: [scheduled[0], { ...scheduled[1], tokens }],
        },
      ],
      final: {},
    });
  expect(checkSchedule(parseSchedule(narrowed(2), 'f', 1))).toBeNull();
  expect(checkSchedule(parseSchedule(narrowed(3), 'f', 1))).toMatchObject({ field: 'scheduled.r1.tokens' });
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
    expect(() => parseSchedule(line, 'f.jsonl', 7)).toThrow(
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
  test('nothing to check is an error', () => {
    expect(() => runConformance(join(directory, 'nowhere'))).toThrow('no such directory');
    expect(() => runConformance(fileURLToPath(new URL('.', import.meta.url)))).toThrow('holds no recording');
  });
});

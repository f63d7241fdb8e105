/**
 * Two engines and a bad link between them: no design breaks a law that it does not declare, whatever is lost, late,
 * garbled or dies (L1–L10), and the rows are those of the KV that the decode engine reads (L9).
 */

import { expect, test } from 'vitest';
import type { CaptureEngineHalf } from '../../../src/contract/capture.ts';
import type { FinishReason } from '../../../src/contract/engine-core-output.ts';
import type { CaptureRequest } from '../../../src/contract/request.ts';
import type { RoutedRows } from '../../../src/contract/routed-rows.ts';
import { rowAt } from '../../../src/capture/routed-rows.ts';
import { pdRowsWays, type PdRows } from '../../../src/handover/handed-rows.ts';
import { runSeeds } from '../../../src/sim/campaign.ts';
import { closedMarks, rareMarks } from '../../../src/sim/coverage.ts';
import { drawPdScenario } from '../../../src/sim/pd/draw-pd-scenario.ts';
import type { PdScenario } from '../../../src/sim/pd/pd-scenario.ts';
import { DelegatingEngineHalf } from '../../../src/sim/mutants/delegates.ts';
import { findTestedDesign } from '../../../src/sim/mutants/mutants.ts';
import { runScenario } from '../../../src/sim/run-scenario.ts';
import { parseScenario, type Scenario, type ScenarioRequest } from '../../../src/sim/scenario.ts';
import { shrink } from '../../../src/sim/shrink.ts';
import { reportRun } from '../../../src/sim/run-report.ts';
import { mutated, testedDesignByName, testedDesignNames, type TestedDesign } from '../../../src/sim/tested-design.ts';

/** Designs that take over KV are the ones to be hurt. */
for (const name of testedDesignNames) {
  const NUM_SEEDS = name === 'deltas' ? 1000 : 400;
  test(`${name} keeps what it promises over ${NUM_SEEDS} storms with a prefill engine in front`, () => {
    const { violations, marks } = runSeeds(testedDesignByName(name), {
      from: 1,
      to: NUM_SEEDS + 1,
      pd: true,
      twice: false,
      stopAfter: 5,
    });
    const told = violations.map(({ seed, law, what }) => `${law}: ${what} (fuzz --pd --design ${name} --seed ${seed})`);
    expect(told).toEqual([]);
    expect(rareMarks({ tested: name, beside: { pd: true }, scenarios: NUM_SEEDS, counts: marks })).toEqual([]);
    for (const mark of closedMarks(name)) expect(marks[mark], mark).toBe(0);
  });
}

test('one seed writes one event log (L10), also if it went through a file', () => {
  const tested = testedDesignByName('deltas');
  expect(runSeeds(tested, { from: 1, to: 101, pd: true, twice: true, stopAfter: 0 }).violations).toEqual([]);
  for (let seed = 1; seed <= 30; seed += 1) {
    const scenario = drawPdScenario(seed);
    const read = parseScenario(JSON.stringify(scenario), 'scenario.json');
    expect(runScenario(read, tested).hash).toBe(runScenario(scenario, tested, { isTracing: true }).hash);
  }
});

test('a file whose prefill engine makes no sense is refused by name', () => {
  const good = drawPdScenario(1);
  const pd = good.pd!;
  for (const bad of [
    3,
    { ...pd, queueDepth: 0 },
    { ...pd, leaseTicks: -1 },
    { ...pd, rows: 'by post' },
    { ...pd, onLoadFailure: 'panic' },
    { ...pd, direct: null },
    { ...pd, rowless: 'r0' },
    { ...pd, readTicks: -1 },
    { ...pd, link: { ...pd.link, delay: -1 } },
    { ...pd, numRanks: 0 },
    { ...pd, proxy: null },
    { ...pd, proxy: { lostShare: -1, patienceTicks: 1 } },
    { ...pd, proxy: { lostShare: 0 } },
    { ...pd, faults: [{ kind: 'explode', when: { at: 0 } }] },
    { ...pd, engine: { ...pd.engine, blockSize: good.engine.blockSize + 1 } },
  ]) {
    expect(() => parseScenario(JSON.stringify({ ...good, pd: bad }), 'bad.json'), JSON.stringify(bad)).toThrow(
      /bad\.json|blockSize/,
    );
  }
});

test('a failing storm of two engines shrinks, and its report says which engine did what', () => {
  const tested = findTestedDesign('mutant/decode-prompt-rows');
  const { seed } = runSeeds(tested, { from: 1, to: 50, twice: false, stopAfter: 1 }).violations[0]!;
  const { scenario, violation } = shrink(drawPdScenario(seed), tested)!;
  expect(scenario.requests.length).toBe(1);
  const report = reportRun(scenario, tested).join('\n');
  expect(report).toMatch(/P: "r\d+" .*arrives[\s\S]*D: "r\d+" .*waits for the KV of/);
  expect(report).toContain(violation.message);
});

const REQUEST: ScenarioRequest = {
  at: 0,
  id: 'r',
  prompt: [],
  maxTokens: 4,
  minTokens: 0,
  eos: null,
  stops: [],
  rows: true,
  rowsFrom: 0,
  priority: 0,
  salt: null,
};
const PROMPT = Array.from({ length: 48 }, (_, i) => (i * 7) % 29);

/** A prompt of 48 tokens, 32 of them cached by the decode engine, which computed them itself for `warm`. */
function workedExample(rows: PdRows, changes: Partial<PdScenario> = {}): Scenario {
  const base = drawPdScenario(1);
  const engine = {
    ...base.engine,
    blockSize: 16,
    numBlocks: 17,
    maxNumSeqs: 4,
    maxNumBatchedTokens: 64,
    maxModelLen: 64,
    policy: 'fcfs',
    asyncScheduling: false,
    enablePrefixCaching: true,
    enableChunkedPrefill: true,
    longPrefillTokenThreshold: 0,
    reserveFullIsl: false,
    watermark: 0,
    numSpeculativeTokens: 0,
  } as const;
  return {
    ...base,
    model: { name: 'pd', numLayers: 2, numExperts: 8, topK: 2, vocabSize: 29, gateWidth: 8 },
    engine,
    queueDepth: 1,
    ringDepth: 2,
    numRanks: 1,
    hasEpochs: true,
    readsAtOnce: true,
    timing: { ...base.timing, slowPassShare: 0, lateMapShare: 0, update: 0 },
    faults: [],
    requests: [
      { ...REQUEST, id: 'warm', prompt: PROMPT.slice(0, 33), maxTokens: 1 },
      { ...REQUEST, at: 50_000, id: 'r', prompt: PROMPT },
      // Again, and again with more behind it: what was loaded is cached by now.
      { ...REQUEST, at: 100_000, id: 'again', prompt: PROMPT },
      { ...REQUEST, at: 150_000, id: 'longer', prompt: [...PROMPT, 3, 1, 4] },
    ],
    pd: {
      engine,
      queueDepth: 1,
      ringDepth: 2,
      faults: [],
      rows,
      onLoadFailure: 'fail',
      direct: ['warm'],
      leaseTicks: 5000,
      loadTicks: 5000,
      link: { delay: 10, jitter: 0, slowShare: 0, slowFactor: 1, lostShare: 0, corruptShare: 0 },
      ...changes,
    },
  };
}

const same = (a: RoutedRows, b: RoutedRows, at: number): boolean => String(rowAt(a, at)) === String(rowAt(b, at));

/** `deltas`, with what `watch` makes of each half. */
const watched = (watch: (half: CaptureEngineHalf) => CaptureEngineHalf): TestedDesign =>
  mutated(testedDesignByName('deltas'), 'watched', { engineHalf: watch });

class Watching extends DelegatingEngineHalf {
  readonly loads: string[] = [];
  readonly taken: Map<string, RoutedRows> = new Map();

  override onExternalKv(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void {
    this.loads.push(`${request.requestId} [${from}, ${to})`);
    super.onExternalKv(request, from, to, rows);
  }

  override take(request: CaptureRequest, numNew: number, finish: FinishReason | null): RoutedRows | null {
    const rows = super.take(request, numNew, finish);
    if (rows !== null) this.taken.set(request.requestId, rows);
    return rows;
  }
}

test.each(pdRowsWays)(
  'the worked example, rows %s: 32 tokens are the decode engine’s, 15 loaded, the 48th computed again',
  (way) => {
    const halves: Watching[] = [];
    const tested = watched((half) => {
      halves.push(new Watching(half));
      return halves.at(-1)!;
    });
    const { violation } = runScenario(workedExample(way), tested);
    expect(violation?.message ?? null).toBeNull();
    const [p, d] = halves as [Watching, Watching];
    // `again` finds all full blocks but the last, whose last token is to be computed; `longer` finds those of `r`.
    expect(d.loads).toEqual(
      way === 'splice'
        ? ['r [32, 47)', 'again [32, 47)', 'longer [32, 50)']
        : ['r [32, 47)', 'again [32, 47)', 'longer [48, 50)'],
    );
    const ofP = p.taken.get('r')!;
    const ofD = d.taken.get('r')!;
    const warm = d.taken.get('warm')!;
    const positions = Array.from({ length: 48 }, (_, at) => at);
    expect(positions.slice(0, 32).every((at) => same(ofD, warm, at))).toBe(true);
    expect(positions.slice(0, 32).every((at) => same(ofD, ofP, at))).toBe(false);
    if (way === 'splice') expect(ofD.missing).toEqual([[32, 47]]);
    else {
      expect(positions.slice(32, 47).every((at) => same(ofD, ofP, at))).toBe(true);
      expect(ofD.missing).toEqual([]);
    }
  },
);

/** What a proxy does that takes the prefill engine's rows for the whole prompt. */
class Splicing extends Watching {
  readonly #rowsOfP: () => RoutedRows | undefined;
  readonly #from: number;
  readonly #to: number;

  constructor(half: CaptureEngineHalf, rowsOfP: () => RoutedRows | undefined, from: number, to: number) {
    super(half);
    this.#rowsOfP = rowsOfP;
    this.#from = from;
    this.#to = to;
  }

  override take(request: CaptureRequest, numNew: number, finish: FinishReason | null): RoutedRows | null {
    const rows = super.take(request, numNew, finish);
    const ofP = this.#rowsOfP();
    if (rows === null || ofP === undefined || request.requestId !== 'r') return rows;
    const chunks = Array.from({ length: rows.count }, (_, at) =>
      rowAt(at >= this.#from && at < this.#to ? ofP : rows, at),
    );
    return { ...rows, rowsPerChunk: 1, chunks, missing: [] };
  }
}

test.each([
  ['the loaded region only', 32, 47, null],
  ['the cached prefix too', 0, 47, /position 0 /],
  ['the last prompt token too', 32, 48, /position 47 /],
] as const)('the prefill engine’s rows for %s', (_, from, to, broken) => {
  const halves: Watching[] = [];
  const tested = watched((half) => {
    halves.push(
      halves.length === 0 ? new Watching(half) : new Splicing(half, () => halves[0]!.taken.get('r'), from, to),
    );
    return halves.at(-1)!;
  });
  const { violation } = runScenario(workedExample('with-kv'), tested);
  if (broken === null) expect(violation?.message ?? null).toBeNull();
  else expect(violation!.message).toMatch(broken);
});

test('KV that never comes, comes too late, or is not what was sent, ends its request or is computed again', () => {
  const bad: Partial<PdScenario>[] = [
    { link: { ...workedExample('carry').pd!.link, lostShare: 1 } },
    { link: { ...workedExample('carry').pd!.link, delay: 4000 } },
    { link: { ...workedExample('carry').pd!.link, corruptShare: 1 } },
    { leaseTicks: 1, link: { ...workedExample('carry').pd!.link, delay: 100 } },
    {
      faults: [3, 4, 5].map((step) => ({ when: { step, phase: 'updated' as const }, kind: 'kill' as const, rank: 0 })),
      leaseTicks: 1,
    },
  ];
  for (const changes of bad) {
    for (const onLoadFailure of ['recompute', 'fail'] as const) {
      const { violation, marks, lines } = runScenario(
        workedExample('with-kv', { ...changes, onLoadFailure }),
        testedDesignByName('deltas'),
        { isTracing: true },
      );
      expect(violation?.message ?? null, JSON.stringify(changes)).toBeNull();
      expect(marks, JSON.stringify(changes)).toContain(
        onLoadFailure === 'fail' ? 'load failed and ended its request' : 'load failed and computed again',
      );
      const ends = lines.filter((line) => /D: .* ends: /.test(line) && !line.includes('the load of'));
      expect(
        ends.filter((line) => line.includes(onLoadFailure === 'fail' ? ' error' : ' length')).length,
      ).toBeGreaterThanOrEqual(3);
    }
  }
});

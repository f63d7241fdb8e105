/**
 * The contract of a capture design: laws L1–L8, over every design, mode and scenario, against the oracle. A row may be
 * missing only where a gap that the design declares explains exactly that row; each declared gap has to show, or it is
 * no gap.
 *
 * A failure names design, mode, scenario and seed. `CAPTURE_SEED=n` runs that seed alone, `CAPTURE_SEEDS=n` the seeds
 * [0, n).
 */

import { afterAll, describe, expect, test } from 'vitest';
import { designs, type DeclaredGap, type Design } from '../../src/capture/designs.ts';
import { modelPreset } from '../../src/kernels/model/model-presets.ts';
import { checkLaws } from './check-laws.ts';
import { runDesign } from './design-run.ts';
import type { Happened, Scenario, SchedulingMode } from './scenarios.ts';
import { modes, scenarios } from './scenarios.ts';

const one = process.env['CAPTURE_SEED'];
const numSeeds = Number(process.env['CAPTURE_SEEDS'] ?? 8);
const seeds = one === undefined ? Array.from({ length: numSeeds }, (_, seed) => seed) : [Number(one)];

/** Policy `computed-only`: the half of the RFC, which `host-cache` also has. */
const rfc: Design = {
  ...designs.deltas,
  gaps: [{ law: 'L1', reason: 'rows of prefix-cached tokens are missing', missing: 'prefix-hit' }],
  engineHalf: (model, engine, resources) =>
    designs.deltas.engineHalf(model, engine, { ...resources, prefixRows: 'computed-only' }),
};

const contenders: readonly (readonly [title: string, design: Design])[] = [
  ...Object.entries(designs),
  ['deltas/computed-only', rfc],
];

type Contest = Readonly<{ title: string; design: Design; mode: SchedulingMode; scenario: Scenario }>;

/** Runs all seeds. Throws with what to type to see the failing one again. */
async function holdsLaws({ title, design, mode, scenario }: Contest): Promise<ReadonlySet<DeclaredGap>> {
  const used = new Set<DeclaredGap>();
  let rowsChecked = 0;
  const happened: Partial<Record<keyof Happened, number>> = {};
  for (const seed of seeds) {
    const fail = (what: string, cause?: unknown): never => {
      const where = `${title}, ${mode.name}, ${scenario.name}, seed ${seed}`;
      const only = `${title} ${mode.name} ${scenario.name}`;
      const again = `CAPTURE_SEED=${seed} npx vitest run --project contract -t '${only}'`;
      throw new Error(`${where}: ${what}\nagain: ${again}`, { cause });
    };
    const ran = await runDesign({ design, mode, scenario, seed }).catch((error: unknown) =>
      fail(error instanceof Error ? error.message : String(error), error),
    );
    const report = checkLaws(design, ran);
    if (report.violations.length > 0) fail(report.violations.slice(0, 5).join('\n'));
    for (const gap of report.used) used.add(gap);
    rowsChecked += report.rowsChecked;
    for (const name of Object.keys(ran.happened) as (keyof Happened)[]) {
      happened[name] = (happened[name] ?? 0) + ran.happened[name];
    }
  }
  for (const name of one === undefined ? scenario.mustHappen : []) {
    expect(happened[name], `${scenario.name}, ${mode.name}: ${name} never happened`).toBeGreaterThan(0);
  }
  const returnsRows = scenario.optIn > 0 && !design.gaps.some(({ missing }) => missing === 'all');
  if (one === undefined) expect(rowsChecked > 0, `${rowsChecked} rows were compared with the oracle`).toBe(returnsRows);
  return used;
}

describe.each(contenders)('%s', (title, design) => {
  const used = new Set<DeclaredGap>();
  let numRun = 0;

  describe.each(modes)('$name', (mode) => {
    test.each(scenarios)('$name', async (scenario) => {
      for (const gap of await holdsLaws({ title, design, mode, scenario })) used.add(gap);
      numRun++;
    });
  });

  test('ids of more than 256 experts do not wrap (L2)', async () => {
    const model = { ...modelPreset('tiny'), name: 'tiny-300', numExperts: 300 };
    const scenario: Scenario = { ...scenarios[0]!, name: '300 experts', sharesPrefix: 0.5 };
    const ran = await runDesign({ design, mode: modes[1]!, scenario, seed: 1, model });
    expect(checkLaws(design, ran).violations).toEqual([]);
    const ids = ran.requests.flatMap(({ rows }) => rows?.chunks.flatMap((chunk) => [...(chunk ?? [])]) ?? []);
    if (ids.length > 0) expect(Math.max(...ids)).toBeGreaterThan(255);
  });

  test('copies no more for a long request than for a short one (L6)', async () => {
    const copied = await Promise.all(
      [16, 128].map(async (length) => {
        const scenario: Scenario = {
          ...scenarios[0]!,
          name: `prompt of ${length}`,
          numRequests: 1,
          promptLength: [length, length],
          maxTokens: [3, 3],
          engine: { maxNumBatchedTokens: 16, maxModelLen: 256, numBlocks: 128 },
        };
        const ran = await runDesign({ design, mode: modes[0]!, scenario, seed: 0 });
        expect(checkLaws(design, ran).violations).toEqual([]);
        return ran.mostBytesCopied;
      }),
    );
    const gap = design.gaps.find(({ law }) => law === 'L6');
    if (gap === undefined) return expect(copied[1]).toBe(copied[0]);
    expect(copied[1]).toBeGreaterThan(copied[0]!);
    used.add(gap);
    return undefined;
  });

  afterAll(() => {
    if (numRun < modes.length * scenarios.length || one !== undefined) return;
    const stale = design.gaps
      .filter((gap) => gap.shows === undefined && !used.has(gap))
      .map(({ law, reason }) => `${law}: ${reason}`);
    expect(stale, `${title} declares gaps that never showed`).toEqual([]);
  });
});

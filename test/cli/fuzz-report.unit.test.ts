/** The report of a campaign: a line for each broken law, whatever the number of storms, and no silent early end. */

import { expect, test } from 'vitest';
import { firstOfEachLaw, renderReport, type FuzzReport } from '../../src/cli/fuzz/report.ts';
import { mergeParts, runSeeds, type CampaignPart, type SeedViolation } from '../../src/sim/campaign.ts';
import { testedDesignByName } from '../../src/sim/tested-design.ts';

function violation(seed: number, law: SeedViolation['law'], kind: SeedViolation['kind'] = 'wrong'): SeedViolation {
  return { design: './mine.ts', seed, kind, law, step: 0, what: `what seed ${seed} broke` };
}

const many = [
  ...Array.from({ length: 12 }, (_, i) => violation(2 * i + 1, 'L1')),
  violation(8, 'L8', 'crash'),
  violation(9, 'L8', 'stall'),
];

test('one of each law and kind is told, the first', () => {
  expect(firstOfEachLaw(many).map(({ seed }) => seed)).toEqual([1, 8, 9]);
});

test('each broken law has a line with its storms, and a campaign that stopped early says so', () => {
  const lines = render({ scenarios: 500, violations: many }, 1000).split('\n');
  expect(lines.filter((line) => line.startsWith('./mine.ts: '))).toEqual([
    './mine.ts: L1 broken (wrong) by 12 storms, seeds 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, …: what seed 1 broke',
    './mine.ts: L8 broken (crash) by one storm, seed 8: what seed 8 broke',
    './mine.ts: L8 broken (stall) by one storm, seed 9: what seed 9 broke',
    './mine.ts: stopped after 500 of 1000 storms, of which 14 broke a law',
  ]);
});

test('a campaign that ran to its end without a violation has none of these lines', () => {
  expect(render({ scenarios: 1000, violations: [] }, 1000)).not.toContain('./mine.ts: ');
});

function render(part: Pick<CampaignPart, 'scenarios' | 'violations'>, seeds: number): string {
  const empty = mergeParts([runSeeds(testedDesignByName('off'), { from: 1, to: 1, twice: false, stopAfter: 0 })]);
  const parts = [{ ...empty, design: './mine.ts', ...part }];
  const report: FuzzReport = {
    seeds,
    from: 1,
    pd: false,
    pipeline: false,
    offload: false,
    scenarios: part.scenarios,
    steps: 0,
    seconds: 1,
    scenariosPerSecond: 0,
    stepsPerSecond: 0,
    designs: [],
    violations: part.violations.map((each) => ({ ...each, story: [], file: null })),
    thinPaths: [],
  };
  return renderReport(report, parts);
}

/** What a campaign found, for readers and for programs. */

import Table from 'cli-table3';
import type { CampaignPart, SeedViolation } from '../../sim/campaign.ts';
import { COVERAGE_SCENARIOS, marksOf, rareMarks, type Beside, type RareMark } from '../../sim/coverage.ts';
import { LAWS } from '../../sim/laws/violation.ts';
import { loadedDesign } from './loaded-designs.ts';

/** Exit codes of `fuzz`, beyond 0 (every law kept) and 2 (bad usage). */
export const EXIT = { wrong: 1, stall: 3, crash: 4, thin: 5 } as const;

/** A path that too few scenarios of a design took. */
export type ThinPath = RareMark & Readonly<{ design: string }>;

/** The paths that campaigns large enough to say so took too rarely: such a campaign proves less than it seems to. */
export function thinPathsOf(parts: readonly CampaignPart[], beside: Beside): ThinPath[] {
  return parts.flatMap(({ design, scenarios, marks: counts }) => {
    if (scenarios < COVERAGE_SCENARIOS) return [];
    const rare = rareMarks({ tested: loadedDesign(design).name, beside, scenarios, counts });
    return rare.map((each) => ({ design, ...each }));
  });
}

export function showThinPath({ design, mark, count, due }: ThinPath): string {
  return `${design}: too few scenarios for “${mark}”: ${count}, at least ${due} are due`;
}

/** A wrong answer outweighs a crash, a crash a stall. */
export function exitCodeOf(violations: readonly SeedViolation[]): number {
  for (const kind of ['wrong', 'crash', 'stall'] as const) {
    if (violations.some((violation) => violation.kind === kind)) return EXIT[kind];
  }
  return 0;
}

export type FuzzReport = Readonly<{
  seeds: number;
  from: number;
  /** With a prefill engine in front. */
  pd: boolean;
  /** With KV kept outside the device. */
  offload: boolean;
  /** On a pipeline of stages. */
  pipeline: boolean;
  scenarios: number;
  steps: number;
  /** Null, and so are the rates: parts were put together, and no clock ran along. */
  seconds: number | null;
  scenariosPerSecond: number | null;
  stepsPerSecond: number | null;
  designs: readonly Readonly<{
    design: string;
    /** Of all event logs; the same on every machine. */
    hash: string;
    declared: CampaignPart['declared'];
    marks: CampaignPart['marks'];
  }>[];
  violations: readonly (SeedViolation & Readonly<{ story: readonly string[]; file: string | null }>)[];
  /** Paths that were taken too rarely. */
  thinPaths: readonly ThinPath[];
}>;

/** The first violation of each law, of each design and kind. */
export function firstOfEachLaw(violations: readonly SeedViolation[]): SeedViolation[] {
  return [...byLaw(violations).values()].map(([first]) => first!);
}

function byLaw(violations: readonly SeedViolation[]): Map<string, SeedViolation[]> {
  return Map.groupBy(violations, ({ design, law, kind }) => `${design}: ${law} broken (${kind})`);
}

/** Seeds of one law that are listed. */
const MOST_SEEDS = 10;

/** A line for each law that was broken: by how many storms, the first of them, and what the first of all broke. */
function showBroken(violations: readonly SeedViolation[]): string[] {
  return [...byLaw(violations)].map(([title, found]) => {
    const seeds = found.slice(0, MOST_SEEDS).map(({ seed }) => seed);
    const more = found.length > MOST_SEEDS ? ', …' : '';
    const storms = found.length === 1 ? 'one storm, seed' : `${found.length} storms, seeds`;
    return `${title} by ${storms} ${seeds.join(', ')}${more}: ${found[0]!.what}`;
  });
}

/** A design that is broken all over is not run to the end. */
function showCutShort({ scenarios, violations, design }: CampaignPart, seeds: number): string[] {
  if (scenarios >= seeds) return [];
  return [`${design}: stopped after ${scenarios} of ${seeds} storms, of which ${violations.length} broke a law`];
}

/** The table, the laws that were broken, and the counts of rare paths. */
export function renderReport(report: FuzzReport, parts: readonly CampaignPart[]): string {
  const table = new Table({
    head: ['design', 'scenarios', 'broken', 'gives up (seeds)', 'event log'],
    style: { head: [], border: [] },
  });
  for (const part of parts) {
    const declared = LAWS.flatMap((law) => (part.declared[law] ? [`${law} (${part.declared[law].seeds})`] : []));
    table.push([part.design, part.scenarios, part.violations.length, declared.join(' '), part.hash]);
  }
  const scenarios = parts.reduce((sum, part) => sum + part.scenarios, 0);
  const marks = marksOf(report).map((mark) => {
    const count = parts.reduce((sum, part) => sum + part.marks[mark], 0);
    const share = scenarios === 0 ? 0 : count / scenarios;
    return `  ${String(count).padStart(8)}  ${(100 * share).toFixed(1).padStart(5)} %  ${mark}`;
  });
  return [
    table.toString(),
    ...showBroken(report.violations),
    ...parts.flatMap((part) => showCutShort(part, report.seeds)),
    'scenarios that went where it hurts:',
    ...marks,
    ...report.thinPaths.map(showThinPath),
    `${report.scenarios} scenarios, ${report.steps} steps${showRates(report)}`,
  ].join('\n');
}

function showRates({ seconds, scenariosPerSecond, stepsPerSecond }: FuzzReport): string {
  if (seconds === null) return '';
  const [scenarios, steps] = [scenariosPerSecond, stepsPerSecond].map((rate) => Math.round(rate ?? 0));
  return ` in ${seconds.toFixed(1)} s: ${scenarios} scenarios/s, ${steps} steps/s`;
}
